//! `jobctl run`: start, stream and exit with the job's code. Ctrl-C (or SIGTERM) asks the worker to stop the job, as soon
//! as there is a connection, and keeps streaming to its end; a second one leaves at once.

use std::fs::File;

use anyhow::bail;
use clap::Args;
use jobworker_proto::v1::{Job, StopRequest, StreamRequest};

use super::start::start_job;
use crate::exit;
use crate::follow::{self, Asked, Followed};
use crate::interrupts::Interrupts;
use crate::outcome::{End, Outcome};
use crate::printer::Printer;
use crate::reconnect::{Link, ReconnectArgs};
use crate::render::{self, words};
use crate::spec::JobArgs;

/// Arguments of `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Don't say on stderr how the job ended
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    pub(crate) reconnect: ReconnectArgs,
    #[command(flatten)]
    job: JobArgs,
}

pub(crate) async fn run(link: &Link, args: RunArgs) -> anyhow::Result<u8> {
    let mut interrupts = Interrupts::new()?;
    // Ready before there is anything to print.
    let printer = Printer::new(false)?;
    let request = args.job.into_request();
    let wanted_id = request.id.clone();
    // Behind the start, in the same flight: a round trip less.
    let asked = follow::ask(link, all_of(&wanted_id)).await;
    let job = tokio::select! {
        started = start_job(link, request) => started?,
        () = leave_while_starting(&wanted_id, &mut interrupts) => return Ok(exit::INTERRUPTED),
    };
    tokio::select! {
        code = to_the_end(link, &job, asked, printer, args.quiet) => code,
        () = stop_and_leave(link, &job, &mut interrupts) => Ok(exit::INTERRUPTED),
    }
}

fn all_of(job: &str) -> StreamRequest {
    StreamRequest { job: job.to_owned(), ..Default::default() }
}

/// Returns at the second interrupt. The first one is left to [`stop_and_leave`].
async fn leave_while_starting(id: &str, interrupts: &mut Interrupts) {
    interrupts.reach(1).await;
    render::note(&format!("stopping job {id} as soon as it is started; once more leaves it"));
    interrupts.reach(2).await;
    render::note(&format!("left while job {id} was being started; `jobctl status {id}` tells more"));
}

/// Streams to the job's end and gives its exit code.
async fn to_the_end(
    link: &Link,
    job: &Job,
    asked: Asked,
    printer: Printer<File>,
    quiet: bool,
) -> anyhow::Result<u8> {
    let followed = follow::follow_asked(link, all_of(&job.id), Some(asked), printer)
        .await
        .map_err(|broken| follow::resumable(&broken.error, &job.id, broken.resume_at.unwrap_or(0)))?;
    let job = match followed {
        Followed::Finished(job) => job,
        Followed::ReaderGone => return without_a_reader(link, job).await,
        Followed::Present => bail!("the worker ended the output of job {} before the job ended", job.id),
    };
    let outcome = Outcome::of_finished(&job)?;
    if !quiet && !matches!(outcome, Outcome::Exited(End::Code(_))) {
        render::note(&format!("job {}: {}", job.id, words::ending(&job, &outcome)));
    }
    Ok(exit::of_outcome(&outcome))
}

/// `jobctl run … | head`: a local command would be ended by its next write, so the job is stopped. No error.
async fn without_a_reader(link: &Link, job: &Job) -> anyhow::Result<u8> {
    let job = stop(link, job).await?;
    match Outcome::of_finished(&job)? {
        Outcome::Stopped { .. } => Ok(exit::SUCCESS),
        outcome => Ok(exit::of_outcome(&outcome)),
    }
}

/// At the first interrupt asks for a stop; returns at the second one.
async fn stop_and_leave(link: &Link, job: &Job, interrupts: &mut Interrupts) {
    interrupts.reach(1).await;
    let id = &job.id;
    let when = if link.is_down() { " as soon as the worker is there again" } else { "" };
    render::note(&format!("stopping job {id}{when}; once more leaves it"));
    let stop = async {
        if let Err(error) = stop(link, job).await {
            render::note(&format!("cannot stop job {id}: {error:#}"));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = stop => {}
        () = interrupts.reach(2) => {}
    }
    if link.is_down() {
        render::note(&format!(
            "left job {id} without a connection to the worker; `jobctl stop {id}` stops it"
        ));
    } else {
        render::note(&format!(
            "left job {id} while it was being stopped; `jobctl status {id}` shows it, `jobctl stop --now {id}` kills it"
        ));
    }
}

/// May be repeated: a job that is being stopped, or has ended, stays as it is.
async fn stop(link: &Link, job: &Job) -> anyhow::Result<Job> {
    let request = StopRequest { job: job.id.clone(), ..Default::default() };
    let (job, _) = link.call(async |client| Ok(client.stop(request.clone()).await?)).await?;
    Ok(job)
}
