//! Real-time signals are signals: by name and by number, to one process or all, in a stop, in the outcome and in the
//! audit line.

use jobworker_tests::Worker;
use jobworker_tests::wait::until_equal;
use serde_json::Value;

use crate::support::{jobctl, start_script};

/// Says "up", and then which of two real-time signals comes.
const SAYS: &str =
    "trap 'echo min+3' 37; trap 'echo max-1; exit 9' 63; echo up; while :; do sleep 0.05; done";

/// Waits until the job's output is this.
fn said(worker: &Worker, id: &str, expected: &str) {
    let output = || jobctl(worker, &["stream", "--no-follow", id]).stdout;
    until_equal("the job's output", &expected.to_owned(), output);
}

#[test]
fn a_real_time_signal_reaches_a_job_by_name_and_by_number() {
    let worker = Worker::start();
    let id = start_script(&worker, SAYS);
    said(&worker, &id, "up\n");
    let mut expected = "up\n".to_owned();
    for name in ["RTMIN+3", "sigrtmin+3", "37", "SIGRTMAX-27"] {
        jobctl(&worker, &["signal", &id, name]).with_code(0);
        expected.push_str("min+3\n");
        said(&worker, &id, &expected);
    }
    // To every process: sleep has no handler, the shell has one.
    jobctl(&worker, &["signal", "--all", &id, "SIGRTMAX-1"]).with_code(0);
    jobctl(&worker, &["wait", &id]).with_code(9);
    let asked = |line: Value| line["signal"].as_str().map(str::to_owned);
    let audited: Vec<_> = worker.audit().into_iter().filter_map(asked).collect();
    assert_eq!(audited, ["RTMIN+3", "sigrtmin+3", "37", "SIGRTMAX-27", "SIGRTMAX-1"]);
}

#[test]
fn a_job_that_died_of_one_says_so() {
    let worker = Worker::start();
    let id = start_script(&worker, "exec sleep 300");
    jobctl(&worker, &["signal", &id, "34"]).with_code(0);
    jobctl(&worker, &["wait", &id]).with_code(128 + 34);
    let status = jobctl(&worker, &["status", &id]).with_code(0).stdout;
    assert!(status.contains("killed by signal 34 (SIGRTMIN)"), "{status}");
    let json = jobctl(&worker, &["status", "--output", "json", &id]).with_code(0).stdout;
    let job: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&job["outcome"]["cause"], &job["outcome"]["signal"]), (&"signaled".into(), &34.into()));
    until_equal("its end is audited", &Some(34), || worker.ends().first()?["exit_signal"].as_i64());
}

#[test]
fn a_stop_may_ask_with_one() {
    let worker = Worker::start();
    let id = start_script(&worker, SAYS);
    said(&worker, &id, "up\n");
    let stopped =
        jobctl(&worker, &["stop", &id, "--signal", "RTMAX-1", "--grace", "60s"]).with_code(0).stdout;
    assert!(stopped.contains("stopped by alice: exited with code 9"), "{stopped}");
    let id = start_script(&worker, "exec sleep 300");
    let stopped = jobctl(&worker, &["stop", &id, "--signal", "64", "--grace", "60s"]).with_code(0).stdout;
    assert!(stopped.contains("stopped by alice: killed by signal 64 (SIGRTMAX)"), "{stopped}");
}

#[test]
fn what_is_none_is_refused_in_words() {
    let worker = Worker::start();
    let id = start_script(&worker, "exec sleep 300");
    for bad in ["RTMIN+31", "65", "33", "RTMAX+1", "RTMIN-1"] {
        let words = ["is not a signal", "TERM, SIGTERM or 15", "RTMIN"];
        jobctl(&worker, &["signal", &id, bad]).with_code(1).saying(&words).saying(&[bad]);
        jobctl(&worker, &["stop", "--signal", bad, &id]).with_code(1).saying(&words);
    }
}
