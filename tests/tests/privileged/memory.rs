//! Out of memory, and what only looks like it.

use std::process::Output;

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, Job, JobSpec, Limits};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{limited, run, shell, spec};
use jobworker_tests::wait::until;
use jobworker_tests::{Client, census};

use crate::jobs::{assert_ended, assert_gone, outcome};
use crate::setup::Setup;

const LIMIT_BYTES: u64 = 64 << 20;

fn under_64_mib(spec: JobSpec) -> JobSpec {
    limited(spec, Limits { memory: "64MiB".to_owned(), ..Limits::default() })
}

fn actor(args: &[&str]) -> JobSpec {
    let path = binary("actor");
    spec(&[&[path.to_str().expect("a UTF-8 path")], args].concat())
}

async fn run_out_of_memory(client: &mut Client, spec: JobSpec, mark: &str) -> Job {
    let job = run(client, under_64_mib(spec)).await.expect("the job runs");
    assert_ended(&job, Cause::OutOfMemory, Ended::Signal(9));
    assert!(outcome(&job).own_memory_limit, "{job:#?}");
    let usage = job.usage.as_ref().expect("evidence");
    assert!(usage.oom_kills >= Some(1), "{usage:?}");
    assert!(
        usage.memory_peak_bytes.is_some_and(|peak| peak > LIMIT_BYTES / 2 && peak <= LIMIT_BYTES),
        "{usage:?}"
    );
    assert_gone(&job, &[]);
    assert_eq!(census::processes_with(mark), [0; 0], "processes are left");
    job
}

#[tokio::test]
async fn a_hog_ends_as_out_of_memory() {
    let setup = Setup::new().await;
    run_out_of_memory(&mut setup.worker.admin().await, actor(&["hog", "201"]), "actor hog 201").await;
}

/// And its end is told as such, with the evidence.
#[tokio::test]
async fn the_audit_log_tells_of_an_end_out_of_memory() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let job = run_out_of_memory(&mut client, actor(&["hog", "204"]), "actor hog 204").await;
    let line = until("the line of its end", || setup.worker.ends().pop());
    let told = ["job", "outcome"].map(|key| line[key].as_str().unwrap_or_default());
    assert_eq!(told, [job.id.as_str(), "out_of_memory"], "{line}");
    assert_eq!((&line["own_limit"], &line["exit_signal"]), (&true.into(), &9.into()), "{line}");
    let usage = job.usage.expect("evidence");
    assert_eq!(
        (line["memory_peak_bytes"].as_u64(), line["cpu_usec"].as_u64()),
        (usage.memory_peak_bytes, usage.cpu_usec),
        "{line}"
    );
}

#[tokio::test]
async fn a_hog_whose_children_take_the_memory_ends_with_all_of_them() {
    let setup = Setup::new().await;
    run_out_of_memory(&mut setup.worker.admin().await, actor(&["hog-children", "3", "41"]), "actor hog")
        .await;
}

#[tokio::test]
async fn a_limit_further_up_is_not_the_jobs_own() {
    let setup = Setup::new().await;
    std::fs::write(setup.subtree.path().join("jobs/memory.max"), "64M").expect("our own group");
    let roomy = Limits { memory: "1GiB".to_owned(), ..Limits::default() };
    let mut client = setup.worker.admin().await;
    for limits in [Limits::default(), roomy] {
        let job = run(&mut client, limited(actor(&["hog", "203"]), limits)).await.expect("the job runs");
        assert_ended(&job, Cause::OutOfMemory, Ended::Signal(9));
        assert!(!outcome(&job).own_memory_limit, "{job:#?}");
    }
    let output = setup.worker.jobctl(&["run", "--", binary("actor").to_str().expect("UTF-8"), "hog", "203"]);
    assert!(words(&output).contains("not by its own limit"), "{output:?}");
}

#[tokio::test]
async fn a_kill_from_inside_is_a_signal_with_and_without_a_limit() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    for spec in [shell("kill -9 $$"), under_64_mib(shell("kill -9 $$"))] {
        let job = run(&mut client, spec).await.expect("the job runs");
        assert_ended(&job, Cause::Signaled, Ended::Signal(9));
        assert_gone(&job, &[]);
    }
}

#[tokio::test]
async fn exit_137_is_an_exit_code() {
    let setup = Setup::new().await;
    let job =
        run(&mut setup.worker.admin().await, under_64_mib(shell("exit 137"))).await.expect("the job runs");
    assert_ended(&job, Cause::Exited, Ended::ExitCode(137));
}

#[tokio::test]
async fn jobctl_run_has_one_code_for_the_three_and_tells_them_apart_in_words() {
    let setup = Setup::new().await;
    let actor = binary("actor");
    let run = |command: &[&str]| {
        let output = setup.worker.jobctl(&[&["run", "--memory-limit", "64MiB", "--"], command].concat());
        assert_eq!(output.status.code(), Some(137), "{output:?}");
        words(&output)
    };
    let hog = run(&[actor.to_str().expect("a UTF-8 path"), "hog", "202"]);
    assert!(hog.contains("out of memory") && hog.contains("64 MiB"), "{hog}");
    let killed = run(&["sh", "-c", "kill -9 $$"]);
    assert!(killed.contains("signal 9") && !killed.contains("memory"), "{killed}");
    let exited = run(&["sh", "-c", "exit 137"]);
    assert_eq!(exited, "", "an exit code needs no words");
}

fn words(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}
