//! `jobctl run`: start, stream and exit with the job's code. Signals do what they do to a local command, as far as a job
//! that lives elsewhere allows:
//!
//! | signal | what happens |
//! |---|---|
//! | SIGINT (Ctrl-C), SIGTERM | asks the worker to stop the job, as soon as there is a connection, and streams to its end; another one, more than 500 ms later, leaves (130) |
//! | SIGHUP, SIGQUIT (Ctrl-\\) | leaves the job alone (129, 131) |
//! | none, but the reader of the output has gone | stops the job (141) |
//!
//! Whoever leaves is told what becomes of the job, and how to go on.

use std::cell::Cell;
use std::fs::File;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use jobworker_proto::v1::{Job, JobState, StopRequest, StreamRequest};

use super::start::{left_while_starting, start_job};
use crate::exit;
use crate::follow::{self, Asked, Followed};
use crate::input;
use crate::interrupts::{Interrupts, Leaves};
use crate::outcome::{End, Outcome};
use crate::printer::{Printer, Progress};
use crate::reconnect::{Link, ReconnectArgs};
use crate::render::{self, words};
use crate::spec::JobArgs;
use crate::stdio::Patient;

/// How long whoever leaves waits to hear whether the job is being stopped.
const LAST_QUESTION: Duration = Duration::from_secs(1);
const QUESTION_PAUSE: Duration = Duration::from_millis(50);

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

/// How far a run has come.
#[derive(Clone, Copy)]
enum Stage {
    Starting,
    Running,
    /// The worker is asked to stop the job.
    Stopping,
}

pub(crate) async fn run(link: &Link, args: RunArgs) -> anyhow::Result<u8> {
    let (mut interrupts, mut leaves) = (Interrupts::new()?, Leaves::new()?);
    // Ready before there is anything to print.
    let printer = Printer::new(false)?;
    let progress = printer.progress();
    let request = args.job.into_request();
    let id = request.id.clone();
    let stage = Cell::new(Stage::Starting);
    let work = async {
        // Behind the start, in the same flight: a round trip less.
        let asked = follow::ask(link, all_of(&id)).await;
        let (job, _) = tokio::select! {
            started = start_job(link, request) => started?,
            () = leave_while_starting(&id, &mut interrupts) => return Ok(exit::INTERRUPTED),
        };
        stage.set(Stage::Running);
        input::note_when_any();
        tokio::select! {
            code = to_the_end(link, &job, asked, printer, args.quiet) => code.map_err(|error| match stage.get() {
                Stage::Stopping => anyhow!("{error:#}; it is not known to be stopped: `jobctl stop {id}` stops it"),
                Stage::Starting | Stage::Running => error,
            }),
            () = stop_and_leave(link, &job, &progress, &mut interrupts, &stage) => Ok(exit::INTERRUPTED),
        }
    };
    tokio::select! {
        code = work => code,
        signal = leaves.next() => {
            render::note(&left(&id, stage.get(), progress.stop().await));
            Ok(exit::of_signal(signal))
        }
    }
}

/// What becomes of the job when jobctl leaves.
fn left(id: &str, stage: Stage, resume_at: Option<u64>) -> String {
    match stage {
        Stage::Starting => left_while_starting(id),
        Stage::Running => {
            format!("left job {id}, which goes on: {}, `jobctl stop {id}` stops it", more_of(id, resume_at))
        }
        Stage::Stopping => {
            format!("left job {id}, which the worker was asked to stop; `jobctl status {id}` shows it")
        }
    }
}

fn more_of(id: &str, resume_at: Option<u64>) -> String {
    let offset = resume_at.unwrap_or(0);
    format!("`jobctl stream {id} --from-offset {offset}` shows what follows")
}

fn all_of(job: &str) -> StreamRequest {
    StreamRequest { job: job.to_owned(), ..Default::default() }
}

/// Returns at the second interrupt. The first one is left to [`stop_and_leave`].
async fn leave_while_starting(id: &str, interrupts: &mut Interrupts) {
    interrupts.reach(1).await;
    render::note(&format!("stopping job {id} as soon as it is started; once more leaves it"));
    interrupts.reach(2).await;
    render::note(&left_while_starting(id));
}

/// Streams to the job's end and gives its exit code.
async fn to_the_end(
    link: &Link,
    job: &Job,
    asked: Asked,
    printer: Printer<Patient<File>>,
    quiet: bool,
) -> anyhow::Result<u8> {
    let followed = follow::follow_asked(link, all_of(&job.id), Some(asked), printer)
        .await
        .map_err(|broken| follow::resumable(&broken.error, &job.id, broken.resume_at.unwrap_or(0)))?;
    let job = match followed {
        Followed::Finished(job) => job,
        Followed::ReaderGone => return without_a_reader(link, job, quiet).await,
        Followed::Present => bail!("the worker ended the output of job {} before the job ended", job.id),
    };
    let outcome = Outcome::of_finished(&job)?;
    if !quiet && !matches!(outcome, Outcome::Exited(End::Code(_))) {
        render::note(&format!("job {}: {}", job.id, words::ending(&job, &outcome)));
    }
    Ok(exit::of_outcome(&outcome))
}

/// `jobctl run … | head`: a local command would be ended by its next write, so the job is stopped. How it ended is said only
/// where it did so by itself, and not well.
async fn without_a_reader(link: &Link, job: &Job, quiet: bool) -> anyhow::Result<u8> {
    let stopped = stop(link, job).await;
    let job = stopped.with_context(|| format!("nobody reads the output of job {} any more", job.id))?;
    let outcome = Outcome::of_finished(&job)?;
    if !quiet && !matches!(outcome, Outcome::Stopped { .. } | Outcome::Exited(End::Code(0))) {
        render::note(&format!("job {}: {}", job.id, words::ending(&job, &outcome)));
    }
    Ok(exit::READER_GONE)
}

/// At the first interrupt asks for a stop; returns at the second one, having said whether the job is being stopped.
async fn stop_and_leave(
    link: &Link,
    job: &Job,
    progress: &Progress,
    interrupts: &mut Interrupts,
    stage: &Cell<Stage>,
) {
    interrupts.reach(1).await;
    stage.set(Stage::Stopping);
    let id = &job.id;
    let when = if link.is_down() { " as soon as the worker is there again" } else { "" };
    render::note(&format!("stopping job {id}{when}; once more leaves it"));
    let stop = async {
        if let Err(error) = stop(link, job).await {
            stage.set(Stage::Running);
            render::note(&format!("cannot stop job {id}: {error:#}; `jobctl stop {id}` tries again"));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = stop => {}
        () = interrupts.reach(2) => {}
    }
    let words = if link.is_down() {
        format!("left job {id} without a connection to the worker; `jobctl stop {id}` stops it")
    } else {
        let seen = Cell::new(None);
        tokio::select! {
            () = see_whether_it_stops(link, id, &seen) => {}
            () = interrupts.reach(3) => {}
        }
        let state = match stage.get() {
            Stage::Stopping => seen.get(),
            // It was refused.
            Stage::Starting | Stage::Running => Some(JobState::Running),
        };
        let resume_at = progress.stop().await;
        match state {
            Some(JobState::Finished) => format!("left job {id}, which has ended: {}", more_of(id, resume_at)),
            Some(JobState::Stopping) => format!(
                "left job {id} while it is being stopped; `jobctl status {id}` shows it, `jobctl stop --now {id}` kills it"
            ),
            Some(_) => left(id, Stage::Running, resume_at),
            None => format!(
                "left job {id}; the worker has not said that it stops it: `jobctl status {id}` shows that, `jobctl stop \
                 {id}` asks again"
            ),
        }
    };
    render::note(&words);
}

/// Asks for the state of a job that the worker was asked to stop, until it is being stopped or has ended, for a second at
/// most.
async fn see_whether_it_stops(link: &Link, id: &str, seen: &Cell<Option<JobState>>) {
    let client = link.client().await;
    let asking = async {
        loop {
            let Ok(job) = client.status(id.to_owned()).await else { return };
            seen.set(Some(job.state()));
            if matches!(job.state(), JobState::Stopping | JobState::Finished) {
                return;
            }
            tokio::time::sleep(QUESTION_PAUSE).await;
        }
    };
    // Else it is not known.
    let _ = tokio::time::timeout(LAST_QUESTION, asking).await;
}

/// May be repeated: a job that is being stopped, or has ended, stays as it is.
async fn stop(link: &Link, job: &Job) -> anyhow::Result<Job> {
    let request = StopRequest { job: job.id.clone(), ..Default::default() };
    let (job, _) = link.call(async |client| Ok(client.stop(request.clone()).await?)).await?;
    Ok(job)
}
