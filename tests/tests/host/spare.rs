//! The spare shim: forked ahead of its job. Whatever becomes of it, nothing is left of it and the next job starts.

use std::fs;
use std::path::PathBuf;

use jobworker_tests::api::Cause;
use jobworker_tests::client::{run, shell, start};
use jobworker_tests::wait::{until, until_equal};
use jobworker_tests::{Worker, census};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::Belongings;

/// The spare, once it is ready, and its folder.
fn spare(worker: &Worker) -> (u32, PathBuf) {
    until("a spare is ready", || {
        let children = census::children(worker.spawner_pid());
        let spare = children.into_iter().find(|pid| census::has_name(*pid, "jobworker-spare"))?;
        let folder = worker.jobs_dir().join(format!(".new.shim.{spare}"));
        folder.join("index").exists().then_some((spare, folder))
    })
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("it runs");
}

#[tokio::test]
async fn a_job_begins_in_the_spare_and_another_takes_its_place() {
    let worker = Worker::start();
    let (pid, folder) = spare(&worker);
    let job = start(&mut worker.admin().await, shell("exec sleep 300")).await.expect("a job");
    let state = fs::read_to_string(worker.jobs_dir().join(&job.id).join("state.json")).expect("a state");
    assert!(state.contains(&format!("\"shim_pid\": {pid},")), "{state}");
    assert!(!folder.exists() && census::has_name(pid, "jobworker-shim"));
    assert_ne!(spare(&worker).0, pid);
}

#[tokio::test]
async fn nothing_is_left_of_a_spare_that_is_killed_or_told_to_end() {
    let worker = Worker::start();
    let mut client = worker.admin().await;
    for how in [Signal::SIGKILL, Signal::SIGTERM] {
        let (pid, folder) = spare(&worker);
        signal(pid, how);
        until(how.as_str(), || {
            (!folder.exists() && census::status_line(pid, "State").is_none()).then_some(())
        });
        let job = run(&mut client, shell(":")).await.expect("a shim is forked for it");
        assert_eq!(job.outcome.expect("an end").cause(), Cause::Exited);
        assert_ne!(spare(&worker).0, pid);
    }
}

#[tokio::test]
async fn a_spare_whose_folder_somebody_cleared_away_starts_its_job_all_the_same() {
    let worker = Worker::start();
    let (pid, folder) = spare(&worker);
    fs::remove_dir_all(&folder).expect("it is there");
    let job = start(&mut worker.admin().await, shell("echo here; exec sleep 300")).await.expect("a job");
    let state = fs::read_to_string(worker.jobs_dir().join(&job.id).join("state.json")).expect("a state");
    assert!(state.contains(&format!("\"shim_pid\": {pid},")), "{state}");
    until_equal("its output is stored", &Some("here\n".to_owned()), || {
        fs::read_to_string(worker.jobs_dir().join(&job.id).join("output")).ok()
    });
}

#[tokio::test]
async fn a_request_that_is_too_long_to_hand_over_is_no_obstacle() {
    let worker = Worker::start();
    let (pid, _) = spare(&worker);
    let mut client = worker.admin().await;
    let long = shell(&format!(": {}; exit 7", "x".repeat(100_000)));
    let job = run(&mut client, long).await.expect("a shim is forked for it");
    assert_eq!(
        job.outcome.and_then(|outcome| outcome.ended),
        Some(jobworker_tests::api::outcome::Ended::ExitCode(7))
    );
    assert_eq!(spare(&worker).0, pid, "it waits on");
}

#[tokio::test]
async fn the_spare_goes_with_its_spawner() {
    for how in [Signal::SIGKILL, Signal::SIGTERM] {
        let worker = Worker::start();
        let (pid, folder) = spare(&worker);
        signal(worker.spawner_pid(), how);
        until(how.as_str(), || (!folder.exists() && !census::has_name(pid, "jobworker-spare")).then_some(()));
        run(&mut worker.admin().await, shell(":")).await.expect("the next spawner has one too");
    }
}

#[tokio::test]
async fn a_refusal_leaves_nothing_of_the_spare_that_took_it() {
    let worker = Worker::start();
    let (pid, _) = spare(&worker);
    let mut spec = shell(":");
    spec.workdir = b"/no/such/folder".to_vec();
    start(&mut worker.admin().await, spec).await.expect_err("there is no such folder");
    until_equal("nothing is left", &Belongings::none(), || Belongings::of(&worker));
    assert_ne!(spare(&worker).0, pid);
}
