//! `jobctl start`: prints the new job's id, and nothing else.

use clap::Args;

use crate::cli::Format;
use crate::client::Client;
use crate::spec::JobArgs;
use crate::{exit, render};

/// Arguments of `start`.
#[derive(Args, Debug)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    job: JobArgs,
}

pub(crate) async fn start(client: &Client, format: Format, args: StartArgs) -> anyhow::Result<u8> {
    let job = client.start(args.job.into_request()).await?;
    render::job(format, &job, |job| Ok(job.id.clone()))?;
    Ok(exit::SUCCESS)
}
