//! `jobworker certs init | server | client | revoke | request`.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::{
    AuthorityName, AuthorityRequest, ClientName, ClientRequest, Days, Error, Existing, Folder, Holder, Host,
    Issued, KeyKind, RequestedNames, Revocation, Role, RoleOid, Serial, ServerRequest, Uri,
    issuance::SERVER_NAME, sign, sign::Sign, utc_text,
};

/// Make and revoke certificates for jobworker
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a CA: ca.pem, ca-key.pem and an empty crl.pem
    Init(Init),
    /// Make the worker's certificate: server.pem and server-key.pem
    Server(Server),
    /// Make a person's certificate: NAME.pem and NAME-key.pem
    Client(Client),
    /// Add a certificate to crl.pem. A worker's own (`server`) is revoked for clients that are given the list (jobctl --crl)
    Revoke(Revoke),
    /// Make the worker's private key where it is to stay, server-key.pem, and a request for its certificate, server.csr
    Request(Request),
    /// Sign a request: of a person (--role) who made it with `jobctl cert request`, of a worker (--host) or of openssl
    Sign(Sign),
}

#[derive(Debug, Args)]
pub struct Init {
    /// Folder for the files; made with mode 0700 if missing
    #[arg(long)]
    dir: PathBuf,
    /// Kind of key to make
    #[arg(long, value_enum, default_value_t)]
    key: KeyKind,
    /// Days until the CA, and everything it signed, ends
    #[arg(long, default_value_t = Days::YEAR)]
    days: Days,
    /// The CA's common name
    #[arg(long, default_value = "jobworker CA")]
    name: AuthorityName,
}

#[derive(Debug, Args)]
pub struct Server {
    /// Folder with the CA
    #[arg(long)]
    dir: PathBuf,
    /// DNS name or IP address clients use; repeatable
    #[arg(long = "host", value_name = "HOST", required = true)]
    hosts: Vec<Host>,
    /// Kind of key to make
    #[arg(long, value_enum, default_value_t)]
    key: KeyKind,
    /// Days it is valid, cut to the CA's end
    #[arg(long, default_value_t = Days::YEAR)]
    days: Days,
    /// Folder for both files, made with mode 0700 if missing: one for each worker, as they are all called so
    /// [default: the folder with the CA]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace an existing server.pem and server-key.pem
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub struct Client {
    /// Folder with the CA
    #[arg(long)]
    dir: PathBuf,
    /// The person's or program's name: the certificate's common name and the files' name
    #[arg(long)]
    name: ClientName,
    /// What the worker's policy calls it: admin, user, …
    #[arg(long)]
    role: Role,
    /// URI name; the first one owns the client's jobs instead of the name; repeatable
    #[arg(long = "uri", value_name = "URI")]
    uris: Vec<Uri>,
    /// Kind of key to make
    #[arg(long, value_enum, default_value_t)]
    key: KeyKind,
    /// Days it is valid, cut to the CA's end
    #[arg(long, default_value_t = Days::CLIENT)]
    days: Days,
    /// The extension that carries the role; the worker must be told the same
    #[arg(long, default_value_t)]
    role_oid: RoleOid,
    /// Folder for both files, made with mode 0700 if missing
    /// [default: the folder with the CA]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace an existing NAME.pem and NAME-key.pem
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub struct Request {
    /// Folder for the files; made with mode 0700 if missing
    #[arg(long)]
    dir: PathBuf,
    /// DNS name or IP address clients use; repeatable
    #[arg(long = "host", value_name = "HOST", required = true)]
    hosts: Vec<Host>,
    /// Kind of key to make
    #[arg(long, value_enum, default_value_t)]
    key: KeyKind,
    /// Replace an existing server-key.pem and server.csr
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub struct Revoke {
    /// Folder with the CA
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    target: Target,
}

/// What to revoke: exactly one of the two.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// A client's name, or "server": the certificate in NAME.pem
    name: Option<Holder>,
    /// A serial number, for a certificate whose file is gone (the audit log has it)
    #[arg(long)]
    serial: Option<Serial>,
}

/// Carries out a command: what was written goes to stdout, notes to stderr.
///
/// # Errors
/// Those of [`Folder`].
pub fn run(command: Command) -> anyhow::Result<()> {
    let report = match command {
        Command::Init(args) => init(args)?,
        Command::Server(args) => server(args)?,
        Command::Client(args) => client(args)?,
        Command::Revoke(args) => revoke(args)?,
        Command::Request(args) => request(args)?,
        Command::Sign(args) => sign::run(args)?,
    };
    match io::stdout().write_all(report.as_bytes()) {
        // The files are there; a reader that went away is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("write to stdout"),
        _ => Ok(()),
    }
}

fn init(args: Init) -> Result<String, Error> {
    let folder = Folder::at(args.dir);
    let request = AuthorityRequest { name: args.name, key: args.key, days: args.days };
    let authority = folder.init(&request)?;
    Ok(format!(
        "{}: the CA {:?}, valid until {}; workers and clients need it\n\
         {}: its private key; whoever has it can make themselves admin\n\
         {}: the revocation list, empty; workers need it\n",
        folder.path("ca.pem").display(),
        request.name.as_str(),
        utc_text(authority.not_after()),
        folder.path("ca-key.pem").display(),
        folder.path("crl.pem").display(),
    ))
}

fn server(args: Server) -> Result<String, Error> {
    let request = ServerRequest { hosts: args.hosts, key: args.key, days: args.days };
    let folder = Folder::at(args.dir).issuing_to(args.out);
    let issued = folder.issue(&Holder::Server, existing(args.force), |ca| ca.issue_server(&request))?;
    let hosts: Vec<_> = request.hosts.iter().map(Host::to_string).collect();
    Ok(report(&folder, &Holder::Server, &issued, &format!("for {}", hosts.join(", "))))
}

fn client(args: Client) -> Result<String, Error> {
    let request = ClientRequest {
        name: args.name,
        role: args.role,
        role_oid: args.role_oid,
        uris: args.uris,
        key: args.key,
        days: args.days,
    };
    let folder = Folder::at(args.dir).issuing_to(args.out);
    let holder = Holder::Client(request.name.clone());
    let issued = folder.issue(&holder, existing(args.force), |ca| ca.issue_client(&request))?;
    Ok(report(&folder, &holder, &issued, &format!("for {}, role {}", request.name, request.role)))
}

fn revoke(args: Revoke) -> Result<String, Error> {
    let folder = Folder::at(args.dir);
    let is_server = args.target.name == Some(Holder::Server);
    let (what, serial) = match (args.target.name, args.target.serial) {
        (Some(holder), _) => {
            (folder.path(&holder.certificate_file()).display().to_string(), folder.serial_of(&holder)?)
        }
        (None, Some(serial)) => ("certificate".to_owned(), serial),
        (None, None) => unreachable!("clap requires one of the two"),
    };
    let list = folder.path("crl.pem");
    Ok(match folder.revoke(&serial)? {
        Revocation::Added if is_server => format!(
            "{what}: revoked, serial {serial}\n\
             {}: give it to every client of that worker (jobctl --crl, `crl` of a context): who has not got it goes on \
             trusting whoever has the key; workers don't look at it for their own certificate, and one that runs with this \
             one goes on: make another (jobworker certs server --force)\n",
            list.display()
        ),
        Revocation::Added => format!(
            "{what}: revoked, serial {serial}\n\
             {}: give it to every worker (--crl); if the certificate is a worker's, to its clients (jobctl --crl)\n",
            list.display()
        ),
        Revocation::Already(since) => {
            format!("{what}: already revoked on {}, serial {serial}\n", utc_text(since))
        }
    })
}

fn request(args: Request) -> Result<String, Error> {
    let folder = Folder::at(args.dir);
    let hosts: String = args.hosts.iter().map(|host| format!(" --host {host}")).collect();
    let names =
        RequestedNames { common_name: Some(SERVER_NAME.to_owned()), uris: Vec::new(), hosts: args.hosts };
    let made = folder.request(&Holder::Server, existing(args.force), args.key, &names)?;
    let request = folder.path(&Holder::Server.request_file());
    Ok(format!(
        "{}: a private key; it stays here\n\
         {}: a request for its certificate, key {}\n\
         Whoever has the CA signs it: jobworker certs sign --dir DIR server.csr{hosts}\n",
        folder.path(&Holder::Server.key_file()).display(),
        request.display(),
        made.fingerprint(),
    ))
}

pub(crate) fn existing(force: bool) -> Existing {
    if force { Existing::Replace } else { Existing::Keep }
}

fn report(folder: &Folder, holder: &Holder, issued: &Issued, subject: &str) -> String {
    let certificate = folder.issued_path(&holder.certificate_file());
    let until = utc_text(issued.not_after);
    if issued.cut_to_authority {
        eprintln!("note: {} ends on {until}, because the CA ends then", certificate.display());
    }
    format!(
        "{}: certificate {subject}, valid until {until}, serial {}\n{}: its private key\n",
        certificate.display(),
        issued.serial,
        folder.issued_path(&holder.key_file()).display(),
    )
}
