//! What is said once, and under one name: an audit event, a refusal, a host's lack.

use jobworker_tests::Worker;
use jobworker_tests::api::{JobSpec, ListRequest, StartRequest, StreamRequest};
use jobworker_tests::client::{everything, spec};
use jobworker_tests::wait::until;
use tonic::Code;

use crate::support::{details, jobctl, jobctl_as};

/// As `jobctl run` asks: for the start and the output at once.
async fn start_and_stream(worker: &Worker, name: &str, command: JobSpec) {
    let mut client = worker.client(&worker.pki.identity(name)).await;
    let id = uuid::Uuid::new_v4().to_string();
    let mut other = client.clone();
    let stream = StreamRequest { starting: true, ..everything(&id) };
    let (started, stream) =
        tokio::join!(client.start(StartRequest { id, spec: Some(command) }), other.stream(stream));
    started.expect_err("it is refused");
    match stream {
        // It came while the command was being tried, and ends with that.
        Ok(stream) => {
            let mut stream = stream.into_inner();
            while let Ok(Some(_)) = stream.message().await {}
        }
        Err(refused) => {
            let found = (refused.code(), details(&refused).0);
            assert_eq!(found, (Code::NotFound, "JOB_NOT_FOUND".to_owned()), "{refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_refused_has_one_line_of_the_audit_log() {
    let worker = Worker::start();
    for _ in 0..5 {
        start_and_stream(&worker, "alice", spec(&["/no/such/program"])).await;
        start_and_stream(&worker, "alice", JobSpec::default()).await;
        start_and_stream(&worker, "bob", spec(&["true"])).await;
    }
    // Lines come in order: with this one, all before it are there.
    worker.user().await.list(ListRequest::default()).await.expect("a list");
    let lines = until("the last line", || {
        let lines = worker.audit();
        lines.iter().any(|line| line["action"] == "list").then_some(lines)
    });
    let of = |action: &str, decision: &str| {
        lines.iter().filter(|line| line["action"] == action && line["decision"] == decision).count()
    };
    assert_eq!(of("stream", "invalid"), 0, "{lines:#?}");
    // The first was allowed, and came to nothing.
    let decisions = ["allowed", "failed", "invalid", "denied"].map(|decision| of("start", decision));
    assert_eq!(decisions, [5; 4], "{lines:#?}");
    // Somebody's look for a job that nobody has started is one.
    jobctl_as(&worker, "bob", &["stream", "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f"]).saying(&["no job"]);
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
