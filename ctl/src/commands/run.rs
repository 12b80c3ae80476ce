//! `jobctl run`: start, stream and exit with the job's code. Ctrl-C (or SIGTERM) asks the worker to stop the job and
//! keeps streaming to its end; a second one leaves at once.

use anyhow::bail;
use clap::Args;
use jobworker_proto::v1::{Job, StopRequest, StreamRequest};

use crate::client::Client;
use crate::exit;
use crate::follow::{self, Followed};
use crate::interrupts::Interrupts;
use crate::outcome::{End, Outcome};
use crate::printer::Printer;
use crate::render::{self, words};
use crate::spec::JobArgs;

/// Arguments of `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Don't say on stderr how the job ended
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    job: JobArgs,
}

pub(crate) async fn run(client: &Client, args: RunArgs) -> anyhow::Result<u8> {
    let mut interrupts = Interrupts::new()?;
    let request = args.job.into_request();
    let wanted_id = request.id.clone();
    let job = tokio::select! {
        started = client.start(request) => started?,
        () = interrupts.reach(2) => {
            render::note(&format!("left while job {wanted_id} was being started; `jobctl status {wanted_id}` tells more"));
            return Ok(exit::INTERRUPTED);
        }
    };
    tokio::select! {
        code = to_the_end(client, &job, args.quiet) => code,
        () = stop_and_leave(client, &job, &mut interrupts) => Ok(exit::INTERRUPTED),
    }
}

/// Streams to the job's end and gives its exit code.
async fn to_the_end(client: &Client, job: &Job, quiet: bool) -> anyhow::Result<u8> {
    let broken_off = |error, offset| follow::resumable(&error, &job.id, offset);
    let request = StreamRequest { job: job.id.clone(), ..Default::default() };
    let events = client.stream(request).await.map_err(|error| broken_off(error.into(), 0))?;
    let followed = follow::follow(events, Printer::new(false)?).await;
    let followed = followed.map_err(|broken| broken_off(broken.error, broken.resume_at.unwrap_or(0)))?;
    let job = match followed {
        Followed::Finished(job) => job,
        Followed::ReaderGone => return without_a_reader(client, job).await,
        Followed::Present => bail!("the worker ended the output of job {} before the job ended", job.id),
    };
    let outcome = Outcome::of_finished(&job)?;
    if !quiet && !matches!(outcome, Outcome::Exited(End::Code(_))) {
        render::note(&format!("job {}: {}", job.id, words::ending(&job, &outcome)));
    }
    Ok(exit::of_outcome(&outcome))
}

/// `jobctl run … | head`: a local command would be ended by its next write, so the job is stopped. No error.
async fn without_a_reader(client: &Client, job: &Job) -> anyhow::Result<u8> {
    let (job, _) = client.stop(stop_request(job)).await?;
    match Outcome::of_finished(&job)? {
        Outcome::Stopped { .. } => Ok(exit::SUCCESS),
        outcome => Ok(exit::of_outcome(&outcome)),
    }
}

/// At the first interrupt asks for a stop; returns at the second one.
async fn stop_and_leave(client: &Client, job: &Job, interrupts: &mut Interrupts) {
    interrupts.reach(1).await;
    render::note(&format!("stopping job {}; once more leaves it", job.id));
    let stop = async {
        if let Err(error) = client.stop(stop_request(job)).await {
            render::note(&format!("cannot stop job {}: {error}", job.id));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = stop => {}
        () = interrupts.reach(2) => {}
    }
    let id = &job.id;
    render::note(&format!(
        "left job {id} while it was being stopped; `jobctl status {id}` shows it, `jobctl stop --now {id}` kills it"
    ));
}

fn stop_request(job: &Job) -> StopRequest {
    StopRequest { job: job.id.clone(), ..Default::default() }
}
