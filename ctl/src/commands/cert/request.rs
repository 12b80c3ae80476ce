//! `jobctl cert request`: a private key that stays here, and a request to hand out.

use std::path::PathBuf;

use clap::Args;
use jobworker_certs::{ClientName, Existing, Folder, Holder, KeyKind, RequestedNames, Uri};

use crate::{exit, render};

/// Arguments of `cert request`.
#[derive(Args, Debug)]
pub(crate) struct RequestArgs {
    /// Your name: the certificate's common name and the files' name
    #[arg(long)]
    name: ClientName,
    /// A URI name to ask for; the first one owns your jobs instead of the name; repeatable
    #[arg(long = "uri", value_name = "URI")]
    uris: Vec<Uri>,
    /// Kind of key to make (not the file that the global option names)
    #[arg(long = "key-kind", value_enum, default_value_t)]
    kind: KeyKind,
    /// Folder for the files; made with mode 0700 if missing
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Replace an existing NAME-key.pem and NAME.csr; a certificate for the key before is of no use then
    #[arg(long)]
    force: bool,
}

pub(crate) fn request(args: RequestArgs) -> anyhow::Result<u8> {
    let RequestArgs { name, uris, kind, out, force } = args;
    let folder = Folder::at(out);
    let names = RequestedNames {
        common_name: Some(name.to_string()),
        uris: uris.iter().map(Uri::to_string).collect(),
        hosts: Vec::new(),
    };
    let holder = Holder::Client(name);
    let existing = if force { Existing::Replace } else { Existing::Keep };
    let made = folder.request(&holder, existing, kind, &names)?;
    let path = |file: String| folder.path(&file).display().to_string();
    let (request, key) = (path(holder.request_file()), path(holder.key_file()));
    let flags: String = uris.iter().map(|uri| format!(" --uri {uri}")).collect();
    render::out(&format!(
        "{key}: your private key; it stays here\n\
         {request}: a request for a certificate, key {}\n\
         Send {} to whoever has the CA, and tell them that fingerprint over another channel. They run\n  \
         jobworker certs sign --dir DIR {} --role ROLE{flags}\n\
         and send back {}, which belongs beside the key, and ca.pem.\n",
        made.fingerprint(),
        holder.request_file(),
        holder.request_file(),
        holder.certificate_file(),
    ))?;
    Ok(exit::SUCCESS)
}
