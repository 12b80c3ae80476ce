//! `jobctl cert`: your certificate, from the request for the first one to its renewal. The private key stays here.

mod former;
mod renew;
mod request;
mod status;

use clap::{Args, Subcommand};

use self::renew::RenewArgs;
use self::request::RequestArgs;
use self::status::StatusArgs;
use crate::cli::Globals;

/// Arguments of `cert`.
#[derive(Args, Debug)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// Make a private key, NAME-key.pem, and a request for a certificate, NAME.csr, to be signed by whoever has the CA
    Request(RequestArgs),
    /// Replace your certificate and its key by new ones with the same names and role, signed by the worker
    Renew(RenewArgs),
    /// Show what your certificate says and how long it lasts; exits with 1 once it has ended
    Status(StatusArgs),
}

pub(crate) async fn cert(globals: &Globals, args: CertArgs) -> anyhow::Result<u8> {
    match args.command {
        CertCommand::Request(args) => request::request(args),
        CertCommand::Renew(args) => renew::renew(globals, args).await,
        CertCommand::Status(args) => status::status(globals, &args),
    }
}
