//! The worker's caps: whoever reaches one is told which, and nobody else notices.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use jobworker_tests::api::{JobSpec, StopRequest, WaitRequest};
use jobworker_tests::client::{everything, shell, spec, start};
use jobworker_tests::wait::until;
use jobworker_tests::{Client, Worker};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{Running, details, jobctl, jobctl_as, start_script};

fn expect_cap(refused: &Status, cap: &str) {
    assert_eq!(
        (refused.code(), details(refused).0.as_str()),
        (Code::ResourceExhausted, "CAP_REACHED"),
        "{refused}"
    );
    let info = refused.get_details_error_info().expect("checked above");
    assert_eq!(info.metadata.get("cap").map(String::as_str), Some(cap), "{refused}");
    assert!(refused.message().contains(cap) && refused.message().contains("bob"), "{refused}");
}

async fn follow(client: &mut Client, job: &str) -> Result<impl Sized + use<>, Status> {
    client.stream(everything(job)).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_follows_so_many_jobs_at_a_time_and_no_more() {
    let worker = Worker::builder().args(&["--max-followers", "3"]).start();
    let mut admin = worker.admin().await;
    let job = start(&mut admin, shell("echo up; exec sleep 300")).await.expect("a job").id;
    // Over several connections: the cap is the client's, not the connection's.
    let (mut one, mut other) = (worker.user().await, worker.user().await);
    let first = follow(&mut one, &job).await.expect("the first");
    let _second = follow(&mut one, &job).await.expect("the second");
    let _third = follow(&mut other, &job).await.expect("the third");
    expect_cap(&follow(&mut other, &job).await.err().expect("the fourth"), "max-followers");
    let wait = WaitRequest { job: job.clone() };
    expect_cap(&other.wait(wait).await.expect_err("a wait lasts as long"), "max-followers");
    jobctl_as(&worker, "bob", &["stream", &job]).with_code(1).saying(&["max-followers"]);
    jobctl_as(&worker, "bob", &["status", &job]).with_code(0);
    follow(&mut admin, &job).await.expect("somebody else's are their own");
    drop(first);
    until("a seat is free again", || {
        let answer = jobctl_as(&worker, "bob", &["stream", "--no-follow", &job]);
        (answer.code == Some(0)).then_some(())
    });
    admin.stop(StopRequest { job, ..StopRequest::default() }).await.expect("a stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_have_a_cap() {
    let worker = Worker::builder().args(&["--max-args", "3", "--max-args-bytes", "100"]).start();
    let mut admin = worker.admin().await;
    start(&mut admin, spec(&["true", "1", "2", "3"])).await.expect("three are fine");
    let many = start(&mut admin, spec(&["true", "1", "2", "3", "4"])).await.expect_err("four");
    assert_eq!(
        (many.code(), details(&many).1),
        (Code::InvalidArgument, vec!["spec.args".to_owned()]),
        "{many}"
    );
    assert!(many.message().contains("4 arguments") && many.message().contains("--max-args"), "{many}");
    let long = start(&mut admin, spec(&["true", &"x".repeat(101)])).await.expect_err("101 bytes");
    assert_eq!(
        (long.code(), details(&long).1),
        (Code::InvalidArgument, vec!["spec.args".to_owned()]),
        "{long}"
    );
    let variable = |key: u8| jobworker_tests::api::EnvVar { key: format!("V{key}"), value: Vec::new() };
    let env = JobSpec { env: (0..4).map(variable).collect(), ..spec(&["true"]) };
    let many = start(&mut admin, env).await.expect_err("four variables");
    assert_eq!(
        (many.code(), details(&many).1),
        (Code::InvalidArgument, vec!["spec.env".to_owned()]),
        "{many}"
    );
}

#[test]
fn handshakes_that_say_nothing_delay_nobody() {
    let worker = Worker::start();
    let silent: Vec<_> =
        (0..50).map(|_| TcpStream::connect(&worker.address).expect("a connection")).collect();
    let started = Instant::now();
    jobctl(&worker, &["run", "--", "true"]).with_code(0);
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "less than a handshake may take: {:?}",
        started.elapsed()
    );
    assert!(silent.iter().all(is_open), "nobody was thrown out for it");
}

#[test]
fn a_full_house_makes_room_and_a_silent_guest_is_shown_out() {
    let worker = Worker::builder().args(&["--max-handshakes", "10", "--handshake-timeout", "2s"]).start();
    let silent: Vec<_> =
        (0..50).map(|_| TcpStream::connect(&worker.address).expect("a connection")).collect();
    jobctl(&worker, &["list"]).with_code(0);
    let opened = Instant::now();
    for mut connection in silent {
        connection.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        assert_eq!(connection.read(&mut [0]).expect("closed by the worker"), 0);
    }
    assert!(opened.elapsed() < Duration::from_secs(10), "{:?}", opened.elapsed());
    jobctl(&worker, &["list"]).with_code(0);
}

#[test]
fn connections_have_a_cap_and_places_are_given_back() {
    let worker = Worker::builder().args(&["--max-connections", "2"]).start();
    let job = start_script(&worker, "echo up; exec sleep 300");
    let mut followers = [0, 1].map(|_| Running::start(worker.jobctl_as("bob", &["stream", &job])));
    followers.iter().for_each(|follower| follower.wait_for_stdout("up"));
    jobctl(&worker, &["list"]).with_code(1).saying(&[&worker.address]);
    let told = |line: &serde_json::Value| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("2 connections"))
    };
    until("the audit log tells why", || worker.audit().iter().any(told).then_some(()));
    followers[0].child.kill().expect("our own child");
    until("its place is free", || (jobctl(&worker, &["list"]).code == Some(0)).then_some(()));
}

fn is_open(connection: &TcpStream) -> bool {
    connection.set_nonblocking(true).expect("a socket");
    let read = (&*connection).read(&mut [0]);
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}
