//! `jobctl wait`: waits for a job's end, prints how it ended and exits with its code.

use clap::Args;

use super::JobRef;
use crate::call_error::outage_cause;
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
    let id = args.job.job;
    let mut is_repeated = false;
    let job = link
        .call(async |client| {
            // A wait may be without an answer for days: this one tells that the worker is there.
            if std::mem::replace(&mut is_repeated, true) {
                match client.status(id.clone()).await.map_err(anyhow::Error::from) {
                    Err(error) if outage_cause(&error).is_some() => return Err(error),
                    _ => link.was_answered(),
                }
            }
            Ok(client.wait(id.clone()).await?)
        })
        .await?;
    render::done(format, &job, render::text::ended)?;
    Ok(exit::of_outcome(&Outcome::of_finished(&job)?))
}
