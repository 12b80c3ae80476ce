//! The worker goes and comes: asked to, or killed. Jobs live on, and a new worker on the same state folder serves them.

use std::time::Duration;

use jobworker_tests::Worker;
use jobworker_tests::api::stream_response::Event;
use jobworker_tests::api::{Cause, Job, ListRequest, StatusRequest, StopRequest, StreamResponse};
use jobworker_tests::client::{everything, output, shell, start, wait};
use jobworker_tests::wait::until_equal;
use jobworker_tests::{Client, census};
use nix::sys::signal::Signal;
use tonic::{Code, Status, Streaming};

use crate::support::{Running, details, jobctl, wait_for_file};

/// A job that says "before", waits for the file `gate`, says "after", and waits to be stopped.
async fn gated_job(client: &mut Client, gate: &std::path::Path) -> Job {
    let script = format!("echo before; {}; echo after; exec sleep 300", wait_for_file(gate));
    start(client, shell(&script)).await.expect("a job")
}

async fn follow(worker: &Worker, job: &str) -> Streaming<StreamResponse> {
    let mut stream = worker.user().await.stream(everything(job)).await.expect("its output").into_inner();
    let event = stream.message().await.expect("no error").expect("the first line").event.expect("an event");
    assert!(matches!(event, Event::Chunk(chunk) if chunk.data[..] == *b"before\n"));
    stream
}

/// How a follower's stream ends when the worker goes.
async fn end_of(mut stream: Streaming<StreamResponse>) -> Status {
    let end = tokio::time::timeout(Duration::from_secs(20), stream.message()).await;
    end.expect("in time").expect_err("the job has not ended")
}

/// A new worker has the job as the old one left it: the same process, all output, and a stop.
async fn expect_served(worker: &Worker, job: &Job, gate: &std::path::Path) {
    let mut admin = worker.admin().await;
    let listed = admin.list(ListRequest::default()).await.expect("a list").into_inner().jobs;
    assert_eq!(listed.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [job.id.as_str()]);
    let request = StatusRequest { job: job.id.clone() };
    let status = admin.status(request).await.expect("a status").into_inner().job.expect("a job");
    assert_eq!((status.pid, &status.spec, &status.owner), (job.pid, &job.spec, &job.owner));
    let mut follower = follow(worker, &job.id).await;
    std::fs::write(gate, "").expect("a writable folder");
    let event =
        follower.message().await.expect("no error").expect("the second line").event.expect("an event");
    assert!(matches!(event, Event::Chunk(chunk) if chunk.data[..] == *b"after\n" && chunk.offset == 7));
    let stop = StopRequest { job: job.id.clone(), ..StopRequest::default() };
    let stopped = admin.stop(stop).await.expect("a stop").into_inner().job.expect("a job");
    assert_eq!(stopped.outcome.expect("an outcome").stopped_by, "alice");
    let all = output(&mut admin, everything(&job.id)).await.expect("the output");
    assert_eq!(all.stdout, b"before\nafter\n", "no byte lost, none twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_the_worker_and_no_job() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let mut worker = Worker::start();
    let job = gated_job(&mut worker.admin().await, &gate).await;
    let follower = follow(&worker, &job.id).await;
    let mut jobctl = Running::start(worker.jobctl_as("bob", &["stream", "--no-reconnect", &job.id]));
    jobctl.wait_for_stdout("before");
    let mut waiting = worker.user().await;
    let id = job.id.clone();
    let waiting = tokio::spawn(async move { wait(&mut waiting, &id).await });
    let idle = worker.user().await;
    until_equal("everybody is served", &true, || worker.audit().len() >= 4);

    worker.signal(Signal::SIGTERM);
    let end = end_of(follower).await;
    assert_eq!((end.code(), details(&end).0.as_str()), (Code::Unavailable, "SHUTTING_DOWN"), "{end}");
    assert!(end.message().contains("the job lives on"), "{end}");
    let end = waiting.await.expect("no panic").expect_err("the job has not ended");
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert_eq!(jobctl.ended().code(), Some(1));
    jobctl.wait_for_stderr("--from-offset 7");
    assert_eq!(worker.ended().code(), Some(0));
    let late = worker.log().into_iter().find(|line| line.contains("did not finish"));
    assert_eq!(late, None, "neither a follower nor an idle connection holds it up");
    drop(idle);
    let pid = job.pid.expect("it runs");
    assert!(census::status_line(pid, "Name").is_some(), "the job lives on");

    let next = Worker::builder().pki(&worker.pki).state(worker.state()).start();
    expect_served(&next, &job, &gate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_takes_no_job_along() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let mut worker = Worker::start();
    let job = gated_job(&mut worker.admin().await, &gate).await;
    let follower = follow(&worker, &job.id).await;
    let spawner = worker.spawner_pid();
    worker.signal(Signal::SIGKILL);
    worker.ended();
    end_of(follower).await;
    let next = Worker::builder().pki(&worker.pki).state(worker.state()).start();
    assert_eq!(next.spawner_pid(), spawner, "the spawner was not touched");
    expect_served(&next, &job, &gate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_while_no_worker_ran_is_known_to_the_next() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let mut worker = Worker::start();
    let script = format!("{}; printf unseen; exit 5", wait_for_file(&gate));
    let job = start(&mut worker.admin().await, shell(&script)).await.expect("a job");
    worker.signal(Signal::SIGKILL);
    worker.ended();
    std::fs::write(&gate, "").expect("a writable folder");
    until_equal("the job has ended", &None, || census::status_line(job.pid.expect("it ran"), "Name"));
    let next = Worker::builder().pki(&worker.pki).state(worker.state()).start();
    jobctl(&next, &["wait", &job.id]).with_code(5);
    assert_eq!(jobctl(&next, &["stream", &job.id]).with_code(0).stdout, "unseen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_on_one_state_folder_agree() {
    let first = Worker::start();
    let second = Worker::builder().pki(&first.pki).state(first.state()).start();
    let job = start(&mut first.admin().await, shell("echo up; exec sleep 300")).await.expect("a job");
    let mut other = second.admin().await;
    let stop = StopRequest { job: job.id.clone(), ..StopRequest::default() };
    other.stop(stop).await.expect("the second one can stop what the first one started");
    let ended = wait(&mut first.admin().await, &job.id).await.expect("the first one sees it");
    assert!(ended.outcome.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_spawner_takes_no_job_along_and_has_a_successor() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let worker = Worker::start();
    let job = gated_job(&mut worker.admin().await, &gate).await;
    kill(worker.spawner_pid());
    until_equal("the worker knows", &true, || {
        worker.log().iter().any(|line| line.contains("the spawner is gone"))
    });
    let next = jobctl(&worker, &["run", "--", "echo", "started by the next one"]).with_code(0);
    assert_eq!(next.stdout, "started by the next one\n");
    assert!(census::status_line(job.pid.expect("it runs"), "Name").is_some(), "the job lives on");
    std::fs::write(&gate, "").expect("a writable folder");
    jobctl(&worker, &["stop", &job.id]).with_code(0);
    let all = output(&mut worker.admin().await, everything(&job.id)).await.expect("the output");
    assert!(all.stdout.starts_with(b"before\n") && all.end.is_some(), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_shim_was_killed_is_ended_and_told_as_lost() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    // Without a group only the main process is bound to its shim.
    let escaped = if worker.cgroup().is_some() { "setsid sleep 304.25 &" } else { "" };
    let job =
        start(&mut admin, shell(&format!("echo before; {escaped} exec sleep 300"))).await.expect("a job");
    let follower = follow(&worker, &job.id).await;
    let main = job.pid.expect("it runs");
    let shim = census::status_line(main, "PPid").and_then(|pid| pid.parse().ok()).expect("its shim");
    kill(shim);
    let ended = wait(&mut admin, &job.id).await.expect("an end").outcome.expect("an outcome");
    assert_eq!((ended.cause(), ended.ended), (Cause::Lost, None), "nobody knows how it ended");
    assert!(ended.reason.contains(&shim.to_string()), "{ended:?}");
    until_equal("no process is left", &Vec::new(), || census::processes_with("sleep 304.25"));
    // An orphan is reaped by init, in its own time.
    let state = || census::status_line(main, "State");
    until_equal("the main process is gone", &true, || state().is_none_or(|state| state.starts_with('Z')));
    let all = output(&mut admin, everything(&job.id)).await.expect("what was stored is there");
    assert_eq!(all.stdout, b"before\n");
    jobctl(&worker, &["wait", &job.id]).with_code(125);
    drop(follower);
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, Signal::SIGKILL).expect("it runs");
}
