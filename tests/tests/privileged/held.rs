//! Jobs that can't take a signal: traced by a process of another job, stopped, or in uninterruptible sleep.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, path::Path};

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, Job, JobSpec, JobState, SignalRequest};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{shell, spec, start, wait};
use jobworker_tests::wait::until;
use jobworker_tests::{Client, census};
use tokio::time::timeout;

use crate::jobs::{assert_ended, assert_gone, finish, start_until, status, stop, until_status};
use crate::setup::Setup;

const SOON: Duration = Duration::from_secs(20);

fn as_alice(spec: JobSpec) -> JobSpec {
    JobSpec { user: "alice".to_owned(), ..spec }
}

/// Another job, of the same user, that traces a thread and never waits for it.
async fn trace(client: &mut Client, thread: u32) -> Job {
    let actor = binary("actor");
    let tracer = spec(&[actor.to_str().expect("UTF-8"), "trace", &thread.to_string()]);
    start_until(client, as_alice(tracer), "tracing").await
}

fn main_of(job: &Job) -> u32 {
    job.pid.expect("a main process")
}

#[tokio::test]
async fn a_process_that_another_job_traces_ends_though_its_tracer_never_looks() {
    let setup = Setup::with(&["--allow-user", "alice"]).await;
    let mut client = setup.worker.admin().await;
    // Yama lets a process trace its own children only, where it is on.
    let yama = Path::new("/proc/sys/kernel/yama/ptrace_scope");
    if yama.exists() {
        fs::write(yama, "0").expect("root may");
    }
    let sleeping = || as_alice(shell("echo ready; exec sleep 1040"));

    // A signal waits for its tracer; the kill does not.
    let job = start_until(&mut client, sleeping(), "ready").await;
    let tracer = trace(&mut client, main_of(&job)).await;
    let asked = Instant::now();
    let stopped =
        timeout(SOON, stop(&mut client, &job.id, Some(1_000))).await.expect("a stop comes to an end");
    eprintln!("measured: stopped {:?} after it was asked with a grace of 1 s", asked.elapsed());
    assert_ended(&stopped, Cause::Stopped, Ended::Signal(9));
    let zombie = census::status_line(main_of(&job), "State").expect("its tracer holds it");
    assert!(zombie.starts_with('Z'), "{zombie}");
    stop(&mut client, &tracer.id, Some(0)).await;
    until("nothing is left of it", || census::status_line(main_of(&job), "State").is_none().then_some(()));

    // By itself; what it leaves in its group ends with it.
    let fifo = "/tmp/held-fifo";
    let script = format!("rm -f {fifo}; mkfifo {fifo}; sleep 1041 & echo ready; read -r x <{fifo}; exit 5");
    let job = start_until(&mut client, as_alice(shell(&script)), "ready").await;
    let tracer = trace(&mut client, main_of(&job)).await;
    fs::write(fifo, "go\n").expect("it reads");
    let ended = timeout(SOON, wait(&mut client, &job.id)).await.expect("it ends").expect("no error");
    assert_ended(&ended, Cause::Exited, Ended::ExitCode(5));
    assert!(census::processes_with("sleep 1041").is_empty());
    stop(&mut client, &tracer.id, Some(0)).await;

    // Its time runs out.
    let job =
        start(&mut client, JobSpec { timeout_msec: Some(3_000), ..sleeping() }).await.expect("it starts");
    let tracer = trace(&mut client, main_of(&job)).await;
    let ended = timeout(SOON, wait(&mut client, &job.id)).await.expect("it ends").expect("no error");
    assert_ended(&ended, Cause::TimedOut, Ended::Signal(9));
    stop(&mut client, &tracer.id, Some(0)).await;

    // One thread is enough, and it need not be the first.
    let actor = binary("actor");
    let threads = spec(&[actor.to_str().expect("UTF-8"), "threads", "3"]);
    let job = start_until(&mut client, as_alice(threads), "running").await;
    let thread = *census::thread_ids(main_of(&job)).iter().max().expect("threads");
    assert_ne!(thread, main_of(&job));
    let tracer = trace(&mut client, thread).await;
    let stopped = timeout(SOON, stop(&mut client, &job.id, Some(0))).await.expect("a stop comes to an end");
    assert_ended(&stopped, Cause::Stopped, Ended::Signal(9));
    stop(&mut client, &tracer.id, Some(0)).await;
}

#[tokio::test]
async fn a_stopped_job_handles_the_signal_that_asks_it_to_end() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let script = "trap 'echo handled; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let job = start_until(&mut client, shell(script), "ready").await;
    let request = SignalRequest { job: job.id.clone(), signal: "STOP".to_owned(), all: true };
    client.signal(request).await.expect("it runs");
    let is_stopped =
        |job: &Job| job.process.as_ref().is_some_and(|process| process.state == "T").then_some(());
    until_status(&mut client, &job.id, is_stopped).await;
    let stopped = stop(&mut client, &job.id, Some(15_000)).await;
    assert_ended(&stopped, Cause::Stopped, Ended::ExitCode(7));

    let script = "trap 'echo handled; exit 7' TERM; kill -STOP $$; while :; do sleep 0.1; done";
    let (timed_out, output) = finish(&mut client, JobSpec { timeout_msec: Some(500), ..shell(script) }).await;
    assert_ended(&timed_out, Cause::TimedOut, Ended::ExitCode(7));
    assert_eq!(output, "handled\n");
}

/// A file system on which nothing can be written, until this is dropped.
struct Frozen(&'static str);

impl Frozen {
    fn freeze(path: &'static str) -> Self {
        assert!(
            Command::new("fsfreeze").args(["--freeze", path]).status().expect("busybox has it").success()
        );
        Self(path)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        assert!(
            Command::new("fsfreeze").args(["--unfreeze", self.0]).status().expect("busybox has it").success()
        );
    }
}

#[tokio::test]
async fn a_stop_of_a_job_in_uninterruptible_sleep_says_what_it_waits_for() {
    let setup = Setup::alone().await;
    let mut client = setup.worker.admin().await;
    let frozen = Frozen::freeze("/data");
    let job = start(&mut client, shell("echo >/data/stuck; exit 1")).await.expect("it starts");
    let is_stuck = |job: &Job| job.process.as_ref().is_some_and(|process| process.state == "D").then_some(());
    until_status(&mut client, &job.id, is_stuck).await;
    let mut stopping =
        setup.worker.jobctl_as("alice", &["stop", "--grace", "1s", &job.id]).spawn().expect("jobctl");
    let mut said = String::new();
    BufReader::new(stopping.stderr.take().expect("a pipe")).read_line(&mut said).expect("UTF-8");
    let start = format!("jobctl: job {}: waiting for process {} (sh, D, in ", job.id, main_of(&job));
    assert!(said.starts_with(&start) && said.ends_with(") to end\n"), "{said:?}");
    assert_eq!(status(&mut client, &job.id).await.state(), JobState::Stopping, "nothing is pretended");
    drop(frozen);
    let stopped = stopping.wait_with_output().expect("our own child");
    assert!(stopped.status.success(), "{stopped:?}");
    let job = status(&mut client, &job.id).await;
    // The first signal that ends it is the one that did.
    assert_ended(&job, Cause::Stopped, Ended::Signal(15));
    assert_gone(&job, &[]);
}
