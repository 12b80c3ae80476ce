//! What is said once, and under one name: an audit event, a refusal, a host's lack.

use jobworker_tests::Worker;
use jobworker_tests::wait::until;

use crate::support::{jobctl, jobctl_as};

#[test]
fn a_run_that_is_refused_has_one_line_of_the_audit_log() {
    let worker = Worker::start();
    jobctl(&worker, &["run", "--", "/no/such/program"]).with_code(127);
    jobctl(&worker, &["run", "--memory-limit", "nonsense", "--", "true"]);
    jobctl_as(&worker, "bob", &["run", "--", "true"]).with_code(125);
    // Lines come in order: with this one, all before it are there.
    jobctl(&worker, &["list"]).with_code(0);
    until("the last line", || worker.audit().iter().any(|line| line["action"] == "list").then_some(()));
    let lines = worker.audit();
    let invalid: Vec<_> =
        lines.iter().filter(|line| line["action"] == "stream" && line["decision"] == "invalid").collect();
    assert!(invalid.is_empty(), "{invalid:#?}");
    assert!(lines.iter().any(|line| line["action"] == "start" && line["decision"] == "failed"), "{lines:#?}");
    assert!(lines.iter().any(|line| line["action"] == "start" && line["decision"] == "denied"), "{lines:#?}");
    // Somebody else's look for such a job is one.
    jobctl_as(&worker, "bob", &["stream", "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f"]).with_code(125);
    until("its line", || {
        let lines = worker.audit();
        lines.iter().any(|line| line["action"] == "stream" && line["decision"] == "invalid").then_some(())
    });
}

#[test]
fn each_audit_event_has_one_name_in_the_log_and_in_the_file() {
    let in_log = Worker::builder().args(&["--keep-ended-for", "1s"]).start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("audit");
    let path = file.to_str().expect("UTF-8");
    let in_file = Worker::builder().args(&["--keep-ended-for", "1s", "--audit-log", path]).start();
    for worker in [&in_log, &in_file] {
        jobctl(worker, &["run", "--", "true"]).with_code(0);
        drop(std::net::TcpStream::connect(&worker.address).expect("a connection"));
    }
    for event in ["decision", "connection", "removal", "job_end"] {
        until(&format!("{event} in the log"), || in_log.audit_of(event).pop());
        until(&format!("{event} in the file"), || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            text.contains(&format!("\"event\":\"{event}\"")).then_some(())
        });
    }
    let removal = in_log.audit_of("removal").remove(0);
    assert_eq!((&removal["by"], &removal["action"]), (&"retention".into(), &"remove".into()), "{removal}");
    assert!(in_log.audit_of("decision").iter().all(|line| line["by"].is_null()));
}

#[test]
fn a_controller_that_is_missing_is_told_once_at_the_start() {
    let worker = Worker::start();
    let lines = worker.log();
    for controller in ["cpu", "memory", "io", "pids"] {
        let of_it = lines.iter().filter(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            line["controller"] == controller
        });
        assert!(of_it.count() <= 1, "{controller}: {lines:#?}");
    }
}
