//! What it costs: a worker's memory and the time until it listens, with no jobs and with very many; the memory that
//! each ended job leaves behind; a shim's own; the worker's while it streams.
//!
//! ```text
//!  an empty state folder ─▶ ready, memory ─▶ K jobs run ─▶ shims ─▶ streams ─▶ the worker ends
//!                                             └ one of their folders, N times under new ids ─▶ ready, memory ─▶ list
//! ```

pub mod figures;
pub mod folders;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use self::figures::{Figures, Memory};
use crate::api::{StopRequest, StreamRequest, stream_response::Event};
use crate::client::{everything, run as run_job, shell, spec, start};
use crate::{Client, Pki, Worker, census};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Ended jobs whose folders are there at the start.
    pub jobs: usize,
    /// Jobs that are really started, and end.
    pub runs: usize,
    /// Bytes of output that each client reads.
    pub stream_bytes: usize,
    /// Clients that read at a time.
    pub clients: usize,
}

/// Connections by which jobs are started.
const STARTERS: usize = 8;

/// The part of the jobs after which the allocator has what it needs, and growth is counted.
const WARM_UP: usize = 4;

/// After a job's end or a call, until memory is looked at.
const SETTLED: Duration = Duration::from_secs(1);

/// Measures.
///
/// # Errors
/// When something does not work; slowness is none.
///
/// # Panics
/// When the worker does not start.
pub async fn run(options: Options) -> anyhow::Result<Figures> {
    let mut figures = Figures::new(options);
    let pki = Arc::new(Pki::new());
    let started = Instant::now();
    let worker = Worker::builder().pki(&pki).start();
    figures.ready_without_jobs = started.elapsed();
    figures.worker_without_jobs = Memory::of(worker.pid());
    let mut admin = worker.admin().await;
    let model = run_job(&mut admin, spec(&["/bin/true"])).await?.id;

    eprintln!("scale: {} jobs run", options.runs);
    let warm_up = options.runs / WARM_UP;
    run_many(&worker, warm_up).await?;
    sleep(SETTLED).await;
    figures.worker_before_growth = Memory::of(worker.pid());
    run_many(&worker, options.runs - warm_up).await?;
    sleep(SETTLED).await;
    figures.worker_after_growth = Memory::of(worker.pid());
    figures.growth_jobs = options.runs - warm_up;
    shims(&mut admin, &mut figures).await?;

    eprintln!("scale: {} clients read", options.clients);
    streams(&worker, &mut admin, options, &mut figures).await?;

    let (state, model) = (Arc::clone(worker.state()), worker.jobs_dir().join(model));
    let spawner = worker.spawner_pid();
    drop((admin, worker));
    while census::descriptors(spawner) > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    eprintln!("scale: {} folders", options.jobs);
    spawn_blocking(move || folders::copies(&model, options.jobs)).await??;
    let started = Instant::now();
    let worker = Worker::builder().pki(&pki).state(&state).start();
    // The worker's alone: the last one clears up.
    drop(state);
    figures.ready_with_jobs = started.elapsed();
    figures.worker_with_jobs = Memory::of(worker.pid());
    figures.spawner_with_jobs = Memory::of(worker.spawner_pid());
    list(worker, options, &mut figures).await
}

async fn run_many(worker: &Worker, count: usize) -> anyhow::Result<()> {
    let mut starters = JoinSet::new();
    for number in 0..STARTERS {
        let mut client = worker.admin().await;
        let share = count / STARTERS + usize::from(number < count % STARTERS);
        starters.spawn(async move {
            for _ in 0..share {
                run_job(&mut client, spec(&["/bin/true"])).await?;
            }
            Ok::<_, tonic::Status>(())
        });
    }
    while let Some(done) = starters.join_next().await {
        done??;
    }
    Ok(())
}

/// One that has done nothing, and one that has captured much.
async fn shims(admin: &mut Client, figures: &mut Figures) -> anyhow::Result<()> {
    for (script, figure) in [
        ("exec sleep 1000", &mut figures.shim_idle),
        ("head -c 64M /dev/zero; exec sleep 1000", &mut figures.shim_after_output),
    ] {
        let job = start(admin, shell(script)).await?;
        sleep(SETTLED).await;
        let main = job.pid.context("the job runs")?;
        let shim = census::status_line(main, "PPid").context("the job runs")?;
        *figure = Memory::of(shim.parse()?);
        admin.stop(StopRequest { job: job.id, grace_msec: Some(0), ..StopRequest::default() }).await?;
    }
    Ok(())
}

async fn streams(
    worker: &Worker,
    admin: &mut Client,
    options: Options,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let script = format!("exec head -c {} /dev/zero", options.stream_bytes);
    let job = start(admin, shell(&script)).await?.id;
    let started = Instant::now();
    let mut readers = JoinSet::new();
    for _ in 0..options.clients {
        readers.spawn(count(worker.user().await, everything(&job)));
    }
    let mut peak = Memory::of(worker.pid());
    while !readers.is_empty() {
        tokio::select! {
            Some(read) = readers.join_next() => {
                let read = read??;
                ensure!(read == options.stream_bytes, "{read} bytes instead of {}", options.stream_bytes);
            }
            () = sleep(Duration::from_millis(20)) => peak = peak.max(Memory::resident_of(worker.pid())),
        }
    }
    figures.streaming = started.elapsed();
    figures.worker_streaming = peak;
    Ok(())
}

/// Reads a job's output and keeps none of it.
async fn count(mut client: Client, request: StreamRequest) -> anyhow::Result<usize> {
    let mut stream = client.stream(request).await?.into_inner();
    let mut bytes = 0;
    while let Some(message) = stream.message().await? {
        match message.event.context("an event")? {
            Event::Chunk(chunk) => bytes += chunk.data.len(),
            Event::Gap(gap) => anyhow::bail!("a gap: {gap:?}"),
            Event::End(_) => {}
        }
    }
    Ok(bytes)
}

async fn list(worker: Worker, options: Options, figures: &mut Figures) -> anyhow::Result<Figures> {
    let started = Instant::now();
    let (worker, answer) = spawn_blocking(move || {
        let answer = worker.jobctl(&["list"]);
        (worker, answer)
    })
    .await?;
    figures.list = started.elapsed();
    ensure!(answer.status.success(), "jobctl list: {}", String::from_utf8_lossy(&answer.stderr));
    let lines = answer.stdout.iter().filter(|byte| **byte == b'\n').count();
    ensure!(lines > options.jobs, "{lines} lines of {} jobs", options.jobs);
    figures.worker_after_list = Memory::of(worker.pid());
    Ok(figures.clone())
}
