//! `jobctl` when the worker goes and comes and when the network breaks: every byte once, the job started once, its exit
//! code told.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command};

use jobworker_tests::Worker;
use jobworker_tests::binaries::binary;
use jobworker_tests::proxy::Proxy;
use jobworker_tests::wait::until_equal;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::support::{Answer, Running, jobctl, wait_for_file};

const ID: &str = "0b5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11";
const BYTES: usize = 50_000_000;
const LOST: &str = "lost the connection to the worker (";

/// `jobctl` through a proxy.
fn through(proxy: &Proxy, worker: &Worker, args: &[&str]) -> Command {
    let mut command = worker.jobctl_as("alice", args);
    command.env("JOBCTL_ADDRESS", proxy.address.to_string());
    command
}

/// `jobctl` whose output is read as the test likes.
struct Reading {
    child: Child,
    stdout: ChildStdout,
    stderr: ChildStderr,
    hash: Sha256,
    read_bytes: usize,
}

impl Reading {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("jobctl can be executed");
        let stdout = child.stdout.take().expect("a pipe");
        let stderr = child.stderr.take().expect("a pipe");
        Self { child, stdout, stderr, hash: Sha256::new(), read_bytes: 0 }
    }

    /// Reads until there were so many bytes, or to the end.
    fn read_to(&mut self, bytes: usize) {
        let mut buffer = vec![0; 64 << 10];
        while self.read_bytes < bytes {
            let wanted = buffer.len().min(bytes - self.read_bytes);
            let count = self.stdout.read(&mut buffer[..wanted]).expect("a pipe");
            if count == 0 {
                return;
            }
            self.hash.update(&buffer[..count]);
            self.read_bytes += count;
        }
    }

    /// Reads to the end, compares with the writer's own hash, and gives what jobctl said.
    fn expect_every_byte(mut self) -> String {
        self.read_to(usize::MAX);
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).expect("text");
        assert_eq!(self.child.wait().expect("our own child").code(), Some(0), "{said}");
        assert_eq!(self.read_bytes, BYTES, "{said}");
        let hash: String = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(said.matches(&hash).count(), 1, "stderr has the writer's hash, once: {said}");
        assert_eq!(
            said.matches(LOST).count(),
            said.matches("reconnected to the worker at").count(),
            "{said}"
        );
        said
    }
}

#[test]
fn every_byte_arrives_once_though_the_worker_is_stopped_and_killed_and_started_again() {
    let mut worker = Worker::start();
    let proxy = Proxy::new(&worker.address, []);
    let actor = binary("actor");
    let actor = actor.to_str().expect("a UTF-8 path");
    let size = BYTES.to_string();
    let mut run = Reading::start(through(&proxy, &worker, &["run", "--", actor, "random", &size, "7"]));
    // The reader makes jobctl, and so the stream, wait: none of these comes too late.
    for (bytes, signal) in
        [(1_000_000, Signal::SIGTERM), (2_000_000, Signal::SIGKILL), (25_000_000, Signal::SIGTERM)]
    {
        run.read_to(bytes);
        worker.signal(signal);
        worker.ended();
        proxy.refuse();
        worker = Worker::builder().pki(&worker.pki).state(worker.state()).start();
        proxy.lead_to(&worker.address);
    }
    let said = run.expect_every_byte();
    assert!((1..=3).contains(&said.matches(LOST).count()), "{said}");
}

/// xorshift64: the same cuts in each run.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn every_byte_arrives_once_though_the_connection_is_cut_at_random() {
    let worker = Worker::start();
    let (mut state, small) = (0x5eed_u64, [0, 10, 1_000, 3_000]);
    let large: Vec<u64> = (0..8).map(|_| random(&mut state) % 8_000_000).collect();
    // The first ones break handshakes and answers; a connection that is never made is an error, so not the very first.
    let cuts = [&[2_000_000][..], &small, &large].concat();
    let (number, proxy) = (cuts.len(), Proxy::new(&worker.address, cuts));
    let (actor, size) = (binary("actor"), BYTES.to_string());
    let script = format!("exec {} random {size} 11", actor.display());
    let run = Reading::start(through(&proxy, &worker, &["run", "--id", ID, "--", "sh", "-c", &script]));
    let said = run.expect_every_byte();
    assert_eq!(proxy.cuts_left(), 0, "all {number} cuts were made: {said}");
    let stream = Reading::start(through(&proxy, &worker, &["stream", ID]));
    assert_eq!(stream.expect_every_byte().matches(LOST).count(), 0);
}

#[test]
fn lines_of_one_stream_have_their_times_across_cuts() {
    let worker = Worker::start();
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; echo other $i >&2; done";
    jobctl(&worker, &["run", "--id", ID, "--", "sh", "-c", script]).with_code(0);
    let args = ["stream", "--stdout", "--timestamps", ID];
    let expected = jobctl(&worker, &args).with_code(0).stdout;
    assert_eq!(expected.lines().count(), 20_000);
    let proxy = Proxy::new(&worker.address, [20_000, 30_000, 50_001, 40_003]);
    let cut = Answer::of(&mut through(&proxy, &worker, &args)).with_code(0).saying(&[LOST]);
    assert_eq!(proxy.cuts_left(), 0);
    assert!(cut.stdout == expected, "{}", cut.stderr);
}

/// A job that writes to a file that it was executed, each time it is.
fn traced(trace: &Path) -> String {
    format!("echo executed >> {}", trace.display())
}

#[test]
fn a_start_whose_answer_was_cut_off_runs_once() {
    let worker = Worker::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut repeated = 0;
    // From the middle of the handshake to behind the answer.
    for cut in (1_200..3_200).step_by(100) {
        let trace = folder.path().join(cut.to_string());
        let proxy = Proxy::new(&worker.address, [cut, cut + 50]);
        let answer = Answer::of(&mut through(&proxy, &worker, &["start", "--", "sh", "-c", &traced(&trace)]));
        repeated += answer.stderr.matches(LOST).count();
        if answer.code == Some(0) {
            jobctl(&worker, &["wait", answer.stdout.trim_end()]).with_code(0);
            assert_eq!(fs::read_to_string(&trace).expect("it ran"), "executed\n", "cut after {cut} bytes");
        } else {
            assert!(
                !trace.exists() && !answer.stderr.contains("reconnecting"),
                "never connected: {answer:?}"
            );
        }
    }
    assert!(repeated > 0, "no cut came between the handshake and the answer");
}

#[test]
fn wait_and_ctrl_c_reach_the_worker_that_comes_back() {
    let mut worker = Worker::start();
    let proxy = Proxy::new(&worker.address, []);
    let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done";
    let mut run = Running::start(through(&proxy, &worker, &["run", "--id", ID, "--", "sh", "-c", script]));
    run.wait_for_stdout("up");
    let mut wait = Running::start(through(&proxy, &worker, &["wait", ID]));
    until_equal("wait is served", &true, || worker.audit().iter().any(|line| line["action"] == "wait"));
    worker.signal(Signal::SIGKILL);
    worker.ended();
    proxy.refuse();
    run.wait_for_stderr(LOST);
    wait.wait_for_stderr(LOST);
    kill(Pid::from_raw(i32::try_from(run.child.id()).expect("a pid")), Signal::SIGINT).expect("jobctl runs");
    run.wait_for_stderr("as soon as the worker is there again");
    let worker = Worker::builder().pki(&worker.pki).state(worker.state()).start();
    proxy.lead_to(&worker.address);
    assert_eq!((run.ended().code(), wait.ended().code()), (Some(7), Some(7)));
    run.wait_for_stderr("stopped by alice: exited with code 7");
}

#[test]
fn what_ended_meanwhile_is_told_by_the_next_worker() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let mut worker = Worker::start();
    let proxy = Proxy::new(&worker.address, []);
    let script = format!("echo before; {}; echo after; exit 5", wait_for_file(&gate));
    let mut run = Running::start(through(&proxy, &worker, &["run", "--id", ID, "--", "sh", "-c", &script]));
    run.wait_for_stdout("before");
    worker.signal(Signal::SIGTERM);
    worker.ended();
    proxy.refuse();
    run.wait_for_stderr(LOST);
    fs::write(&gate, "").expect("a writable folder");
    let state = worker.jobs_dir().join(ID).join("state.json");
    until_equal("the job has ended", &true, || {
        fs::read_to_string(&state).is_ok_and(|state| state.contains("finished"))
    });
    let worker = Worker::builder().pki(&worker.pki).state(worker.state()).start();
    proxy.lead_to(&worker.address);
    run.wait_for_stdout("after");
    assert_eq!(run.ended().code(), Some(5));
}
