//! Ending jobs: nothing survives, and everybody gets the same answer.

use std::time::Instant;

use futures_util::future::join_all;
use jobworker_tests::Client;
use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, JobSpec, JobState};
use jobworker_tests::client::{run, shell, start, wait};

use crate::jobs::{assert_ended, assert_gone, finish, members, outcome, start_until, status, stop};
use crate::measure::assert_within;
use crate::setup::Setup;

/// All that a tree can do to escape: ignore SIGTERM, have sessions of its own, orphan itself, close its descriptors.
const TREE: &str = r#"
trap "" TERM
setsid sleep 1001 &
(setsid sh -c 'sh -c "sleep 1002 & sleep 1003 & exec sleep 1004" & exit' &)
sh -c 'exec sleep 1005 <&- >&- 2>&-' &
until [ "$(ps -o args | grep -c '^sleep 100[1-5]$')" = 5 ]; do sleep 0.05; done
echo planted
while :; do sleep 1006; done
"#;

/// Takes SIGTERM, and its time.
const POLITE: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";

#[tokio::test]
async fn a_stubborn_tree_is_gone_within_the_grace_and_a_second() {
    let setup = Setup::alone().await;
    let mut client = setup.worker.admin().await;
    let what = "seconds for a stubborn tree with a grace of 1 s";
    assert_within(what, 1.0..=2.0, async || plant_and_stop(&mut client).await).await;
}

async fn plant_and_stop(client: &mut Client) -> f64 {
    let job = start_until(client, shell(TREE), "planted").await;
    let tree = members(&job);
    assert!(tree.len() >= 6, "{tree:?}");
    let asked = Instant::now();
    let job = stop(client, &job.id, Some(1_000)).await;
    let took = asked.elapsed();
    assert_ended(&job, Cause::Stopped, Ended::Signal(9));
    assert_gone(&job, &tree);
    took.as_secs_f64()
}

#[tokio::test]
async fn what_the_main_process_leaves_behind_ends_with_it() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let (job, left) = finish(&mut client, shell("setsid sleep 1007 & echo $!; exit 1")).await;
    assert_ended(&job, Cause::Exited, Ended::ExitCode(1));
    assert_gone(&job, &[left.trim().parse().expect("a pid")]);
}

#[tokio::test]
async fn a_job_that_handles_sigterm_is_stopped_with_its_own_code() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let job = start_until(&mut client, shell(POLITE), "ready").await;
    let first = stop(&mut client, &job.id, None).await;
    assert_ended(&first, Cause::Stopped, Ended::ExitCode(7));
    assert_eq!(outcome(&first).stopped_by, "alice");
    assert_gone(&first, &[]);

    // Once more, and by any way of asking: no error, and nothing changes.
    for grace in [None, Some(0), Some(60_000)] {
        assert_eq!(stop(&mut client, &job.id, grace).await, first);
    }
    let output = setup.worker.jobctl(&["stop", &job.id]);
    assert!(output.status.success(), "{output:?}");
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(line.contains("stopped by alice") && line.contains("code 7"), "{line}");
}

#[tokio::test]
async fn a_stop_after_the_end_changes_nothing() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let job = run(&mut client, shell("exit 3")).await.expect("the job runs");
    assert_ended(&job, Cause::Exited, Ended::ExitCode(3));
    assert_eq!(stop(&mut client, &job.id, Some(0)).await, job);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_clients_that_stop_at_once_get_one_answer() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let job = start_until(&mut client, shell(POLITE), "ready").await;
    let clients = join_all((0..20).map(|_| setup.worker.admin())).await;
    let id = &job.id;
    let answers =
        join_all(clients.into_iter().map(async |mut client| stop(&mut client, id, Some(30_000)).await)).await;
    assert_ended(&answers[0], Cause::Stopped, Ended::ExitCode(7));
    assert_eq!(outcome(&answers[0]).stopped_by, "alice");
    for answer in &answers {
        assert_eq!(answer, &answers[0]);
    }
}

#[tokio::test]
async fn now_asks_nobody() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let job = start_until(&mut client, shell(POLITE), "ready").await;
    let output = setup.worker.jobctl(&["stop", "--now", &job.id]);
    assert!(output.status.success(), "{output:?}");
    assert_ended(&status(&mut client, &job.id).await, Cause::Stopped, Ended::Signal(9));
}

#[tokio::test]
async fn a_stop_is_seen_while_it_lasts_and_can_be_hurried() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let job =
        start_until(&mut client, shell("trap '' TERM; echo ready; while :; do sleep 1; done"), "ready").await;
    let (mut patient, mut looking) = (client.clone(), client.clone());
    let id = job.id.clone();
    let slow = tokio::spawn(async move { stop(&mut patient, &id, Some(600_000)).await });
    crate::jobs::until_status(&mut looking, &job.id, |job| (job.state() == JobState::Stopping).then_some(()))
        .await;
    let hurried = stop(&mut client, &job.id, Some(0)).await;
    assert_ended(&hurried, Cause::Stopped, Ended::Signal(9));
    assert_eq!(slow.await.expect("no panic"), hurried);
}

#[tokio::test]
async fn time_runs_out() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let spec = JobSpec { timeout_msec: Some(300), ..shell("sleep 1008") };
    let job = start(&mut client, spec).await.expect("the job starts");
    let job = wait(&mut client, &job.id).await.expect("the job ends");
    assert_ended(&job, Cause::TimedOut, Ended::Signal(15));
    assert_gone(&job, &[]);

    let output = setup.worker.jobctl(&["run", "--timeout", "300ms", "--", "sleep", "1009"]);
    assert_eq!(output.status.code(), Some(124), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("timed out after 0.3s"), "{words}");
}
