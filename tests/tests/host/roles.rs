//! What a role may do: a good certificate with no usable role is unauthenticated, a user may look and not touch.

use std::time::Duration;

use jobworker_tests::api::{ListRequest, SignalRequest, StartRequest, StatusRequest, StopRequest};
use jobworker_tests::client::{everything, output, run, spec, start, wait};
use jobworker_tests::pki::{role_extension, role_value};
use jobworker_tests::wait::until_equal;
use jobworker_tests::{Client, Worker, census, client};
use time::OffsetDateTime;
use tonic::{Code, Status};

use crate::support::{Belongings, details, jobctl, jobctl_as, start_script};

async fn expect_no_role(worker: &Worker, name: &str, values: &[&[u8]], words: &str) {
    let identity = worker.pki.odd_client(name, |params| {
        params.custom_extensions.extend(values.iter().map(|value| role_extension(value)));
    });
    let before = worker.audit().len();
    let mut client = worker.client(&identity).await;
    let start = StartRequest { id: String::new(), spec: Some(spec(&["true"])) };
    let refused = client.start(start).await.expect_err(name);
    assert_eq!(
        (refused.code(), details(&refused).0.as_str()),
        (Code::Unauthenticated, "NO_ROLE"),
        "{refused}"
    );
    assert!(refused.message().contains("no usable role") && refused.message().contains(words), "{refused}");
    until_equal("one audit line", &(before + 1), || worker.audit().len());
    let refused = client.list(ListRequest::default()).await.expect_err(name);
    assert_eq!(refused.code(), Code::Unauthenticated, "no role may not even look: {refused}");
    let words = ["unauthenticated: ", name, "no usable role", words];
    jobctl_as(worker, name, &["start", "--", "true"]).with_code(1).saying(&words);
    until_equal("one audit line each", &(before + 3), || worker.audit().len());
    assert_eq!(Belongings::of(worker), Belongings::none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_without_a_usable_role_may_do_nothing() {
    let worker = Worker::start();
    let (admin, user) = (role_value("admin"), role_value("user"));
    expect_no_role(&worker, "nobody-special", &[], "").await;
    expect_no_role(&worker, "two-faced", &[&user, &admin], "").await;
    expect_no_role(&worker, "twice-admin", &[&admin, &admin], "").await;
    expect_no_role(&worker, "mangled", &[b"\x04\x05admin"], "").await;
    expect_no_role(&worker, "trailing", &[b"\x0c\x05adminx"], "").await;
    expect_no_role(&worker, "bare", &[b"admin"], "").await;
    expect_no_role(&worker, "stranger", &[&role_value("operator")], "\"operator\"").await;
    expect_no_role(&worker, "capital", &[&role_value("Admin")], "").await;
}

fn expect_denied<T: std::fmt::Debug>(answer: Result<T, Status>, verb: &str) {
    let refused = answer.expect_err(verb);
    assert_eq!(
        (refused.code(), details(&refused).0.as_str()),
        (Code::PermissionDenied, "DENIED"),
        "{refused}"
    );
    assert!(refused.message().contains("\"user\"") && refused.message().contains(verb), "{refused}");
}

async fn touch_everything(user: &mut Client, job: &str) {
    let job = job.to_owned();
    expect_denied(start(user, spec(&["true"])).await, "start");
    expect_denied(user.stop(StopRequest { job: job.clone(), ..StopRequest::default() }).await, "stop");
    expect_denied(user.signal(SignalRequest { job, signal: "HUP".to_owned(), all: true }).await, "signal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_may_look_and_not_touch() {
    let worker = Worker::start();
    let (mut admin, mut user) = (worker.admin().await, worker.user().await);
    let job = start(&mut admin, client::shell("trap 'echo hup' HUP; echo up; sleep 300 & wait; wait")).await;
    let job = job.expect("an admin may start");
    until_equal("the shim, the shell and its sleep", &3, || census::descendants(worker.spawner_pid()).len());
    let belongings = Belongings::of(&worker);
    let lines = worker.audit().len();
    touch_everything(&mut user, &job.id).await;
    until_equal("one audit line each", &(lines + 3), || worker.audit().len());
    for args in [&["start", "--", "true"][..], &["stop", &job.id], &["signal", &job.id, "HUP"]] {
        let code = 1;
        jobctl_as(&worker, "bob", args).with_code(code).saying(&["permission denied: ", "\"user\" may not"]);
    }
    assert_eq!(Belongings::of(&worker), belongings);

    let status =
        user.status(StatusRequest { job: job.id.clone() }).await.expect("a user may ask").into_inner();
    assert_eq!(status.job.expect("a job").pid, job.pid, "it still runs");
    let list = user.list(ListRequest::default()).await.expect("a user may list").into_inner();
    assert_eq!(list.jobs.len(), 1);
    let stop = StopRequest { job: job.id.clone(), ..StopRequest::default() };
    admin.stop(stop).await.expect("an admin may stop");
    wait(&mut user, &job.id).await.expect("a user may wait");
    let output = output(&mut user, everything(&job.id)).await.expect("a user may stream");
    assert_eq!(output.stdout, b"up\n", "no signal of the user's reached it");
}

#[test]
fn jobctl_serves_a_user_too() {
    let worker = Worker::start();
    let job = start_script(&worker, "echo seen; exit 3");
    jobctl_as(&worker, "bob", &["wait", &job]).with_code(3);
    assert_eq!(jobctl_as(&worker, "bob", &["stream", &job]).with_code(0).stdout, "seen\n");
    assert!(jobctl_as(&worker, "bob", &["status", &job]).with_code(0).stdout.contains("exited with code 3"));
    assert!(jobctl_as(&worker, "bob", &["list"]).with_code(0).stdout.contains(&job[..8]));
    jobctl_as(&worker, "bob", &["run", "--", "true"]).with_code(125).saying(&["permission denied: "]);
    jobctl(&worker, &["run", "--", "true"]).with_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_owned_by_the_first_uri_and_tells_the_certificate() {
    let worker = Worker::start();
    let carol = worker.pki.client("carol", "admin", &["spiffe://example.org/carol", "https://example.org/c"]);
    let job = run(&mut worker.client(&carol).await, spec(&["true"])).await.expect("an admin may run");
    let owner = job.owner.expect("an owner");
    assert_eq!((owner.name.as_str(), owner.common_name.as_str()), ("spiffe://example.org/carol", "carol"));
    assert_eq!(owner.role, "admin");
    assert_eq!(owner.fingerprint_sha256.len(), 64);
    assert!(!owner.serial.is_empty() && owner.serial.chars().all(|digit| digit.is_ascii_hexdigit()));
}

#[test]
fn the_environment_is_only_its_owners_to_see() {
    let worker = Worker::start();
    let args = ["start", "--env", "TOKEN=hunter2", "--", "true"];
    let job = jobctl(&worker, &args).with_code(0).stdout.trim_end().to_owned();
    for args in [&["status", &job][..], &["status", &job, "--output", "json"], &["list", "--output", "json"]]
    {
        assert!(!jobctl_as(&worker, "bob", args).with_code(0).stdout.contains("hunter2"), "{args:?}");
        assert!(jobctl(&worker, args).with_code(0).stdout.contains("hunter2"), "{args:?}");
    }
    assert!(worker.log().iter().all(|line| !line.contains("hunter2")), "nor does the log tell it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_does_not_outlive_its_certificate() {
    let worker = Worker::start();
    let end = OffsetDateTime::now_utc() + Duration::from_secs(4);
    let identity = worker.pki.odd_client("shortly", |params| {
        params.not_after = end;
        params.custom_extensions.push(role_extension(&role_value("admin")));
    });
    let mut client = worker.client(&identity).await;
    client.list(ListRequest::default()).await.expect("still valid");
    let refused = loop {
        match client.list(ListRequest::default()).await {
            Ok(_) => assert!(OffsetDateTime::now_utc() < end + Duration::from_secs(10), "never refused"),
            Err(refused) => break refused,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(refused.message().contains("certificate of shortly expired on"), "{refused}");
    // The connection may be closed by now.
    let refused = start(&mut client, spec(&["true"])).await.expect_err("expired").code();
    assert!(matches!(refused, Code::Unauthenticated | Code::Unavailable), "{refused}");
    assert_eq!(Belongings::of(&worker), Belongings::none());
}
