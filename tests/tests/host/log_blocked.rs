//! A stderr that nobody reads: the worker serves, jobs begin and end, the process ends when it is asked to, and what the
//! log has lost is counted and said.

use std::time::Duration;

use jobworker_tests::client::{run, spec, start};
use jobworker_tests::metrics::{address, samples};
use jobworker_tests::wait::{PATIENCE, until, until_within};
use jobworker_tests::{Client, Worker};
use nix::sys::signal::Signal;
use tokio::time::timeout;

use crate::support::details;

/// Makes audit lines, some kilobytes each: more than the pipe takes in any case.
async fn fill_the_log(user: &mut Client, lines: usize) {
    let command = spec(&["true", &"x".repeat(4000)]);
    for _ in 0..lines {
        let refused = start(user, command.clone());
        let refused =
            timeout(PATIENCE, refused).await.expect("the API stands still").expect_err("bob may not");
        assert_eq!(details(&refused).0, "DENIED", "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_answered_and_what_is_lost_is_said() {
    let worker = Worker::builder().args(&["--metrics-listen=127.0.0.1:0"]).start();
    let metrics = address(&worker);
    let (mut admin, mut user) = (worker.admin().await, worker.user().await);
    worker.stop_reading_log();
    // 64 KiB fit into a pipe, 4 MiB into the queue.
    fill_the_log(&mut user, 1500).await;
    run(&mut admin, spec(&["true"])).await.expect("a job runs");
    let dropped = samples(&metrics)["jobworker_log_lines_dropped_total"];
    assert!(dropped > 0.0, "6 MB of lines");
    worker.read_log_again();
    let said = until("the log says how many lines are left out", || {
        let lines =
            worker.log().into_iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
        let mut said = lines.filter(|line| line["target"] == "jobworker::log");
        said.find_map(|line| line["lines"].as_f64())
    });
    assert!((dropped..dropped + 100.0).contains(&said), "{said} said, {dropped} counted");
    user.list(jobworker_tests::api::ListRequest::default()).await.expect("a list");
    until("the log goes on", || worker.audit().iter().any(|line| line["action"] == "list").then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_and_the_worker_ends_all_the_same() {
    let mut worker = Worker::builder().args(&["--log-level=trace"]).start();
    let (mut admin, mut user) = (worker.admin().await, worker.user().await);
    let job = start(&mut admin, spec(&["sleep", "300"])).await.expect("a job").id;
    worker.stop_reading_log();
    fill_the_log(&mut user, 50).await;
    // Spawner and shims have the same stderr.
    for _ in 0..20 {
        let ran = timeout(PATIENCE, run(&mut admin, spec(&["sh", "-c", "echo $$; exit 3"]))).await;
        let job = ran.expect("no shim and no spawner waits for the log").expect("a job");
        assert!(job.outcome.is_some());
    }
    let stop = jobworker_tests::api::StopRequest { job, signal: String::new(), grace_msec: Some(0) };
    timeout(PATIENCE, admin.stop(stop)).await.expect("its shim carries it out").expect("stopped");
    worker.signal(Signal::SIGTERM);
    until_within(Duration::from_secs(30), "the worker ends though nobody reads its last lines", || {
        (!worker.is_running()).then_some(())
    });
}

#[test]
fn the_last_lines_are_written_before_the_end() {
    let mut worker = Worker::start();
    worker.signal(Signal::SIGTERM);
    assert!(worker.ended().success());
    until("the last line", || worker.log().iter().any(|line| line.contains("going down")).then_some(()));
}
