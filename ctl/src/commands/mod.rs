//! The commands: one file each. A command gets the connection and returns jobctl's exit code. Those that may be repeated
//! get one that is made anew when it breaks.

pub(crate) mod cert;
mod list;
pub(crate) mod remove;
pub(crate) mod run;
pub(crate) mod signal;
pub(crate) mod start;
mod status;
pub(crate) mod stop;
pub(crate) mod stream;
pub(crate) mod wait;

use std::sync::Arc;

use clap::Args;

use crate::cli::{Cli, Command};
use crate::client::Client;
use crate::config::Target;
use crate::later::Later;
use crate::own;
use crate::reconnect::Link;

/// Names a job.
#[derive(Args, Debug)]
pub(crate) struct JobRef {
    /// The job's id, or the beginning of it
    job: String,
}

/// Carries out what the command line says.
///
/// # Errors
/// Whatever stands in the way, in words for people.
pub(crate) async fn execute(cli: Cli) -> anyhow::Result<u8> {
    if let Command::Cert(Later(args)) = cli.command {
        return cert::cert(&cli.globals, args).await;
    }
    let target = Target::resolve(&cli.globals)?;
    own::look_after(&target.credentials);
    let client = Client::connect(Arc::new(target)).await?;
    let format = cli.globals.output;
    match cli.command {
        Command::Cert(_) => unreachable!("seen to above"),
        Command::Start(Later(args)) => start::start(&Link::new(client, &args.reconnect), format, args).await,
        Command::Run(Later(args)) => run::run(&Link::new(client, &args.reconnect), args).await,
        Command::Stop(Later(args)) => stop::stop(&client, format, args).await,
        Command::Status(Later(args)) => status::status(&client, format, args).await,
        Command::Stream(Later(args)) => stream::stream(&Link::new(client, &args.reconnect), args).await,
        Command::List => list::list(&client, format, cli.globals.color).await,
        Command::Wait(Later(args)) => wait::wait(&Link::new(client, &args.reconnect), format, args).await,
        Command::Signal(Later(args)) => signal::signal(&client, format, args).await,
        Command::Remove(Later(args)) => remove::remove(&client, format, args).await,
    }
}
