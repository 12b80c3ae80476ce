//! A disk that is full: the job goes on, what could not be stored is told, and the verdict is recorded all the same.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::stream_response::Event;
use jobworker_tests::api::{Cause, Job, OutputStream};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{everything, output, shell, spec, start};
use jobworker_tests::faults::lines::{Expected, length};
use jobworker_tests::wait::PATIENCE;
use jobworker_tests::{Client, Subtree, Worker, census};
use nix::mount::{MsFlags, mount, umount};
use tonic::Code;

use crate::jobs::{assert_ended, finish};
use crate::setup::Turn;

const RUNS: u64 = 50;

/// Lines that a job of a run writes, 75 bytes each, and how many of them at a time.
const LINES: u64 = 4_000;
const BURST: u64 = 16;

/// A small file system of its own, as the state folder of a worker.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path) -> Self {
        let none: Option<&str> = None;
        mount(none, path, Some("tmpfs"), MsFlags::empty(), Some("size=2m,mode=0700"))
            .expect("this is root in a VM");
        Self { path: path.to_owned() }
    }
}

impl SmallDisk {
    /// Takes all space that there is.
    fn fill(&self) {
        let mut ballast =
            OpenOptions::new().append(true).create(true).open(self.ballast()).expect("root may");
        let full = loop {
            if let Err(error) = ballast.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount(&self.path).expect("nobody is left who uses it");
    }
}

#[tokio::test]
async fn a_full_disk_costs_output_and_neither_job_nor_verdict() {
    let _turn = Turn::shared().await;
    let state = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    // Before the worker in this list: dropped after it.
    let _disk = SmallDisk::mount(state.path());
    let subtree = Subtree::new();
    let worker = Worker::builder().state(&state).cgroup(&subtree.path()).start();
    drop(state);
    let mut client = worker.admin().await;

    let job = start(&mut client, shell("head -c 5000000 /dev/zero; echo tail >&2; exit 4")).await;
    let job = job.expect("there is space yet");
    let seen = output(&mut client, everything(&job.id)).await.expect("the output is there");
    let ended = seen.end.expect("the stream ends with the job's end");
    assert_ended(&ended, Cause::Exited, Ended::ExitCode(4));
    assert!(ended.output_lost_bytes > 0, "{ended:#?}");
    assert_eq!(seen.merged.len() as u64 + ended.output_lost_bytes, 5_000_005);
    assert_eq!((seen.gap_bytes, ended.output_bytes), (ended.output_lost_bytes, 5_000_005));

    // The spare shim had its space before, and what the kernel gives back late may do for another.
    let mut folders = census::job_folders(&worker.jobs_dir());
    let mut started = start(&mut client, shell("exit 5")).await;
    for _ in 0..10 {
        let Ok(job) = &started else { break };
        let job = jobworker_tests::client::wait(&mut client, &job.id).await.expect("its end");
        assert_ended(&job, Cause::Exited, Ended::ExitCode(5));
        folders = census::job_folders(&worker.jobs_dir());
        started = start(&mut client, shell("exit 5")).await;
    }
    let refused = started.expect_err("there is no space for it");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("No space left"), "{refused}");
    assert_eq!(census::job_folders(&worker.jobs_dir()), folders, "something is left of the refused job");

    std::fs::remove_file(worker.jobs_dir().join(&job.id).join("output")).expect("root may");
    let (next, _) = finish(&mut client, shell("exit 6")).await;
    assert_ended(&next, Cause::Exited, Ended::ExitCode(6));
}

/// Numbers that a seed repeats.
fn random(state: &mut u64, below: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % below
}

#[tokio::test]
async fn whenever_the_disk_fills_up_every_byte_is_there_or_told_as_gone() {
    let _turn = Turn::shared().await;
    let state = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    let disk = SmallDisk::mount(state.path());
    let subtree = Subtree::new();
    let worker = Worker::builder().state(&state).cgroup(&subtree.path()).start();
    drop(state);
    let mut client = worker.admin().await;
    let (mut state, mut lossy, mut endlessly_full) = (20_261_121, 0, 0);
    for run in 0..RUNS {
        let fill_after = Duration::from_millis(random(&mut state, 300));
        // Or not before the job has ended.
        let free_after = (random(&mut state, 3) > 0).then(|| Duration::from_millis(random(&mut state, 100)));
        let ended = one_run(&mut client, &disk, run, fill_after, free_after).await;
        if ended.output_lost_bytes > 0 {
            lossy += 1;
            endlessly_full += u64::from(free_after.is_none());
            if lossy <= 3 {
                let status = worker.jobctl(&["--output", "json", "status", &ended.id]);
                let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
                assert_eq!(status["output_lost_bytes"], ended.output_lost_bytes);
            }
        }
        for name in ["output", "index"] {
            File::create(worker.jobs_dir().join(&ended.id).join(name)).expect("root may");
        }
    }
    assert!(
        lossy > RUNS / 5 && endlessly_full > 0,
        "{lossy} of {RUNS} runs lost bytes, {endlessly_full} for good"
    );
}

/// One job, whose disk is full for a while.
async fn one_run(
    client: &mut Client,
    disk: &SmallDisk,
    seed: u64,
    fill_after: Duration,
    free_after: Option<Duration>,
) -> Job {
    let actor = binary("actor");
    let command =
        [actor.to_str().expect("UTF-8"), "lines", &seed.to_string(), &LINES.to_string(), &BURST.to_string()];
    let job = start(client, spec(&command)).await.expect("there is space yet");
    let filling = async {
        tokio::time::sleep(fill_after).await;
        disk.fill();
        if let Some(free_after) = free_after {
            tokio::time::sleep(free_after).await;
            disk.free();
        }
    };
    let ((), ended) = tokio::join!(filling, follow(client.clone(), &job.id, seed));
    if free_after.is_none() {
        disk.free();
    }
    ended
}

/// Reads a job's output to its end, and holds every byte and every gap against what it wrote.
async fn follow(mut client: Client, job: &str, seed: u64) -> Job {
    let mut stream = client.stream(everything(job)).await.expect("the job is there").into_inner();
    let [mut stdout, mut stderr] =
        [OutputStream::Stdout, OutputStream::Stderr].map(|stream| Expected::new(seed, stream));
    let (mut next, mut gap_bytes) = (0, 0);
    let ended = loop {
        let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("the job goes on");
        match message.expect("the stream goes on").expect("the job's end").event.expect("an event") {
            Event::Chunk(chunk) => {
                assert_eq!(chunk.offset, next, "run {seed}: a hole, or bytes twice");
                next += chunk.data.len() as u64;
                let expected = if chunk.stream() == OutputStream::Stderr { &mut stderr } else { &mut stdout };
                assert_eq!(expected.check(&chunk.data), 0, "run {seed}: wrong bytes before {next}");
            }
            Event::Gap(gap) => {
                assert_eq!(gap.offset, next, "run {seed}: a hole, or bytes twice");
                next += gap.length;
                gap_bytes += gap.length;
                assert_eq!(stdout.gap(gap.length) + stderr.gap(gap.length), 0, "run {seed}: before {next}");
            }
            Event::End(ended) => break ended,
        }
        let missing = stdout.missing_bytes + stderr.missing_bytes;
        if stdout.is_placed() && stderr.is_placed() {
            assert_eq!(missing, gap_bytes, "run {seed}: before {next}");
        }
    };
    assert_eq!(stdout.settle() + stderr.settle(), 0, "run {seed}: wrong bytes at the end");
    assert_ended(&ended, Cause::Exited, Ended::ExitCode(0));
    let written = length(seed, LINES, OutputStream::Stdout) + length(seed, LINES, OutputStream::Stderr);
    assert_eq!(
        (next, ended.output_bytes, ended.output_lost_bytes),
        (written, written, gap_bytes),
        "run {seed}"
    );
    ended
}
