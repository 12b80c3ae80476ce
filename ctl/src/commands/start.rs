//! `jobctl start`: prints the new job's id, and nothing else.

use clap::Args;
use jobworker_proto::v1::{Job, StartRequest};

use crate::call_error::outage_cause;
use crate::cli::Format;
use crate::reconnect::{Link, ReconnectArgs};
use crate::spec::JobArgs;
use crate::{exit, render};

/// Arguments of `start`.
#[derive(Args, Debug)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) reconnect: ReconnectArgs,
    #[command(flatten)]
    job: JobArgs,
}

pub(crate) async fn start(link: &Link, format: Format, args: StartArgs) -> anyhow::Result<u8> {
    let job = start_job(link, args.job.into_request()).await?;
    render::job(format, &job, |job| Ok(job.id.clone()))?;
    Ok(exit::SUCCESS)
}

/// Starts the job, once: a request that is repeated has the same id.
///
/// # Errors
/// The call's; with the job's id where it may have been started all the same.
pub(crate) async fn start_job(link: &Link, request: StartRequest) -> anyhow::Result<Job> {
    let mut in_doubt = false;
    let started = link
        .call(async |client| {
            let started = client.start(request.clone()).await.map_err(anyhow::Error::from);
            in_doubt |= started.as_ref().is_err_and(|error| outage_cause(error).is_some());
            started
        })
        .await;
    let id = &request.id;
    started.map_err(|error| match in_doubt {
        true => error.context(format!("job {id} may have been started, `jobctl status {id}` tells")),
        false => error,
    })
}
