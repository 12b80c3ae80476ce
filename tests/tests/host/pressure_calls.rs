//! Requests and frames that misbehave, on connections of a verified client: too large, too many, never whole, taken
//! back. Each is refused or its connection ended, in bounded memory, while everybody else is served.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;
use jobworker_tests::api::ListRequest;
use jobworker_tests::client::{self, run, spec, start};
use jobworker_tests::http2::{END_HEADERS, END_STREAM};
use jobworker_tests::http2::{ENHANCE_YOUR_CALM, Http2, Sent, call, frame, kind, message};
use jobworker_tests::wait::{PATIENCE, until, until_equal};
use jobworker_tests::{Worker, census};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use tower::ServiceExt;

use crate::support::{Bystander, Held, details, expect_no_more_held, jobctl_as, raise_open_files};

const MIB: u64 = 1 << 20;

async fn warm(args: &[&str]) -> (Arc<Worker>, Held) {
    raise_open_files();
    let worker = Worker::builder().args(args).start();
    run(&mut worker.admin().await, spec(&["true"])).await.expect("a first job");
    until_equal("it is gone", &0, || census::descendants(worker.spawner_pid()).len());
    let held = Held::by(&worker);
    (Arc::new(worker), held)
}

fn grown_bytes(worker: &Worker, before: u64) -> u64 {
    census::resident_bytes(worker.pid()).saturating_sub(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_large_or_senseless_has_its_answer_and_its_audit_line() {
    let worker = Worker::builder().args(&["--max-request-bytes", "10000"]).start();
    let mut admin = worker.admin().await;
    let refused = start(&mut admin, spec(&["true", &"x".repeat(20_000)])).await.expect_err("too large");
    assert_eq!((refused.code(), details(&refused).0.as_str()), (Code::ResourceExhausted, "CAP_REACHED"));
    let info = refused.get_details_error_info().expect("checked above");
    assert_eq!(info.metadata["cap"], "max-request-bytes", "{refused}");
    start(&mut admin, spec(&["true"])).await.expect("the connection is as good as before");

    let mut connection = Http2::begin(&worker, "bob").await.expect("a connection");
    let senseless = message(4, &[0xff; 4]);
    for (stream, method) in [(1, "Status"), (3, "NoSuchMethod")] {
        let frames = [
            frame(kind::HEADERS, END_HEADERS, stream, &call(method, &[])),
            frame(kind::DATA, END_STREAM, stream, &senseless),
        ];
        assert_eq!(connection.send(&frames.concat()).await, Sent::Taken);
    }
    for (client, method, words) in
        [("alice", "Start", "too large"), ("bob", "Status", "decode"), ("bob", "NoSuchMethod", "")]
    {
        until(&format!("a line for {method} of {client}"), || {
            let lines = worker.audit();
            lines.into_iter().find(|line| {
                let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                text("client") == client
                    && text("decision") == "invalid"
                    && text("action") == format!("/jobworker.v1.JobWorker/{method}")
                    && text("reason").contains(words)
            })
        });
    }
}

/// The beginning of a message, and then nothing for ever.
struct Unfinished {
    left: VecDeque<Bytes>,
    sent: Arc<AtomicUsize>,
}

impl http_body::Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.left.pop_front() else { return Poll::Pending };
        if self.left.is_empty() {
            self.sent.fetch_add(1, Ordering::Release);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_never_whole_take_so_much_memory_and_no_more() {
    const CONNECTIONS: usize = 4;
    const CALLS_EACH: usize = 20;
    const PIECE_BYTES: usize = 16_000;
    // 4 MB of each request, 320 MB in all; none of them is too large, and bob may start nothing anyway.
    const PIECES: usize = 250;
    let (worker, before) = warm(&[]).await;
    let bystander = Bystander::of(&worker);
    bystander.is_served().await;
    let resident_bytes = census::resident_bytes(worker.pid());
    let sent = Arc::new(AtomicUsize::new(0));
    let mut calls = JoinSet::new();
    let begin = message(8_000_000, &[]);
    for _ in 0..CONNECTIONS {
        let (ca, bob) = (worker.pki.ca(), worker.pki.identity("bob"));
        let channel = client::channel(&worker.address, &ca, Some(&bob), rustls::ALL_VERSIONS).await;
        let channel = channel.expect("a connection");
        for _ in 0..CALLS_EACH {
            let piece = Bytes::from(vec![b'x'; PIECE_BYTES]);
            let left = iter::once(Bytes::from(begin.clone())).chain(iter::repeat_n(piece, PIECES)).collect();
            let body = Body::new(Unfinished { left, sent: Arc::clone(&sent) });
            let request = http::Request::post("http://localhost/jobworker.v1.JobWorker/Start");
            let request = request.header("content-type", "application/grpc").body(body).expect("a request");
            let channel = channel.clone();
            calls.spawn(async move { channel.oneshot(request).await.expect("an answer") });
        }
    }
    let mut refused = 0;
    let started = Instant::now();
    while refused + sent.load(Ordering::Acquire) < CONNECTIONS * CALLS_EACH {
        assert!(started.elapsed() < PATIENCE, "{refused} refused, {sent:?} sent");
        let Ok(answer) = timeout(Duration::from_millis(20), calls.join_next()).await else { continue };
        let answer = answer.expect("some are underway").expect("no panic");
        let status = Status::from_header_map(answer.headers()).expect("a status");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        let info = status.get_details_error_info().expect("an ErrorInfo");
        assert_eq!(info.metadata["cap"], "max-request-bytes-per-client", "{status:?}");
        refused += 1;
    }
    assert!(refused > CONNECTIONS * CALLS_EACH / 2, "{refused}: a client may have 32 MiB underway");
    let grown = grown_bytes(&worker, resident_bytes);
    eprintln!("{} KiB for requests underway, {refused} refused", grown / 1024);
    assert!(grown < 128 * MIB, "{} KiB", grown / 1024);
    bystander.is_served().await;
    drop(calls);
    until("the budget is given back, and bob's requests are refused for another reason", || {
        (jobctl_as(&worker, "bob", &["start", "--", "true", &"x".repeat(100_000)]).stderr)
            .contains("permission denied")
            .then_some(())
    });
    bystander.end().await;
    expect_no_more_held(&worker, &before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_end_are_refused() {
    let (worker, before) = warm(&[]).await;
    let bystander = Bystander::of(&worker);
    // More than 16 KiB in all: the call is refused, the connection stays.
    let mut user = worker.user().await;
    let mut request = Request::new(ListRequest::default());
    for number in 0..1000 {
        let key = MetadataKey::from_bytes(format!("key-{number}").as_bytes()).expect("a key");
        request.metadata_mut().insert(key, MetadataValue::from_static("some value"));
    }
    user.list(request).await.expect_err("too many");
    user.list(ListRequest::default()).await.expect("the connection is as good as before");

    let resident_bytes = census::resident_bytes(worker.pid());
    let mut connection = Http2::begin(&worker, "bob").await.expect("a connection");
    let first = frame(kind::HEADERS, 0, 1, &call("List", &[]));
    let filler = call("List", &[("filler", &"x".repeat(15_000))]);
    let more = frame(kind::CONTINUATION, 0, 1, &filler);
    let mut sent = connection.send(&first).await;
    for _ in 0..10_000 {
        if sent != Sent::Taken {
            break;
        }
        sent = connection.send(&more).await;
    }
    assert_eq!(sent, Sent::Closed, "150 MB of headers of one request");
    assert!(grown_bytes(&worker, resident_bytes) < 32 * MIB);
    bystander.is_served().await;
    bystander.end().await;
    drop((user, connection));
    expect_no_more_held(&worker, &before);
}

/// Sends this for one stream after the other, and reads nothing. Whether the worker has had enough.
async fn flood(connection: &mut Http2, streams: u32, frames: impl Fn(u32) -> Vec<u8>) -> Sent {
    for batch in 0..streams / 100 {
        let streams = (0..100).map(|number| 2 * (100 * batch + number) + 1);
        let sent = connection.send(&streams.flat_map(&frames).collect::<Vec<u8>>()).await;
        if sent != Sent::Taken {
            return sent;
        }
    }
    Sent::Taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_taken_back_end_the_connection() {
    let (worker, before) = warm(&[]).await;
    let bystander = Bystander::of(&worker);
    let resident_bytes = census::resident_bytes(worker.pid());
    let list = |stream| frame(kind::HEADERS, END_HEADERS, stream, &call("List", &[]));

    // Reset by the client (CVE-2023-44487).
    let mut connection = Http2::begin(&worker, "bob").await.expect("a connection");
    let cancel = |stream| [list(stream), frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat();
    flood(&mut connection, 100_000, cancel).await;
    let ended = connection.ended().await;
    assert_eq!(ended.goaway.map(|(code, _)| code), Some(ENHANCE_YOUR_CALM));

    // Reset by the worker, for mistakes that cost a client nothing (CVE-2025-8671): a body that is not as long as it says.
    let mut connection = Http2::begin(&worker, "bob").await.expect("a connection");
    let false_length = call("List", &[("content-length", "5")]);
    let mistake = |stream| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &false_length);
    flood(&mut connection, 100_000, mistake).await;
    let ended = connection.ended().await;
    assert_eq!(ended.goaway.map(|(code, _)| code), Some(ENHANCE_YOUR_CALM));

    bystander.is_served().await;
    assert!(grown_bytes(&worker, resident_bytes) < 64 * MIB);
    bystander.end().await;
    expect_no_more_held(&worker, &before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_without_end_are_not_all_answered() {
    const PINGS: usize = 4_000_000;
    let (worker, before) = warm(&[]).await;
    let bystander = Bystander::of(&worker);
    let resident_bytes = census::resident_bytes(worker.pid());
    for question in [frame(kind::PING, 0, 0, &[7; 8]), frame(kind::SETTINGS, 0, 0, &[])] {
        let mut connection = Http2::begin(&worker, "bob").await.expect("a connection");
        let questions = question.repeat(10_000);
        let mut sent = Sent::Taken;
        for _ in 0..PINGS / 10_000 {
            if sent != Sent::Taken {
                break;
            }
            sent = connection.send(&questions).await;
        }
        // Answers that nobody reads fill the buffers in between; the worker holds one, and reads no more.
        assert_ne!(sent, Sent::Taken, "{PINGS} questions");
        bystander.is_served().await;
        let grown = grown_bytes(&worker, resident_bytes);
        assert!(grown < 32 * MIB, "{} KiB", grown / 1024);
    }
    bystander.end().await;
    expect_no_more_held(&worker, &before);
}
