//! `jobctl run`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command};

use jobworker_proto::v1::{
    self, Cause, ErrorReason, Job, LimitsInForce, OutputStream, Usage, outcome::Ended,
};
use nix::sys::signal::Signal;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::fake_worker::{FakeWorker, ID, Script, Step, chunk, stderr, stdout};
use crate::interrupts::insist;
use crate::jobctl::{Ran, World, exited, outcome, send, show};

fn ending(outcome: Option<v1::Outcome>) -> World {
    World::new(Script { steps: vec![Step::End], outcome, ..Default::default() })
}

#[test]
fn exits_with_the_jobs_code() {
    let lost =
        v1::Outcome { cause: Cause::Lost.into(), reason: "the host restarted".into(), ..Default::default() };
    let table = [
        (exited(0), 0, ""),
        (exited(137), 137, ""),
        (outcome(Cause::Signaled, Ended::Signal(9)), 137, "killed by signal 9 (SIGKILL)"),
        (outcome(Cause::Signaled, Ended::Signal(37)), 165, "killed by signal 37 (SIGRTMIN+3)"),
        (outcome(Cause::Stopped, Ended::ExitCode(7)), 7, "stopped: exited with code 7"),
        (outcome(Cause::Stopped, Ended::Signal(15)), 143, "stopped: killed by signal 15 (SIGTERM)"),
        (outcome(Cause::TimedOut, Ended::Signal(15)), 124, "timed out"),
        (outcome(Cause::OutOfMemory, Ended::Signal(9)), 137, "out of memory"),
        (Some(lost), 125, "lost: the host restarted"),
    ];
    for (outcome, code, words) in table {
        let ran = ending(outcome).run(&["run", "--", "true"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
        assert!(ran.stderr.contains(words) && ran.stderr.is_empty() == words.is_empty(), "{ran:?}");
    }
}

#[test]
fn says_how_the_job_ended_unless_quiet() {
    let now = Job {
        limits_in_force: Some(LimitsInForce { memory_max_bytes: Some(64 << 20), ..Default::default() }),
        usage: Some(Usage { memory_peak_bytes: Some(64 << 20), ..Default::default() }),
        ..Default::default()
    };
    let mut outcome = outcome(Cause::OutOfMemory, Ended::Signal(9));
    outcome.as_mut().expect("set").own_memory_limit = true;
    let world = World::new(Script { steps: vec![Step::End], outcome, now, ..Default::default() });
    let ran = world.run(&["run", "hog"]);
    show("out of memory", &ran);
    assert_eq!(ran.stderr, format!("jobctl: job {ID}: out of memory (limit 64 MiB, peak 64 MiB)\n"));
    let ran = world.run(&["run", "-q", "hog"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(137), ""));
}

#[test]
fn splits_the_streams_and_passes_bytes_unchanged() {
    let data: Vec<u8> = (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let mut steps: Vec<_> = data.chunks(99_991).map(stdout).collect();
    steps.insert(3, stderr(b"oops\xff"));
    steps.extend([stdout(b"x"), Step::End]);
    let world = World::new(Script { steps, outcome: exited(3), ..Default::default() });
    let output = world.command(&["run", "random"]).output().expect("jobctl runs");
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout == [&data[..], b"x"].concat(), "{} bytes", output.stdout.len());
    assert_eq!(output.stderr, b"oops\xff");
}

#[test]
fn the_worker_gets_what_the_command_line_says() {
    let world = ending(exited(0));
    let args =
        "run --cpu-limit -1 --memory-limit 64MiB --io-limit /data:1M --env A=b --timeout 5s sh -c exit";
    assert_eq!(world.run(&args.split(' ').collect::<Vec<_>>()).code, Some(0));
    let spec = world.worker.asked(|asked| asked.starts[0].spec.clone()).expect("a spec");
    assert_eq!((spec.command, spec.args), (b"sh".to_vec(), vec![b"-c".to_vec(), b"exit".to_vec()]));
    let limits = spec.limits.expect("limits");
    assert_eq!(
        (limits.cpu.as_str(), limits.memory.as_str(), limits.io),
        ("-1", "64MiB", vec!["/data:1M".to_owned()])
    );
    assert_eq!((spec.timeout_msec, spec.env.len()), (Some(5000), 1));
}

#[test]
fn commands_that_cannot_start_have_the_shells_codes() {
    let table = [
        (ErrorReason::CommandNotFound, Code::InvalidArgument, 127),
        (ErrorReason::CommandNotExecutable, Code::InvalidArgument, 126),
        (ErrorReason::ControllerMissing, Code::FailedPrecondition, 125),
    ];
    for (reason, code, exit_code) in table {
        let details = ErrorDetails::with_error_info(reason.as_str_name(), "jobworker", []);
        let refusal = Some(Status::with_error_details(code, "command: \"mkae\" can't start", details));
        let world = World::new(Script { refusal, ..Default::default() });
        let ran = world.run(&["run", "mkae"]);
        assert_eq!(ran.code, Some(exit_code), "{reason:?}");
        assert_eq!(ran.stderr, "jobctl: command: \"mkae\" can't start\n");
        assert_eq!(world.run(&["start", "mkae"]).code, Some(1));
    }
}

#[test]
fn the_output_is_asked_for_in_the_same_flight_as_the_start() {
    let steps = vec![stdout(b"hi\n"), Step::End];
    let world = World::new(Script { steps, outcome: exited(3), start_waits: true, ..Default::default() });
    let ran = world.run(&["run", "true"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(3), "hi\n", ""));
    let (started, streamed) = world.worker.asked(|asked| (asked.starts[0].id.clone(), asked.streams.clone()));
    assert_eq!(streamed.len(), 1);
    assert_eq!(streamed[0].job, started);
}

#[test]
fn the_output_is_asked_for_again_where_the_job_was_not_known_yet() {
    let steps = vec![stdout(b"hi\n"), Step::End];
    let world = World::new(Script { steps, outcome: exited(3), knows_late: true, ..Default::default() });
    let ran = world.run(&["run", "true"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(3), "hi\n", ""));
    assert_eq!(world.worker.asked(|asked| (asked.starts.len(), asked.streams.len())), (1, 2));
}

#[test]
fn a_refused_start_shows_nothing_of_a_job_with_that_id() {
    let refusal = Some(Status::already_exists("another job has this id"));
    let steps = vec![stdout(b"another job's\n"), Step::End];
    let world = World::new(Script {
        steps,
        outcome: exited(0),
        start_waits: true,
        start_refusal: refusal,
        ..Default::default()
    });
    let ran = world.run(&["run", "--id", ID, "true"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(125), ""));
    assert_eq!(ran.stderr, "jobctl: another job has this id\n");
}

#[test]
fn a_broken_stream_says_where_to_go_on() {
    let steps =
        vec![stdout(b"12345"), Step::Fail(Status::unavailable("the worker is going down; jobs live on"))];
    let ran = World::new(Script { steps, ..Default::default() }).run(&["run", "--no-reconnect", "make"]);
    show("broken stream", &ran);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(125), "12345"));
    assert!(ran.stderr.contains("jobs live on") && ran.stderr.contains("--from-offset 5"), "{ran:?}");
}

/// Starts `jobctl run` and reads the job's first line.
fn begin(world: &World) -> (Child, BufReader<impl Read + use<>>) {
    begin_with(world.command(&["run", "server"]))
}

/// The same for any command.
pub(crate) fn begin_with(mut command: Command) -> (Child, BufReader<impl Read + use<>>) {
    let mut child = command.spawn().expect("jobctl runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("the first line");
    assert_eq!(line, "ready\n");
    (child, stdout)
}

fn was_stopped(worker: &FakeWorker) {
    worker.wait_until(|asked| asked.stops.len() == 1);
}

pub(crate) fn finish(child: Child) -> Ran {
    Ran::from(child.wait_with_output().expect("jobctl ends"))
}

#[test]
fn an_interrupt_stops_the_job_and_its_last_words_are_heard() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let steps = vec![stdout(b"ready\n"), Step::UntilStopped, stdout(b"bye\n"), Step::End];
        let outcome = outcome(Cause::Stopped, Ended::ExitCode(7));
        let world = World::new(Script { steps, outcome, ..Default::default() });
        let (child, mut stdout) = begin(&world);
        send(&child, signal);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).expect("the rest");
        let ran = finish(child);
        show("Ctrl-C", &ran);
        assert_eq!((rest.as_str(), ran.code), ("bye\n", Some(7)), "{ran:?}");
        let stop = world.worker.asked(|asked| asked.stops[0].clone());
        assert_eq!((stop.signal.as_str(), stop.grace_msec), ("", None), "the worker's default stop");
    }
}

#[test]
fn a_second_interrupt_leaves() {
    let world = World::new(Script { steps: vec![stdout(b"ready\n"), Step::Forever], ..Default::default() });
    let (mut child, _stdout) = begin(&world);
    send(&child, Signal::SIGINT);
    was_stopped(&world.worker);
    insist(&mut child);
    let ran = finish(child);
    show("Ctrl-C twice", &ran);
    let id = world.worker.asked(|asked| asked.starts[0].id.clone());
    assert_eq!(ran.code, Some(130));
    assert!(ran.stderr.contains(&format!("jobctl stop --now {id}")), "{ran:?}");
}

#[test]
fn an_interrupt_works_while_nobody_reads_the_output() {
    let flood = Step::Endless(chunk(OutputStream::Stdout, &[b'x'; 100_000]));
    let world = World::new(Script { steps: vec![stdout(b"ready\n"), flood], ..Default::default() });
    let (mut child, _stdout) = begin(&world);
    send(&child, Signal::SIGINT);
    was_stopped(&world.worker);
    insist(&mut child);
    assert_eq!(finish(child).code, Some(130));
}

#[test]
fn a_full_disk_is_an_error() {
    let world = World::new(Script {
        steps: vec![stdout(b"ready\n"), Step::End],
        outcome: exited(0),
        ..Default::default()
    });
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let ran = Ran::from(world.command(&["run", "x"]).stdout(full).output().expect("jobctl runs"));
    assert_eq!(ran.code, Some(125));
    assert!(ran.stderr.contains("cannot write the output: No space left"), "{ran:?}");
}
