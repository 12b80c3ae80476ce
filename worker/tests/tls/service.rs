//! Requests of clients that TLS has let in: roles, rights, bad input, caps, the other services on the port.

use std::num::NonZeroUsize;
use std::time::Duration;

use jobworker_proto::v1::{
    JobSpec, Limits, ListRequest, SignalRequest, StartRequest, StatusRequest, StopRequest, StreamRequest,
    WaitRequest,
};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_types::StatusExt;

use crate::audit::{self, lines, only_line};
use crate::pki::{Pki, role};
use crate::worker::Worker;

const UNKNOWN: &str = "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f";

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("an ErrorInfo").reason
}

fn start(spec: JobSpec) -> StartRequest {
    StartRequest { id: String::new(), spec: Some(spec) }
}

fn command(words: &[&str]) -> JobSpec {
    let bytes = |word: &&str| word.as_bytes().to_vec();
    JobSpec { command: bytes(&words[0]), args: words[1..].iter().map(bytes).collect(), ..JobSpec::default() }
}

#[tokio::test]
async fn without_a_usable_role_every_call_is_refused() {
    let worker = Worker::start(Pki::new()).await;
    let cases = [
        ("no-role", vec![], "it has no role extension"),
        ("two-roles", vec![role(b"\x0c\x05admin"), role(b"\x0c\x04user")], "more than once"),
        ("bad-role", vec![role(b"admin")], "not a UTF8String"),
        ("unknown-role", vec![role(b"\x0c\x04root")], "unknown role \"root\"; known are admin and user"),
    ];
    for (name, extensions, words) in cases {
        let identity = worker.pki.odd(name, |params| params.custom_extensions = extensions);
        let mut client = worker.client(&identity).await;
        let status = client.api.start(start(command(&["true"]))).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unauthenticated, "NO_ROLE"),
            "{status:?}"
        );
        assert!(status.message().contains(words), "{status:?}");
        let line = only_line(client.address).await;
        assert_eq!(
            (line["decision"].as_str(), line["client"].as_str()),
            (Some("denied"), Some(name)),
            "{line}"
        );
        let status = client.api.list(ListRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
    assert_eq!(worker.starts(), 0);
}

#[tokio::test]
async fn a_user_may_look_and_no_more_whatever_it_says() {
    let worker = Worker::start(Pki::new()).await;
    let job = worker.running_job().to_string();
    let bob = worker.pki.identity("bob");
    let mut client = worker.client(&bob).await;
    // Nothing of the request is looked at: neither the bad limit nor the unknown job shows.
    let limits = Limits { memory: "-1".to_owned(), ..Limits::default() };
    let spec = JobSpec { limits: Some(limits), ..command(&["sh", "-c", "echo 'a\nb'"]) };
    let stop = StopRequest { job: UNKNOWN.to_owned(), signal: "none".to_owned(), grace_msec: None };
    let signal = SignalRequest { job: job.clone(), signal: "KILL".to_owned(), all: true };
    let refused = [
        client.api.start(start(spec)).await.unwrap_err(),
        client.api.stop(stop).await.unwrap_err(),
        client.api.signal(signal).await.unwrap_err(),
    ];
    for (status, verb) in refused.iter().zip(["start", "stop", "signal"]) {
        assert_eq!(
            (status.code(), reason(status).as_str()),
            (Code::PermissionDenied, "DENIED"),
            "{status:?}"
        );
        assert_eq!(status.message(), format!("role \"user\" may not {verb}"));
    }
    assert_eq!(worker.starts(), 0);
    let lines = audit::lines(client.address);
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert_eq!(lines[0]["argv"], "sh -c 'echo '\\''a\nb'\\'''");
    assert_eq!((lines[0]["limits"].as_str(), lines[1]["job"].as_str()), (Some("memory=-1"), Some(UNKNOWN)));
    for (field, value) in [("decision", "denied"), ("client", "bob"), ("role", "user")] {
        assert!(lines.iter().all(|line| line[field] == value), "{field}: {lines:#?}");
    }
    assert_eq!(lines[0]["rule"], "built-in default.toml:17: [roles.user] does not name start");
    // And looking works.
    assert_eq!(client.api.list(ListRequest::default()).await.unwrap().into_inner().jobs.len(), 1);
    let view = client.api.status(StatusRequest { job: job[..6].to_owned() }).await.unwrap().into_inner();
    assert_eq!(view.job.unwrap().id, job);
}

#[tokio::test]
async fn a_decision_says_who_and_what() {
    let worker = Worker::start(Pki::new()).await;
    let mut client = worker.admin().await;
    let limits = Limits { memory: "64MiB".to_owned(), io: vec!["/:1M".to_owned()], ..Limits::default() };
    let env = jobworker_proto::v1::EnvVar { key: "TOKEN".to_owned(), value: b"secret".to_vec() };
    let spec = JobSpec { limits: Some(limits), env: vec![env], ..command(&["make", "-j4"]) };
    let status = client.api.start(start(spec)).await.unwrap_err();
    assert_eq!(reason(&status), "COMMAND_NOT_FOUND", "what the spawner says comes through");
    assert_eq!(worker.starts(), 1);
    let [line, failed] = &lines(client.address)[..] else { panic!("{:#?}", lines(client.address)) };
    assert_eq!((&failed["decision"], &failed["job"]), (&"failed".into(), &line["job"]), "{failed:#}");
    assert_eq!(failed["reason"], "none", "what the spawner says");
    let expected = [
        ("decision", "allowed"),
        ("rule", "built-in default.toml:12: roles.admin.all = \"any\""),
        ("client", "alice"),
        ("role", "admin"),
        ("action", "start"),
        ("argv", "make -j4"),
        ("limits", "memory=64MiB io=/:1M"),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{line:#}");
    }
    assert_eq!(line["fingerprint"].as_str().unwrap().len(), 64);
    assert_eq!(line["job"].as_str().unwrap().len(), 36, "the id that the job was given");
    assert!(!line["serial"].as_str().unwrap().is_empty() && !line.to_string().contains("secret"), "{line:#}");
}

#[tokio::test]
async fn bad_input_is_refused_by_field_and_value() {
    let worker = Worker::start(Pki::new()).await;
    let mut client = worker.admin().await;
    let five_mb = vec![vec![b'x'; 100_000]; 50];
    let limits = Limits { memory: "1.5G B".to_owned(), ..Limits::default() };
    let cases = [
        (JobSpec::default(), "spec.command"),
        (command(&["echo", "a\0b"]), "spec.args[0]"),
        (JobSpec { args: five_mb, ..command(&["echo"]) }, "spec.args"),
        (JobSpec { limits: Some(limits), ..command(&["true"]) }, "spec.limits.memory"),
    ];
    for (spec, field) in cases {
        let status = client.api.start(start(spec)).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, field);
        assert!(status.message().starts_with(field), "{status:?}");
    }
    let id = StartRequest { id: "7".to_owned(), spec: Some(command(&["true"])) };
    assert_eq!(client.api.start(id).await.unwrap_err().code(), Code::InvalidArgument);
    let status = client.api.status(StatusRequest { job: UNKNOWN.to_owned() }).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "JOB_NOT_FOUND"));
    let status = client.api.status(StatusRequest { job: "x y".to_owned() }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(worker.starts(), 0);
    let lines = audit::lines(client.address);
    assert_eq!(lines.len(), 7);
    assert!(lines.iter().all(|line| line["decision"] == "invalid"), "{lines:#?}");
}

#[tokio::test]
async fn streams_and_waits_of_a_client_have_a_cap_over_all_its_connections() {
    let worker = Worker::with(Pki::new(), |options| options.max_followers = NonZeroUsize::new(1)).await;
    let job = worker.running_job().to_string();
    let request = || StreamRequest { job: job.clone(), ..StreamRequest::default() };
    let mut first = worker.admin().await;
    let stream = first.api.stream(request()).await.unwrap();
    let mut second = worker.admin().await;
    let status = second.api.wait(WaitRequest { job: job.clone() }).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "CAP_REACHED"));
    assert_eq!(status.get_details_error_info().unwrap().metadata["cap"], "max-followers");
    worker.client(&worker.pki.identity("bob")).await.api.stream(request()).await.unwrap();
    drop(stream);
    let retried = async {
        // Until the worker has seen the first one's end.
        while second.api.stream(request()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), retried).await.expect("there is a seat again");
}

#[tokio::test]
async fn health_and_reflection_are_on_the_same_port() {
    let worker = Worker::start(Pki::new()).await;
    let client = worker.client(&worker.pki.identity("bob")).await;
    let service = "jobworker.v1.JobWorker".to_owned();
    let health =
        HealthClient::new(client.channel.clone()).check(HealthCheckRequest { service }).await.unwrap();
    assert_eq!(health.into_inner().status, 1, "serving");
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let requests = Request::new(tokio_stream::once(request));
    let mut reflection = v1::server_reflection_client::ServerReflectionClient::new(client.channel.clone());
    let mut answers = reflection.server_reflection_info(requests).await.unwrap().into_inner();
    assert!(format!("{:?}", answers.next().await).contains("jobworker.v1.JobWorker"));
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let requests = Request::new(tokio_stream::once(request));
    let mut reflection = v1alpha::server_reflection_client::ServerReflectionClient::new(client.channel);
    let mut answers = reflection.server_reflection_info(requests).await.unwrap().into_inner();
    assert!(format!("{:?}", answers.next().await).contains("jobworker.v1.JobWorker"));
}
