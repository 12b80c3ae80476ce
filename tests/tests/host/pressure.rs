//! Connections that misbehave, by the hundred: they are cut or bounded, everybody else is served, and nothing stays.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use jobworker_tests::client::{run, shell, spec, start, wait};
use jobworker_tests::http2::{END_HEADERS, END_STREAM};
use jobworker_tests::http2::{ENHANCE_YOUR_CALM, Http2, Sent, call, frame, kind, message};
use jobworker_tests::wait::{PATIENCE, until, until_equal};
use jobworker_tests::{Worker, census};
use rustls::pki_types::ServerName;
use tonic::Code;

use crate::support::{
    Bystander, Held, expect_no_more_held, jobctl_as, raise_open_files, start_script, wait_for_file,
};

const MIB: u64 = 1 << 20;

/// A worker that has done everything once, so that what it holds from then on is what it holds.
async fn warm(args: &[&str]) -> (Arc<Worker>, Held) {
    raise_open_files();
    let worker = Worker::builder().args(args).start();
    run(&mut worker.admin().await, spec(&["true"])).await.expect("a first job");
    until_equal("it is gone", &0, || census::descendants(worker.spawner_pid()).len());
    let held = Held::by(&worker);
    (Arc::new(worker), held)
}

fn client_hello(worker: &Worker) -> Vec<u8> {
    let config = jobworker_tests::client::tls(&worker.pki.ca(), None, rustls::ALL_VERSIONS);
    let server = ServerName::try_from("localhost").expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), server).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("memory takes it");
    bytes
}

/// Whether a connection was ended by the other side.
fn is_cut(mut connection: &TcpStream) -> bool {
    connection.set_nonblocking(true).expect("a socket");
    match connection.read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// How often each reason stands in the audit log for a refused connection, by its first words.
fn refusals(worker: &Worker) -> BTreeMap<&'static str, usize> {
    const REASONS: [&str; 4] =
        ["dropped in the middle", "the TLS handshake took longer", "bob sent no HTTP/2 preface", "bob has"];
    let lines = worker.audit();
    let reasons = lines.iter().filter(|line| line["action"] == "connect");
    let mut counts = BTreeMap::new();
    for reason in reasons.filter_map(|line| line["reason"].as_str()) {
        if let Some(known) = REASONS.into_iter().find(|known| reason.starts_with(known)) {
            *counts.entry(known).or_default() += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_by_single_bytes_are_cut_and_others_get_in() {
    const SLOW: usize = 60;
    let (worker, before) = warm(&["--max-handshakes", "20", "--handshake-timeout", "3s"]).await;
    let hello = client_hello(&worker);
    let connect = |_| TcpStream::connect(&worker.address).expect("a connection");
    let mut slow: Vec<_> = (0..SLOW).map(connect).collect();
    // After them: of those who come all at once, the last are kept.
    let bystander = Bystander::of(&worker);
    // The oldest make room for the newest at once, which have their three seconds.
    let mut sent = hello.iter().cycle();
    let started = Instant::now();
    while !slow.is_empty() {
        let byte = [*sent.next().expect("it goes round")];
        // What is written to a connection that was cut is lost, as it should be.
        slow.retain(|connection| !is_cut(connection) && (&*connection).write(&byte).is_ok());
        assert!(started.elapsed() < PATIENCE, "{} are still there", slow.len());
        thread::sleep(Duration::from_millis(20));
    }
    bystander.is_served().await;
    bystander.end().await;
    let refusals = refusals(&worker);
    assert_eq!(refusals.values().sum::<usize>(), SLOW, "each has its line: {refusals:?}");
    assert_eq!(refusals.len(), 2, "some made room, the others had their time: {refusals:?}");
    expect_no_more_held(&worker, &before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_that_say_nothing_are_shown_out() {
    let (worker, before) = warm(&["--handshake-timeout", "3s"]).await;
    let connect = |_| TcpStream::connect(&worker.address).expect("a connection");
    let mut silent: Vec<_> = (0..1000).map(connect).collect();
    let bystander = Bystander::of(&worker);
    bystander.is_served().await;
    until("all are cut", || {
        silent.retain(|connection| !is_cut(connection));
        silent.is_empty().then_some(())
    });
    bystander.end().await;
    expect_no_more_held(&worker, &before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verified_client_that_never_speaks_http2_is_shown_out() {
    let (worker, before) = warm(&["--handshake-timeout", "3s"]).await;
    let bystander = Bystander::of(&worker);
    let mut silent = Vec::new();
    for number in 0..100 {
        let mut connection = Http2::connect(&worker, "bob").await.expect("a verified connection");
        if number % 2 == 0 {
            assert_eq!(connection.send(b"PRI * HTTP/2.0").await, Sent::Taken, "and no more of it");
        }
        silent.push(connection);
    }
    bystander.is_served().await;
    for connection in silent {
        connection.ended().await;
    }
    bystander.end().await;
    assert_eq!(refusals(&worker).get("bob sent no HTTP/2 preface"), Some(&100), "each has its line");
    expect_no_more_held(&worker, &before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_clients_stay_and_one_more_of_the_same_is_told_why_not() {
    const IDLE: u64 = 1000;
    let timeout = Duration::from_secs(3);
    let (worker, before) =
        warm(&["--handshake-timeout", "3s", "--max-connections-per-client", &IDLE.to_string()]).await;
    let bystander = Bystander::of(&worker);
    let resident_bytes = census::resident_bytes(worker.pid());
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(Http2::begin(&worker, "bob").await.expect("a connection"));
    }
    let opened = Instant::now();
    let grown_bytes = census::resident_bytes(worker.pid()).saturating_sub(resident_bytes);
    eprintln!("{} KiB per idle connection", grown_bytes / IDLE / 1024);
    assert!(grown_bytes < IDLE * 128 * 1024, "{grown_bytes} bytes for {IDLE} idle connections");

    let one_more = Http2::connect(&worker, "bob").await.expect("TLS knows no caps").ended().await;
    assert_eq!(one_more.goaway, Some((ENHANCE_YOUR_CALM, "max-connections-per-client".to_owned())));
    let refused = jobctl_as(&worker, "bob", &["list"]).with_code(1);
    refused.saying(&["max-connections-per-client"]);
    // A call that tonic makes after its connection has gone is told just that; one that is under way, the reason.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut client = worker.client(&worker.pki.identity("bob")).await;
        let refused = client.list(jobworker_tests::api::ListRequest::default()).await.expect_err("no place");
        if refused.code() == Code::ResourceExhausted {
            break;
        }
        assert_eq!(refused.code(), Code::Cancelled, "{refused:?}");
        assert!(Instant::now() < deadline, "tonic is never told the reason: {refused:?}");
    }

    bystander.is_served().await;
    while opened.elapsed() < timeout + Duration::from_secs(1) {
        bystander.is_served().await;
    }
    for connection in &mut idle {
        assert!(!connection.is_closed().await, "a client that is idle may stay");
    }
    drop(idle);
    until("places are given back", || (jobctl_as(&worker, "bob", &["list"]).code == Some(0)).then_some(()));
    bystander.end().await;
    expect_no_more_held(&worker, &before);
}

/// Asks for a job's output from the first byte, on this stream of the connection.
async fn follow(connection: &mut Http2, stream: u32, job: &str) {
    // `StreamRequest.job`, field 1.
    let request = [&[0x0a, u8::try_from(job.len()).expect("an id")], job.as_bytes()].concat();
    let frames = [
        frame(kind::HEADERS, END_HEADERS, stream, &call("Stream", &[])),
        frame(kind::DATA, END_STREAM, stream, &message(request.len(), &request)),
    ];
    assert_eq!(connection.send(&frames.concat()).await, Sent::Taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_cost_a_bounded_amount_and_hold_up_nobody() {
    const CONNECTIONS: usize = 50;
    const STREAMS: u32 = 4;
    const BYTES: u64 = 200_000_000;
    let (worker, before) = warm(&[]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let writer = format!("{}; exec head -c {BYTES} /dev/zero", wait_for_file(&gate));
    let mut admin = worker.admin().await;
    let job = start(&mut admin, shell(&writer)).await.expect("a job").id;
    let resident_bytes = census::resident_bytes(worker.pid());
    let mut stalled = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Http2::begin(&worker, "bob").await.expect("a connection");
        for number in 0..STREAMS {
            follow(&mut connection, 2 * number + 1, &job).await;
        }
        stalled.push(connection);
    }
    let bystander = Bystander::of(&worker);
    fs::write(&gate, "").expect("a writable folder");
    let ended = tokio::time::timeout(PATIENCE, wait(&mut admin, &job)).await.expect("the job goes on");
    assert_eq!(ended.expect("it ends").output_bytes, BYTES);
    bystander.is_served().await;
    let grown_bytes = census::resident_bytes(worker.pid()).saturating_sub(resident_bytes);
    let readers = CONNECTIONS as u64 * u64::from(STREAMS);
    eprintln!("{} KiB per stalled reader", grown_bytes / readers / 1024);
    assert!(grown_bytes < readers * 2 * MIB, "{} KiB for {readers} stalled readers", grown_bytes / 1024);
    let whole = worker.jobctl(&["stream", &job]);
    assert_eq!((whole.status.code(), whole.stdout.len() as u64), (Some(0), BYTES));
    bystander.end().await;
    drop((stalled, admin));
    expect_no_more_held(&worker, &before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_status_calls_delay_nobody() {
    const CONNECTIONS: usize = 4;
    const AT_A_TIME: usize = 25;
    const CALLS: usize = 10_000;
    let (worker, before) = warm(&[]).await;
    let job = start_script(&worker, "echo up; exec sleep 300");
    let bystander = Bystander::of(&worker);
    let started = Instant::now();
    let mut callers = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = worker.user().await;
        for _ in 0..AT_A_TIME {
            let (mut client, job) = (client.clone(), job.clone());
            callers.push(tokio::spawn(async move {
                for _ in 0..CALLS / CONNECTIONS / AT_A_TIME {
                    let request = jobworker_tests::api::StatusRequest { job: job.clone() };
                    let status = client.status(request).await.expect("a status").into_inner();
                    assert_eq!(status.job.expect("a job").id, job);
                }
            }));
        }
    }
    bystander.is_served().await;
    for caller in callers {
        caller.await.expect("every call is answered");
    }
    eprintln!("{:.0} calls per second", CALLS as f64 / started.elapsed().as_secs_f64());
    bystander.end().await;
    let asked =
        || worker.audit().iter().filter(|line| line["client"] == "bob" && line["action"] == "status").count();
    until_equal("each has its line", &CALLS, asked);
    jobctl_as(&worker, "alice", &["stop", "--now", &job]).with_code(0);
    expect_no_more_held(&worker, &before);
}
