//! `jobctl stop`: ends a job and prints how it ended.

use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use jobworker_proto::v1::{Job, StopRequest};

use super::JobRef;
use crate::call_error::CallError;
use crate::cli::Format;
use crate::client::Client;
use crate::{exit, render};

/// How long a stop may last before it says what it waits for.
const SILENCE: Duration = Duration::from_secs(5);

/// Arguments of `stop`.
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    job: JobRef,
    /// The signal that asks the job to end [default: TERM]
    #[arg(long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// How long the job has to end before it is killed: 3s, 500ms [default: the worker's]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    grace: Option<Duration>,
    /// Kill it without asking
    #[arg(long, conflicts_with_all = ["signal", "grace"])]
    now: bool,
}

pub(crate) async fn stop(client: &Client, format: Format, args: StopArgs) -> anyhow::Result<u8> {
    let (job, already_ended) = stop_aloud(client, args.into_request()?).await?;
    render::done(format, &job, if already_ended { render::text::ended_before } else { render::text::ended })?;
    Ok(exit::SUCCESS)
}

/// Stops a job, and says on stderr what that waits for where it takes long: a process in uninterruptible sleep can't be
/// killed by anybody.
async fn stop_aloud(client: &Client, request: StopRequest) -> Result<(Job, bool), CallError> {
    let id = request.job.clone();
    let mut stopping = pin!(client.stop(request));
    if let Ok(stopped) = tokio::time::timeout(SILENCE, &mut stopping).await {
        return stopped;
    }
    tokio::select! {
        biased;
        stopped = &mut stopping => return stopped,
        // One who may stop a job and not look at it waits in silence.
        status = client.status(id) => if let Ok(job) = status
            && let Some(waited_for) = render::words::waited_for(&job)
        {
            render::note(&format!("job {}: waiting for {waited_for}", job.id));
        },
    }
    stopping.await
}

impl StopArgs {
    fn into_request(self) -> anyhow::Result<StopRequest> {
        let Self { job: JobRef { job }, signal, grace, now } = self;
        if now {
            return Ok(StopRequest { job, signal: "KILL".to_owned(), grace_msec: Some(0) });
        }
        let grace_msec =
            grace.map(|grace| u64::try_from(grace.as_millis()).context("--grace: too long")).transpose()?;
        Ok(StopRequest { job, signal: signal.unwrap_or_default(), grace_msec })
    }
}
