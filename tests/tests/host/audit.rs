//! The audit log: who asked for what from where, and by which rule it was decided; one line each, whatever is in it.

use jobworker_tests::Worker;
use jobworker_tests::api::{ListRequest, StartRequest};
use jobworker_tests::client::{limited, refusal, spec, start};
use jobworker_tests::wait::until;
use rustls::version::TLS13;
use serde_json::Value;

use crate::support::{jobctl_as, start_script};

/// The audit lines, once there are so many.
fn lines(worker: &Worker, count: usize) -> Vec<Value> {
    until(&format!("{count} audit lines"), || Some(worker.audit()).filter(|lines| lines.len() >= count))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_decision_says_who_what_and_why() {
    let worker = Worker::start();
    let job = start_script(&worker, "exit 0");
    jobctl_as(&worker, "bob", &["signal", &job, "HUP"]).with_code(1);
    let mut admin = worker.admin().await;
    let memory = jobworker_tests::api::Limits { memory: "1.5G B".to_owned(), ..Default::default() };
    start(&mut admin, limited(spec(&["true"]), memory)).await.expect_err("no limit");
    let lines = lines(&worker, 3);
    let told = |line: &Value, keys: &[&str]| keys.iter().map(|key| line[key].clone()).collect::<Vec<_>>();
    let [started, signalled, invalid] = &lines[..] else { panic!("{lines:#?}") };
    let keys = ["decision", "client", "role", "action"];
    assert_eq!(told(started, &keys), ["allowed", "alice", "admin", "start"]);
    assert_eq!(told(started, &["job", "argv"]), [job.as_str(), "sh -c 'exit 0'"]);
    assert_eq!(told(signalled, &keys), ["denied", "bob", "user", "signal"]);
    assert_eq!(told(signalled, &["job", "signal"]), [job.as_str(), "HUP"]);
    assert_eq!(told(invalid, &keys), ["invalid", "alice", "admin", "start"]);
    assert_eq!(told(invalid, &["limits"]), ["memory=1.5G B"]);
    let reason = invalid["reason"].as_str();
    assert!(reason.is_some_and(|reason| reason.contains("spec.limits.memory")), "{invalid}");
    for line in &lines {
        assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
        let hex = |key: &str| {
            line[key].as_str().is_some_and(|hex| hex.chars().all(|digit| digit.is_ascii_hexdigit()))
        };
        assert!(hex("serial") && hex("fingerprint"), "{line}");
        assert!(line["rule"].is_string() || line["decision"] == "invalid", "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_certificate_is_told_of_too() {
    let worker = Worker::start();
    refusal(&worker.address, &worker.pki.ca(), None, &[&TLS13]).await;
    let line = lines(&worker, 1).remove(0);
    assert_eq!((&line["decision"], &line["action"]), (&"denied".into(), &"connect".into()), "{line}");
    assert!(line["reason"].as_str().is_some_and(|reason| reason.contains("no client certificate")), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_writes_a_line_of_their_own() {
    let worker = Worker::start();
    let mut user = worker.user().await;
    let forged = "x\n{\"target\":\"audit\",\"decision\":\"allowed\",\"client\":\"alice\"}\n";
    let start = StartRequest { id: forged.to_owned(), spec: Some(spec(&[forged, forged])) };
    user.start(start).await.expect_err("a user may not");
    user.list(ListRequest::default()).await.expect("a user may");
    let lines = lines(&worker, 2);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines.iter().all(|line| line["client"] == "bob"), "{lines:#?}");
    assert!(worker.log().iter().all(|line| !line.starts_with("{\"target\"")));
}

/// jobctl asks for the output of what it starts in the same flight.
#[test]
fn a_run_leaves_the_lines_of_a_start_and_a_stream_and_no_other() {
    let worker = Worker::start();
    for _ in 0..20 {
        jobctl_as(&worker, "alice", &["run", "--", "true"]).with_code(0);
    }
    let lines = until("forty lines", || Some(worker.audit()).filter(|lines| lines.len() >= 40));
    let of = |action: &str| lines.iter().filter(|line| line["action"] == action).count();
    assert_eq!((lines.len(), of("start"), of("stream")), (40, 20, 20), "{lines:#?}");
    assert!(lines.iter().all(|line| line["decision"] == "allowed"), "{lines:#?}");
    jobctl_as(&worker, "alice", &["run", "--", "/nonexistent"]).with_code(127);
    jobctl_as(&worker, "bob", &["run", "--", "true"]).with_code(125);
    let reasons = |line: &Value| (line["decision"].clone(), line["action"].clone());
    let told: Vec<_> = worker.audit()[40..].iter().map(reasons).filter(|told| told.1 == "start").collect();
    let expected = ["allowed", "failed", "denied"].map(|decision| (decision.into(), "start".into()));
    assert_eq!(told, expected, "{:#?}", &worker.audit()[40..]);
}
