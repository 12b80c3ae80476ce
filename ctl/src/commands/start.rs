//! `jobctl start`: prints the new job's id, and nothing else.

use anyhow::anyhow;
use clap::Args;
use jobworker_proto::v1::{Job, StartRequest};

use crate::call_error::{Doubt, doubt_after, is_final};
use crate::cli::Format;
use crate::input;
use crate::interrupts::{Interrupts, Leaves};
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
    let (mut interrupts, mut leaves) = (Interrupts::new()?, Leaves::new()?);
    let request = args.job.into_request();
    let id = request.id.clone();
    let signal = async {
        tokio::select! {
            signal = interrupts.next() => signal,
            signal = leaves.next() => signal,
        }
    };
    tokio::select! {
        code = start_and_tell(link, format, request) => code,
        signal = signal => {
            render::note(&left_while_starting(&id));
            Ok(exit::of_signal(signal))
        }
    }
}

async fn start_and_tell(link: &Link, format: Format, request: StartRequest) -> anyhow::Result<u8> {
    let (job, warnings) = start_job(link, request).await?;
    let text = match format {
        Format::Json => render::json::started(&job, &warnings)?,
        Format::Text => job.id.clone(),
    };
    // On a thread: whoever reads it may make it wait, and signals have their say meanwhile.
    let told = tokio::task::spawn_blocking(move || render::deliver(&text)).await?;
    told.map_err(|error| {
        anyhow!("job {} was started, but its id can't be written to stdout: {error}", job.id)
    })?;
    input::note_if_any();
    Ok(exit::SUCCESS)
}

/// What becomes of a job whose start is not waited for.
pub(crate) fn left_while_starting(id: &str) -> String {
    format!(
        "left while job {id} was being started; `jobctl status {id}` tells more, `jobctl stop {id}` stops it"
    )
}

/// Starts the job, once: a request that is repeated has the same id. What the worker warns of is said on stderr, and
/// returned beside the job.
///
/// # Errors
/// The call's; with the job's id where it may have been started all the same.
pub(crate) async fn start_job(link: &Link, request: StartRequest) -> anyhow::Result<(Job, Vec<String>)> {
    let mut doubt = Doubt::None;
    let started = link
        .call(async |client| {
            let started = client.start(request.clone()).await.map_err(anyhow::Error::from);
            doubt = doubt.max(started.as_ref().err().map_or(Doubt::None, doubt_after));
            started
        })
        .await;
    let id = &request.id;
    let (job, warnings) = started.map_err(|error| match doubt {
        Doubt::Real => error.context(format!("job {id} may have been started, `jobctl status {id}` tells")),
        // What the worker says of this request now would have been true then.
        Doubt::Slight if !is_final(&error) => error.context(format!(
            "job {id} was probably not started, `jobctl status {id}` tells: no connection lasted until the worker's \
             first word"
        )),
        Doubt::Slight | Doubt::None => error,
    })?;
    for warning in &warnings {
        render::note(&format!("warning: {warning}"));
    }
    Ok((job, warnings))
}
