//! `jobctl wait`: waits for a job's end, prints how it ended and exits with its code.

use clap::Args;

use super::JobRef;
use crate::cli::Format;
use crate::outcome::Outcome;
use crate::reconnect::{Link, ReconnectArgs};
use crate::{exit, render};

/// Arguments of `wait`.
#[derive(Args, Debug)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    job: JobRef,
    #[command(flatten)]
    pub(crate) reconnect: ReconnectArgs,
}

pub(crate) async fn wait(link: &Link, format: Format, args: WaitArgs) -> anyhow::Result<u8> {
    let job = link.call(async |client| Ok(client.wait(args.job.job.clone()).await?)).await?;
    render::job(format, &job, render::text::ended)?;
    Ok(exit::of_outcome(&Outcome::of_finished(&job)?))
}
