//! `jobctl run`: start, stream, and end as the job ended; Ctrl-C, and readers that go away.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use jobworker_tests::Worker;
use jobworker_tests::wait::{until, until_equal};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Answer, Running, jobctl};

#[test]
fn the_exit_code_is_the_jobs() {
    let worker = Worker::start();
    let table = [("exit 0", 0), ("exit 7", 7), ("exit 137", 137), ("kill -9 $$", 137), ("kill -15 $$", 143)];
    for (script, code) in table {
        let answer = jobctl(&worker, &["run", "--", "sh", "-c", script]).with_code(code);
        let by_itself = script.starts_with("exit");
        assert_eq!(answer.stderr.is_empty(), by_itself, "a note is for the unusual only: {answer:?}");
    }
    let answer = jobctl(&worker, &["run", "--", "sh", "-c", "kill -9 $$"]);
    answer.saying(&["killed by signal 9 (SIGKILL)"]);
    let quiet = jobctl(&worker, &["run", "--quiet", "--", "sh", "-c", "kill -9 $$"]).with_code(137);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_job_that_takes_too_long_is_124() {
    let worker = Worker::start();
    let answer =
        jobctl(&worker, &["run", "--timeout", "300ms", "--", "sh", "-c", "echo begun; exec sleep 300"]);
    let answer = answer.with_code(124).saying(&["timed out after 0.3s"]);
    assert_eq!(answer.stdout, "begun\n");
    jobctl(&worker, &["run", "--timeout", "0s", "--", "true"]).with_code(125).saying(&["at least 1ms"]);
    jobctl(&worker, &["run", "--timeout", "5m", "--", "true"]).with_code(0);
}

#[test]
fn failures_of_jobctl_itself_are_125_or_1() {
    let worker = Worker::start();
    let unreachable = |args: &[&str]| {
        let mut command = worker.jobctl_as("alice", args);
        Answer::of(command.env("JOBCTL_ADDRESS", "127.0.0.1:1"))
    };
    let words = ["cannot reach 127.0.0.1:1", "connection refused"];
    unreachable(&["run", "--", "true"]).with_code(125).saying(&words);
    unreachable(&["list"]).with_code(1).saying(&words);
    jobctl(&worker, &["run"]).with_code(125).saying(&["COMMAND"]);
    jobctl(&worker, &["run", "--no-such-flag", "--", "true"]).with_code(125).saying(&["--no-such-flag"]);
    jobctl(&worker, &["stop"]).with_code(2).saying(&["JOB"]);
    jobctl(&worker, &["wait", "0b5c7b0e"]).with_code(125).saying(&["no job 0b5c7b0e"]);
    for (file, flag) in [("JOBCTL_CA", "--ca"), ("JOBCTL_CERT", "--cert"), ("JOBCTL_KEY", "--key")] {
        let mut command = worker.jobctl_as("alice", &["list"]);
        command.env(file, "/no/such/file.pem");
        Answer::of(&mut command).with_code(1).saying(&[flag, "/no/such/file.pem"]);
    }
}

#[test]
fn something_else_on_the_port_is_named() {
    let worker = Worker::start();
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("an address").to_string();
    let stranger = std::thread::spawn(move || {
        let (mut connection, _) = other.accept().expect("jobctl connects");
        std::io::Write::write_all(&mut connection, b"220 ready for mail\r\n").expect("jobctl listens");
        let _ = connection.read(&mut [0; 4096]);
    });
    let mut command = worker.jobctl_as("alice", &["list"]);
    command.env("JOBCTL_ADDRESS", &address);
    Answer::of(&mut command).with_code(1).saying(&[&address, "does not speak TLS"]);
    stranger.join().expect("it was asked");
}

#[test]
fn ctrl_c_stops_the_job_and_tells_its_end() {
    let worker = Worker::start();
    let script = "trap 'echo cleaning up; exit 7' TERM; echo up; while :; do sleep 0.05; done";
    let mut run = Running::start(worker.jobctl_as("alice", &["run", "--", "sh", "-c", script]));
    run.wait_for_stdout("up");
    interrupt(&run.child);
    run.wait_for_stderr("stopping job");
    run.wait_for_stdout("cleaning up");
    assert_eq!(run.ended().code(), Some(7));
    run.wait_for_stderr("stopped by alice: exited with code 7");
}

#[test]
fn a_second_ctrl_c_leaves_the_job_alone() {
    let worker = Worker::start();
    let id = "0b5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11";
    let script = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let mut run = Running::start(worker.jobctl_as("alice", &["run", "--id", id, "--", "sh", "-c", script]));
    run.wait_for_stdout("up");
    interrupt(&run.child);
    run.wait_for_stderr("once more leaves it");
    let is_stopping = || jobctl(&worker, &["status", id]).with_code(0).stdout.contains("stopping");
    until_equal("the stop was asked for", &true, is_stopping);
    // Those that come together are one: how far apart these are, this machine decides.
    let status = until("jobctl has left", || {
        let _ = kill(pid_of(&run.child), Signal::SIGINT);
        run.child.try_wait().expect("our own child")
    });
    assert_eq!(status.code(), Some(130));
    run.wait_for_stderr(&format!("left job {id}"));
    assert!(is_stopping(), "the job has its grace period all the same");
    jobctl(&worker, &["stop", "--now", id]).with_code(0);
}

fn interrupt(child: &Child) {
    kill(pid_of(child), Signal::SIGINT).expect("jobctl runs");
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid"))
}

/// As a terminal, timeout(1) and other wrappers send them.
#[test]
fn two_signals_close_together_stop_the_job() {
    let worker = Worker::start();
    for round in 0..20 {
        let mut command = worker.jobctl_as("alice", &["run", "--", "sh", "-c", "echo up; exec sleep 300"]);
        if round % 4 == 3 {
            let mut wrapped = Command::new("timeout");
            wrapped.arg("600").arg(command.get_program()).args(command.get_args());
            wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            wrapped.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command = wrapped;
        }
        let mut run = Running::start(command);
        run.wait_for_stdout("up");
        interrupt(&run.child);
        // It may have ended by now.
        let _ = kill(pid_of(&run.child), Signal::SIGTERM);
        assert_eq!(run.ended().code(), Some(143), "{}", run.stderr());
        run.wait_for_stderr("stopped by alice: killed by signal 15");
    }
    let list = jobctl(&worker, &["list"]).with_code(0).stdout;
    assert_eq!(list.matches("stopped by alice").count(), 20, "{list}");
}

#[test]
fn who_hangs_up_leaves_the_job_and_can_come_back() {
    let worker = Worker::start();
    let id = "0b5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11";
    let script = "echo up; while :; do sleep 0.05; done";
    let mut run = Running::start(worker.jobctl_as("alice", &["run", "--id", id, "--", "sh", "-c", script]));
    run.wait_for_stdout("up");
    kill(pid_of(&run.child), Signal::SIGHUP).expect("jobctl runs");
    assert_eq!(run.ended().code(), Some(129));
    run.wait_for_stderr(&format!("left job {id}, which goes on: `jobctl stream {id} --from-offset 3`"));
    assert!(jobctl(&worker, &["status", id]).with_code(0).stdout.contains("running"));
    jobctl(&worker, &["stop", "--now", id]).with_code(0);
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_as_sigpipe_would() {
    let worker = Worker::start();
    let id = "0b5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11";
    let much = "yes line | head -c 50000000; exec sleep 300";
    // As `jobctl run … | head -1`.
    let mut run =
        worker.jobctl_as("alice", &["run", "--id", id, "--", "sh", "-c", much]).spawn().expect("jobctl");
    let mut reader = BufReader::new(run.stdout.take().expect("a pipe"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    assert_eq!(line, "line\n");
    drop(reader);
    let status = until("jobctl has ended", || run.try_wait().expect("our own child"));
    assert_eq!(status.code(), Some(141));
    let mut said = String::new();
    run.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!(said, "");
    until_equal("the job was stopped", &true, || {
        jobctl(&worker, &["status", id]).stdout.contains("stopped by alice")
    });
    // The same for one that streams: that leaves the job alone.
    let job = jobctl(&worker, &["start", "--", "sh", "-c", much]).stdout;
    let mut stream = worker.jobctl_as("bob", &["stream", job.trim_end()]).spawn().expect("jobctl");
    drop(stream.stdout.take());
    assert_eq!(until("jobctl has ended", || stream.try_wait().expect("our own child")).code(), Some(0));
    assert!(jobctl(&worker, &["status", job.trim_end()]).stdout.contains("running"));
}

#[test]
fn output_that_cannot_be_written_is_told() {
    let worker = Worker::start();
    let mut run = worker.jobctl_as("alice", &["run", "--", "sh", "-c", "echo lost"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full is there");
    Answer::of(run.stdout(full)).with_code(125).saying(&["cannot write the output", "No space left"]);
}
