//! Much output and many readers: each gets every byte, and none holds up the job or another one.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jobworker_tests::api::JobSpec;
use jobworker_tests::api::stream_response::Event;
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{Windows, channel_with, everything, shell, start, wait};
use jobworker_tests::wait::PATIENCE;
use jobworker_tests::{Client, Worker};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::sync::oneshot::{self, Receiver};
use tokio::time::{sleep, timeout};

use crate::support::wait_for_file;

const VOLUME_BYTES: u64 = 200_000_000;

/// What a reader has got so far.
#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    changed: Notify,
}

impl Progress {
    async fn reach(&self, bytes: u64) {
        while self.bytes.load(Ordering::Acquire) < bytes {
            self.changed.notified().await;
        }
    }
}

/// One reader's stdout, hashed, and all of stderr, where the writer's own hash stands.
struct Received {
    hash: String,
    told: String,
    bytes: u64,
}

/// Reads to the end. `pause`: after the first bytes of stdout, until then.
async fn receive(
    mut client: Client,
    job: String,
    progress: Arc<Progress>,
    mut pause: Option<Receiver<()>>,
) -> Received {
    let mut stream = client.stream(everything(&job)).await.expect("the output").into_inner();
    let (mut hash, mut told, mut bytes) = (Sha256::new(), Vec::new(), 0);
    let mut expected_offset = 0;
    loop {
        let message = stream.message().await.expect("no error").expect("the end comes first");
        match message.event.expect("an event") {
            Event::Chunk(chunk) => {
                assert_eq!(chunk.offset, expected_offset, "no byte is left out, none comes twice");
                expected_offset += chunk.data.len() as u64;
                if chunk.stream == 2 {
                    told.extend_from_slice(&chunk.data);
                    progress.changed.notify_one();
                    continue;
                }
                hash.update(&chunk.data);
                if let Some(pause) = pause.take() {
                    pause.await.expect("the test ends it");
                }
                bytes += chunk.data.len() as u64;
                progress.bytes.store(bytes, Ordering::Release);
                progress.changed.notify_one();
            }
            Event::Gap(gap) => panic!("a gap: {gap:?}"),
            Event::End(_) => break,
        }
    }
    let hash = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Received { hash, told: String::from_utf8(told).expect("a hash"), bytes }
}

/// Random bytes to stdout once the gate is there; their SHA-256 to stderr.
fn writer(gate: &Path, bytes: u64) -> JobSpec {
    shell(&format!("{}; exec {} random {bytes} 4711", wait_for_file(gate), binary("actor").display()))
}

#[track_caller]
fn expect_whole(received: &Received, bytes: u64) {
    assert_eq!(received.bytes, bytes);
    assert_eq!(received.told.trim_end(), received.hash, "the writer's own hash");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_late_and_after_the_end_everybody_gets_every_byte() {
    let worker = Worker::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let mut admin = worker.admin().await;
    let job = start(&mut admin, writer(&gate, VOLUME_BYTES)).await.expect("a job").id;
    let progress = Arc::new(Progress::default());
    let mut readers = Vec::new();
    for _ in 0..3 {
        let (client, progress) = (worker.user().await, Arc::clone(&progress));
        readers.push(tokio::spawn(receive(client, job.clone(), progress, None)));
    }
    fs::write(&gate, "").expect("a writable folder");
    progress.reach(VOLUME_BYTES / 2).await;
    let late = receive(worker.user().await, job.clone(), Arc::default(), None);
    readers.push(tokio::spawn(late));
    for reader in readers {
        expect_whole(&reader.await.expect("no panic"), VOLUME_BYTES);
    }
    let ended = wait(&mut admin, &job).await.expect("the end");
    assert_eq!((ended.output_bytes, ended.output_lost_bytes), (VOLUME_BYTES + 65, 0), "and a line of hash");
    let after = receive(worker.user().await, job.clone(), Arc::default(), None).await;
    expect_whole(&after, VOLUME_BYTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_for_ten_seconds_delays_nobody_and_loses_nothing() {
    const BYTES: u64 = 40_000_000;
    const STOPS: Duration = Duration::from_secs(10);
    let worker = Worker::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let mut admin = worker.admin().await;
    let job = start(&mut admin, writer(&gate, BYTES)).await.expect("a job").id;
    let (go_on, stopped) = oneshot::channel();
    let slow = tokio::spawn(receive(worker.user().await, job.clone(), Arc::default(), Some(stopped)));
    let quick = tokio::spawn(receive(worker.user().await, job.clone(), Arc::default(), None));
    fs::write(&gate, "").expect("a writable folder");
    let started = Instant::now();
    let quick = timeout(PATIENCE, quick).await.expect("the other one does not have to wait");
    expect_whole(&quick.expect("no panic"), BYTES);
    timeout(PATIENCE, wait(&mut admin, &job)).await.expect("nor does the job").expect("it ends");
    sleep(STOPS.saturating_sub(started.elapsed())).await;
    go_on.send(()).expect("it has not read on");
    expect_whole(&slow.await.expect("no panic"), BYTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_windows_cut_every_message_and_no_byte_is_lost() {
    const BYTES: u64 = 3_000_000;
    // A stream's window is far below a message, and not even a frame's size; then three share a connection's.
    const WINDOWS: Windows = Windows { stream_bytes: 1009, connection_bytes: 65_535 };
    let worker = Worker::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let mut admin = worker.admin().await;
    let job = start(&mut admin, writer(&gate, BYTES)).await.expect("a job").id;
    let identity = worker.pki.identity("bob");
    let (address, ca) = (&worker.address, worker.pki.ca());
    let narrow = channel_with(WINDOWS, address, &ca, Some(&identity), rustls::ALL_VERSIONS).await;
    let narrow = Client::new(narrow.expect("a connection"));
    let read = || tokio::spawn(receive(narrow.clone(), job.clone(), Arc::default(), None));
    let following = [read(), read()];
    fs::write(&gate, "").expect("a writable folder");
    timeout(PATIENCE, wait(&mut admin, &job)).await.expect("nobody holds it up").expect("it ends");
    for reader in following.into_iter().chain([read()]) {
        let received = timeout(PATIENCE, reader).await.expect("it goes on").expect("no panic");
        expect_whole(&received, BYTES);
    }
}

#[test]
fn jobctl_hands_on_every_byte() {
    let worker = Worker::start();
    let actor = binary("actor");
    let actor = actor.to_str().expect("a UTF-8 path");
    let ran = worker.jobctl(&["run", "--", actor, "random", "50000000", "42"]);
    assert_eq!((ran.status.code(), ran.stdout.len()), (Some(0), 50_000_000));
    let hash: String = Sha256::digest(&ran.stdout).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(String::from_utf8_lossy(&ran.stderr).trim_end(), hash);
}
