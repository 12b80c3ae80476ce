//! `jobworker certs sign`: a certificate for a key that somebody else has.

use std::{fs::File, io::Read, path::PathBuf};

use clap::Args;

use crate::{
    ClientGrant, ClientName, Csr, Days, Error, Folder, Holder, Host, InvalidValue, MAX_CSR_BYTES, Role,
    RoleOid, ServerGrant, Signed, Uri, commands::existing, utc_text,
};

#[derive(Debug, Args)]
pub struct Sign {
    /// Folder with the CA
    #[arg(long)]
    dir: PathBuf,
    /// The request (PKCS #10, PEM)
    #[arg(value_name = "FILE")]
    request: PathBuf,
    #[command(flatten)]
    holder: AsWhom,
    /// The client's name: the certificate's common name and the file's name [default: the request's common name]
    #[arg(long, conflicts_with = "hosts")]
    name: Option<ClientName>,
    /// URI name; the first one owns the client's jobs instead of the name; repeatable. One that the request asks for has
    /// to be given here
    #[arg(long = "uri", value_name = "URI", conflicts_with = "hosts")]
    uris: Vec<Uri>,
    /// Days it is valid, cut to the CA's end [default: 45 for a client, 365 for a server]
    #[arg(long)]
    days: Option<Days>,
    /// The extension that carries the role; the worker must be told the same
    #[arg(long, default_value_t, conflicts_with = "hosts")]
    role_oid: RoleOid,
    /// Folder for the certificate, made with mode 0700 if missing: one for each worker, as they are all called server.pem
    /// [default: the folder with the CA]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace an existing NAME.pem or server.pem
    #[arg(long)]
    force: bool,
}

/// For a client or for a server: the signer says so, never the request.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct AsWhom {
    /// For a client: what the worker's policy calls it: admin, user, …
    #[arg(long, conflicts_with = "hosts")]
    role: Option<Role>,
    /// For a worker: DNS name or IP address clients use; repeatable
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<Host>,
}

/// Signs, and says what was signed for whom.
pub(crate) fn run(args: Sign) -> Result<String, Error> {
    let csr = read(&args.request)?;
    let folder = Folder::at(args.dir).issuing_to(args.out);
    let existing = existing(args.force);
    let (holder, signed, subject) = match args.holder.role {
        Some(role) => {
            let name = args.name.map_or_else(|| name_of(&csr), Ok)?;
            let days = args.days.unwrap_or(Days::CLIENT);
            let grant = ClientGrant { name, role, role_oid: args.role_oid, uris: args.uris, days };
            let holder = Holder::Client(grant.name.clone());
            let signed = folder.sign(&holder, existing, &csr, |ca| ca.sign_client(&csr, &grant))?;
            let uris: String = grant.uris.iter().map(|uri| format!(", {uri}")).collect();
            (holder, signed, format!("for {}{uris}, role {}", grant.name, grant.role))
        }
        None => {
            let grant = ServerGrant { hosts: args.holder.hosts, days: args.days.unwrap_or(Days::YEAR) };
            let signed = folder.sign(&Holder::Server, existing, &csr, |ca| ca.sign_server(&csr, &grant))?;
            let hosts: Vec<_> = grant.hosts.iter().map(Host::to_string).collect();
            (Holder::Server, signed, format!("for {}", hosts.join(", ")))
        }
    };
    let certificate = folder.issued_path(&holder.certificate_file()).display().to_string();
    let Signed { serial, not_after, cut_to_authority, .. } = signed;
    let until = utc_text(not_after);
    if cut_to_authority {
        eprintln!("note: {certificate} ends on {until}, because the CA ends then");
    }
    Ok(format!(
        "{certificate}: certificate {subject}, valid until {until}, serial {serial}\n\
         its key is {}; compare that with what its holder was shown, before you hand the certificate out\n",
        csr.key().fingerprint(),
    ))
}

fn read(path: &PathBuf) -> Result<Csr, Error> {
    // PEM takes a third more than what it holds, and openssl can put the whole request in words in front of it.
    const MAX_BYTES: u64 = 16 * MAX_CSR_BYTES as u64;
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    read.map_err(Error::io("read", path))?;
    Ok(Csr::from_pem(&text)?)
}

fn name_of(csr: &Csr) -> Result<ClientName, Error> {
    let name = csr.common_name().ok_or(InvalidValue {
        field: "--name",
        value: String::new(),
        expected: "the request has no common name, so the client's name has to be given",
    })?;
    Ok(name.parse()?)
}
