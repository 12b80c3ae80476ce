//! The end of a certificate while its connection lives: the calls on it end with it, and whoever has done nothing goes on.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jobworker_tests::api::{JobState, ListRequest};
use jobworker_tests::client::{self, everything, shell, start, wait};
use jobworker_tests::http2::Http2;
use jobworker_tests::pki::Identity;
use jobworker_tests::wait::{PATIENCE, until};
use jobworker_tests::{Client, Pki, Worker};
use nix::sys::signal::Signal;
use rustls::AlertDescription;
use rustls::version::TLS13;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use crate::certs::made_by_openssl;
use crate::certs_support::{Counter, KEPT, READ, ending, list_until, replace, since, told, until_told};
use crate::support::{Answer, Running, jobctl_as};

/// Everything that one client has open and that ends with its certificate, each as a task that ends with the worker's word
/// and the time of it.
struct Everything {
    calls: Vec<(&'static str, JoinHandle<(Status, Instant)>)>,
    client: Client,
    idle: Http2,
}

impl Everything {
    /// `idle`: a connection of the same client. `job`: one that goes on and says something now and then.
    async fn open(worker: &Worker, name: &str, job: &str) -> Self {
        let identity = worker.pki.identity(name);
        let ca = worker.pki.ca();
        let channel = async || client::channel(&worker.address, &ca, Some(&identity), &[&TLS13]).await;
        let client = worker.client(&identity).await;
        let mut calls = vec![("stream", follow(client.clone(), job).await)];
        let (mut waiter, waited) = (client.clone(), job.to_owned());
        let waiting = async move { wait(&mut waiter, &waited).await.expect_err("cut off") };
        calls.push(("wait", tokio::spawn(async move { (waiting.await, Instant::now()) })));
        calls.push(("health", watch_health(channel().await.expect("a channel")).await));
        calls.push(("reflection", reflect(channel().await.expect("a channel")).await));
        let idle = Http2::begin(worker, name).await.expect("a connection");
        // The wait is under way once its audit line is there.
        let is_waiting = |line: &serde_json::Value| line["action"] == "wait" && line["client"] == name;
        until("the wait is under way", || worker.audit().iter().any(is_waiting).then_some(()));
        Self { calls, client, idle }
    }

    /// Each ends with these words; returns the times from `began` and the time until the idle connection was closed.
    async fn expect_end(mut self, words: &str, began: Instant) {
        for (what, call) in self.calls {
            let (status, at) = timeout(PATIENCE, call).await.expect("it ends").expect("no panic");
            assert_eq!(status.code(), Code::Unauthenticated, "{what}: {status}");
            assert!(status.message().contains(words), "{what}: {status}");
            eprintln!("measured: {what} cut off {:?} after the end", at.saturating_duration_since(began));
        }
        // On a connection that is still open, unless this comes late; then the door says no.
        let refused = self.client.list(ListRequest::default()).await.expect_err("no call more");
        assert!(matches!(refused.code(), Code::Unauthenticated | Code::Unavailable), "{refused}");
        let ended = timeout(PATIENCE, self.idle.ended()).await.expect("the connection is closed");
        eprintln!("measured: the idle connection closed {:?} after the end, {ended:?}", began.elapsed());
    }
}

async fn follow(mut client: Client, job: &str) -> JoinHandle<(Status, Instant)> {
    let mut stream = client.stream(everything(job)).await.expect("the output").into_inner();
    stream.message().await.expect("no error").expect("the first bytes");
    tokio::spawn(async move {
        loop {
            match stream.message().await {
                Ok(message) => assert!(message.is_some(), "it ends without a word"),
                Err(status) => return (status, Instant::now()),
            }
        }
    })
}

async fn watch_health(channel: Channel) -> JoinHandle<(Status, Instant)> {
    let request = HealthCheckRequest { service: "jobworker.v1.JobWorker".to_owned() };
    let mut stream = HealthClient::new(channel).watch(request).await.expect("health").into_inner();
    stream.message().await.expect("no error").expect("the state as it is");
    tokio::spawn(async move { (stream.message().await.expect_err("cut off"), Instant::now()) })
}

async fn reflect(channel: Channel) -> JoinHandle<(Status, Instant)> {
    let nothing = futures_util::stream::pending::<ServerReflectionRequest>();
    let mut client = ServerReflectionClient::new(channel);
    let mut stream = client.server_reflection_info(nothing).await.expect("reflection").into_inner();
    tokio::spawn(async move { (stream.message().await.expect_err("cut off"), Instant::now()) })
}

/// Audit lines of somebody's refusals.
fn denials(worker: &Worker, name: &str) -> Vec<serde_json::Value> {
    let lines = worker.audit().into_iter();
    lines.filter(|line| line["decision"] == "denied" && line["client"] == name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_is_cut_off_at_once_and_the_others_go_on() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let counter = Counter::start(&mut admin).await;
    let alice = counter.read(worker.admin().await);
    let bob = Everything::open(&worker, "bob", &counter.job).await;
    let began = Instant::now();
    worker.pki.revoke("bob");
    bob.expect_end("certificate of bob was revoked", began).await;
    let denied = denials(&worker, "bob");
    for action in ["stream", "wait", "/grpc.health.v1.Health/Watch"] {
        let line = denied.iter().find(|line| line["action"] == action);
        let line = line.unwrap_or_else(|| panic!("{action}: {denied:#?}"));
        assert_eq!(line["reason"], "certificate of bob was revoked");
    }
    // At least the idle one: others may have been closed by their clients by then.
    let closed = "certificate of bob was revoked: the connection is closed";
    until("a line for the connection", || (told(&worker, closed) > 0).then_some(()));
    jobctl_as(&worker, "bob", &["list"]).with_code(1).saying(&["unauthenticated", "certificate revoked"]);
    admin.list(ListRequest::default()).await.expect("alice has done nothing");
    counter.end();
    assert_eq!(alice.await.expect("every byte").state(), JobState::Finished);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_expires_is_cut_off_at_once_and_the_others_go_on() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let counter = Counter::start(&mut admin).await;
    let alice = counter.read(worker.admin().await);
    // Whole seconds is what a certificate knows.
    let end =
        (OffsetDateTime::now_utc() + Duration::from_secs(10)).replace_nanosecond(0).expect("no fraction");
    ending(&worker.pki, "shortly", end);
    let shortly = Everything::open(&worker, "shortly", &counter.job).await;
    assert!(since(end).is_zero(), "everything is open before the end");
    let began = Instant::now() + (end - OffsetDateTime::now_utc()).unsigned_abs();
    shortly.expect_end("certificate of shortly expired on ", began).await;
    assert!(!since(end).is_zero(), "not before its end");
    jobctl_as(&worker, "shortly", &["list"]).with_code(1).saying(&["unauthenticated", "expired on"]);
    counter.end();
    assert_eq!(alice.await.expect("every byte").state(), JobState::Finished);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_not_renewed_locks_out_until_it_is() {
    let pki = Arc::new(Pki::new());
    let end = OffsetDateTime::now_utc() + Duration::from_secs(10);
    replace(&pki.crl(), list_until(&pki, end));
    let worker = Worker::builder().pki(&pki).start();
    until_told(&worker, "the revocation list", 1);
    let mut admin = worker.admin().await;
    let job = start(&mut admin, shell("echo up; exec sleep 300")).await.expect("a job").id;
    let following = follow(admin.clone(), &job).await;
    let (status, _) = timeout(PATIENCE, following).await.expect("it ends").expect("no panic");
    assert!(!since(end.replace_nanosecond(0).expect("no fraction")).is_zero(), "not before its end");
    assert_eq!(status.code(), Code::Unauthenticated);
    let words = "certificate of alice can't be checked for revocation any more: the list in --crl expired on";
    assert!(status.message().contains(words), "{status}");
    jobctl_as(&worker, "alice", &["list"]).with_code(1);
    until("the log says so", || {
        worker.log().iter().any(|line| line.contains("gencrl") && line.contains(" ended on ")).then_some(())
    });
    replace(&pki.crl(), list_until(&pki, OffsetDateTime::now_utc() + Duration::from_secs(86_400)));
    until_told(&worker, READ, 1);
    jobctl_as(&worker, "alice", &["list"]).with_code(0);
}

/// Whose list has ended is locked out; that keeps no other CA's list, and nobody's revocation, from coming into force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_was_forgotten_does_not_keep_a_revocation_out() {
    let (forgetful, careful) = (Arc::new(Pki::new()), Pki::new());
    let both = [forgetful.ca(), careful.ca()].map(|path| fs::read_to_string(path).expect("a CA")).concat();
    let own_ca = forgetful.dir().join("own-ca.pem");
    fs::copy(forgetful.ca(), &own_ca).expect("a writable folder");
    replace(&forgetful.ca(), both);
    let carol = careful.client("carol", "admin", &[]);
    let end = OffsetDateTime::now_utc() + Duration::from_secs(10);
    replace(&forgetful.crl(), list_until(&forgetful, end));
    let worker = Worker::builder().pki(&forgetful).args(&["--crl", path(&careful.crl())]).start();
    let mut client =
        client::connect(&worker.address, &own_ca, Some(&carol), &[&TLS13]).await.expect("a connection");
    let job = start(&mut client, shell("echo up; exec sleep 300")).await.expect("a job").id;
    let following = follow(client.clone(), &job).await;
    until("the list has ended", || {
        worker.log().iter().any(|line| line.contains("gencrl") && line.contains(" ended on ")).then_some(())
    });
    // Of the second in which it ends nothing shows yet.
    until("that is over", || (since(end) > Duration::from_secs(2)).then_some(()));
    jobctl_as(&worker, "alice", &["list"]).with_code(1);
    client.list(ListRequest::default()).await.expect("another CA's client goes on");
    careful.revoke("carol");
    let (status, _) = timeout(PATIENCE, following).await.expect("it ends").expect("no panic");
    assert_eq!(status.message(), "certificate of carol was revoked");
    until_told(&worker, READ, 1);
    worker.signal(Signal::SIGHUP);
    until_told(&worker, READ, 2);
    // What is put in place anew has to be good.
    replace(&forgetful.crl(), list_until(&forgetful, OffsetDateTime::now_utc() - time::Duration::hours(1)));
    until_told(&worker, KEPT, 1);
}

/// `jobctl` as bob, which follows a job.
fn following(worker: &Worker, args: &[&str]) -> Running {
    let running = Running::start(worker.jobctl_as("bob", args));
    if args.contains(&"stream") {
        running.wait_for_stdout("up");
    }
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobctl_says_why_it_was_cut_off_and_does_not_try_again() {
    let worker = Worker::start();
    let job = start(&mut worker.admin().await, shell("echo up; exec sleep 300")).await.expect("a job").id;
    let mut running = [following(&worker, &["stream", &job]), following(&worker, &["wait", &job])];
    let is_waiting = |line: &serde_json::Value| line["action"] == "wait" && line["client"] == "bob";
    until("the wait is under way", || worker.audit().iter().any(is_waiting).then_some(()));
    let began = Instant::now();
    worker.pki.revoke("bob");
    for running in &mut running {
        let code = running.ended().code();
        let said = running.stderr();
        eprintln!("measured: jobctl ended {:?} after the revocation: {said}", began.elapsed());
        assert!(said.contains("unauthenticated: certificate of bob was revoked"), "{said}");
        assert!(!said.contains("reconnect"), "{said}");
        assert!(matches!(code, Some(1 | 125)), "{code:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_openssl_revokes_is_cut_off_too() {
    let pki = Arc::new(Pki::found_in(made_by_openssl("p256")));
    let worker = Worker::builder().pki(&pki).start();
    let (admin, user) = (pki.identity("admin"), pki.identity("user"));
    let mut admin = worker.client(&admin).await;
    let job = start(&mut admin, shell("echo up; exec sleep 300")).await.expect("a job").id;
    let following = follow(worker.client(&user).await, &job).await;
    // Its configuration names the files in its folder, and its list goes beside the old one.
    openssl(&pki, &["-revoke", "user.pem"]);
    openssl(&pki, &["-gencrl", "-out", "crl-new.pem"]);
    let began = Instant::now();
    fs::rename(pki.dir().join("crl-new.pem"), pki.crl()).expect("the same folder");
    let (status, at) = timeout(PATIENCE, following).await.expect("it ends").expect("no panic");
    eprintln!("measured: the stream cut off {:?} after the rename", at.duration_since(began));
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "certificate of user was revoked"));
    admin.list(ListRequest::default()).await.expect("the admin goes on");
}

fn openssl(pki: &Pki, args: &[&str]) {
    let mut openssl = Command::new("openssl");
    openssl.args(["ca", "-config", "openssl.cnf"]).args(args).current_dir(pki.dir());
    Answer::of(&mut openssl).with_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_ca_lets_both_in_and_then_cuts_off_the_old_ones_clients() {
    let (old, new) = (Arc::new(Pki::new()), Pki::new());
    let read = |path| fs::read_to_string(path).expect("a file");
    let old_ca = read(old.ca());
    let worker = Worker::builder().pki(&old).args(&["--crl", path(&new.crl())]).start();
    let newcomer = new.client("newcomer", "admin", &[]);
    // The server's own certificate is the old CA's throughout: that is its clients' business alone.
    let trust = old.dir().join("trust.pem");
    fs::write(&trust, &old_ca).expect("a writable folder");
    let connect = async |identity: &Identity| {
        client::connect(&worker.address, &trust, Some(identity), &[&TLS13]).await.expect("a connection")
    };
    let calls = async |mut client: Client| client.list(ListRequest::default()).await.map(drop);
    let alert = client::refusal(&worker.address, &trust, Some(&newcomer), &[&TLS13]).await;
    assert_eq!(alert, AlertDescription::DecryptError, "not as yet: a namesake of its CA is known");
    replace(&old.ca(), old_ca.clone() + &read(new.ca()));
    until_told(&worker, READ, 1);
    let job = start(&mut worker.admin().await, shell("echo up; exec sleep 300")).await.expect("a job").id;
    let olds = follow(worker.admin().await, &job).await;
    let news = connect(&newcomer).await;
    calls(news.clone()).await.expect("both get in");
    replace(&old.ca(), read(new.ca()));
    until_told(&worker, READ, 2);
    let (status, _) = timeout(PATIENCE, olds).await.expect("it ends").expect("no panic");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "certificate of alice is no longer signed by a CA of --ca");
    calls(news).await.expect("the new one's stay");
    let mut alice = worker.jobctl_as("alice", &["list"]);
    alice.env("JOBCTL_CA", &trust);
    Answer::of(&mut alice).with_code(1).saying(&["unauthenticated", "not signed by a CA"]);
    worker.signal(Signal::SIGHUP);
    until_told(&worker, READ, 3);
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}
