//! The connection breaks, or the worker goes and comes back: what `stream`, `run`, `wait` and `start` make of it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use jobworker_proto::v1::stream_request::From;
use jobworker_proto::v1::{Cause, ErrorReason, OutputStream, outcome::Ended};
use nix::sys::signal::Signal;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::fake_worker::{FakeWorker, ID, Script, Step, stderr, stdout};
use crate::interrupts::insist;
use crate::jobctl::{World, exited, outcome, send, show};
use crate::pki::Pki;
use crate::run::{begin_with, finish};

fn shutting_down() -> Status {
    let details = ErrorDetails::with_error_info(ErrorReason::ShuttingDown.as_str_name(), "jobworker", []);
    Status::with_error_details(Code::Unavailable, "the worker is going down; jobs live on", details)
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

const LOST: &str = "jobctl: lost the connection to the worker (";

/// Output with a cut behind each of its pieces, and one for a worker that goes down.
fn broken_output(pieces: usize) -> (Vec<u8>, Vec<Step>) {
    let data: Vec<u8> = (0..400_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let pieces = data.chunks(data.len().div_ceil(pieces));
    let mut steps: Vec<_> = pieces.flat_map(|piece| [stdout(piece), Step::CutOnce]).collect();
    steps.insert(1, Step::FailOnce(shutting_down()));
    steps.push(Step::End);
    (data, steps)
}

#[test]
fn the_output_is_complete_and_no_byte_comes_twice() {
    let (data, steps) = broken_output(4);
    for command in [&["run", "random"][..], &["stream", ID]] {
        let script = Script { steps: steps.clone(), outcome: exited(0), ..Default::default() };
        let world = World::new(script);
        let output = world.command(command).output().expect("jobctl runs");
        let notes = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(0), "{notes}");
        assert!(output.stdout == data, "{} bytes\n{notes}", output.stdout.len());
        assert_eq!((count(&notes, LOST), count(&notes, "jobctl: reconnected to")), (5, 5), "{notes}");
        assert!(notes.contains("(the worker is going down; jobs live on); reconnecting\n"), "{notes}");
    }
}

#[test]
fn a_resumed_stream_asks_for_the_next_byte_of_the_same_selection() {
    let steps =
        vec![Step::CutOnce, stderr(b"oops"), Step::FailOnce(shutting_down()), stderr(b"!"), Step::End];
    let world = World::new(Script { steps, ..Default::default() });
    let ran = world.run(&["stream", ID, "--stderr", "--tail", "3", "--no-follow"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{ran:?}");
    let expected = [Some(From::TailLines(3)), Some(From::TailLines(3)), Some(From::Offset(4))];
    world.worker.asked(|asked| {
        let from: Vec<_> = asked.streams.iter().map(|stream| stream.from).collect();
        assert_eq!(from, expected);
        assert!(asked.streams.iter().all(|stream| stream.only() == OutputStream::Stderr && stream.no_follow));
    });
}

/// What came in between would be missing: the last lines are others by then.
#[test]
fn what_comes_in_an_outage_before_the_first_byte_is_asked_for() {
    let steps = vec![Step::FailOnce(shutting_down()), stdout(b"meanwhile\n"), Step::End];
    let world = World::new(Script { steps, begins_at: Some(0), ..Default::default() });
    let ran = world.run(&["stream", ID, "--tail", "0"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "meanwhile\n"), "{ran:?}");
    world.worker.asked(|asked| {
        let from: Vec<_> = asked.streams.iter().map(|stream| stream.from).collect();
        assert_eq!(from, [Some(From::TailLines(0)), Some(From::Offset(0))]);
    });
}

#[test]
fn a_line_that_was_cut_has_one_time() {
    let steps = vec![stdout(b"one\ntw"), Step::FailOnce(shutting_down()), stdout(b"o\nthree\n"), Step::End];
    let ran = World::new(Script { steps, ..Default::default() }).run(&["stream", "--timestamps", ID]);
    let stamp = "1970-01-01T00:00:01.500000+00:00";
    assert_eq!(ran.stdout, format!("{stamp} one\n{stamp} two\n{stamp} three\n"));
}

#[test]
fn a_start_that_broke_in_flight_is_repeated_with_its_id() {
    let world = World::new(Script { unanswered: 2, ..Default::default() });
    let ran = world.run(&["start", "make", "-j4"]);
    show("a start in two outages", &ran);
    assert_eq!((ran.code, count(&ran.stderr, LOST)), (Some(0), 2), "{ran:?}");
    world.worker.asked(|asked| {
        assert_eq!(asked.starts.len(), 3);
        assert!(asked.starts.iter().all(|start| *start == asked.starts[0]), "{asked:?}");
        assert_eq!(ran.stdout, format!("{}\n", asked.starts[0].id));
    });
}

#[test]
fn a_start_in_doubt_names_the_job() {
    for (command, code) in [("start", 1), ("run", 125)] {
        let world = World::new(Script { unanswered: 1, ..Default::default() });
        let ran = world.run(&[command, "--no-reconnect", "make"]);
        show("a start without an answer", &ran);
        let id = world.worker.asked(|asked| asked.starts[0].id.clone());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""));
        let words = format!(
            "jobctl: job {id} may have been started, `jobctl status {id}` tells: lost the connection"
        );
        assert!(ran.stderr.starts_with(&words), "{ran:?}");
    }
}

#[test]
fn wait_is_repeated() {
    let world = World::new(Script { unanswered: 2, outcome: exited(3), ..Default::default() });
    let ran = world.run(&["wait", ID]);
    assert_eq!((ran.code, count(&ran.stderr, LOST)), (Some(3), 2), "{ran:?}");
    assert_eq!(world.worker.asked(|asked| asked.waits.len()), 3);
}

/// A wait has no answer until the job ends, so the worker is asked whether it is there.
#[test]
fn a_wait_goes_on_as_long_as_the_worker_answers() {
    let world = World::new(Script { unanswered: 4, outcome: exited(3), ..Default::default() });
    // Four pauses are 1.5 s.
    let ran = world.run(&["wait", "--reconnect-timeout", "1s", ID]);
    assert_eq!((ran.code, count(&ran.stderr, LOST)), (Some(3), 4), "{ran:?}");
}

#[test]
fn what_the_worker_answers_is_not_asked_again() {
    let spawner = ErrorDetails::with_error_info("SPAWNER_UNAVAILABLE", "jobworker", []);
    let refusals = [
        Status::with_error_details(Code::Unavailable, "the spawner can't be reached", spawner),
        Status::permission_denied("role user may not start"),
        Status::not_found("job: no job 1234"),
        Status::unauthenticated("certificate expired"),
    ];
    for refusal in refusals {
        let world = World::new(Script { refusal: Some(refusal), ..Default::default() });
        for command in [&["start", "true"][..], &["run", "true"], &["wait", ID], &["stream", ID]] {
            let ran = world.run(command);
            assert_ne!(ran.code, Some(0));
            assert!(!ran.stderr.contains("reconnect"), "{ran:?}");
        }
        // Of `run`, which asks for the output along with the start, and of `stream`.
        world.worker.wait_until(|asked| asked.streams.len() == 2);
        let asked = world.worker.asked(|asked| (asked.starts.len(), asked.waits.len(), asked.streams.len()));
        assert_eq!(asked, (2, 1, 2));
    }
}

#[test]
fn reconnecting_can_be_forbidden() {
    for (args, variable) in [(&["--no-reconnect"][..], "0"), (&[], "1")] {
        let steps = vec![stdout(b"12345"), Step::FailOnce(shutting_down()), Step::End];
        let world = World::new(Script { steps, ..Default::default() });
        let mut command = world.command(&[&["stream", ID][..], args].concat());
        let output = command.env("JOBCTL_NO_RECONNECT", variable).output().expect("jobctl runs");
        let notes = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b"12345"[..]));
        assert!(notes.contains("jobs live on") && notes.contains("--from-offset 5"), "{notes}");
        assert!(!notes.contains("reconnecting"), "{notes}");
    }
}

fn ready(rest: &[Step], outcome: Option<jobworker_proto::v1::Outcome>) -> Script {
    Script { steps: [&[stdout(b"ready\n")], rest].concat(), outcome, ..Default::default() }
}

/// The next line that jobctl says on stderr.
fn next_note(stderr: &mut impl BufRead) -> String {
    let mut line = String::new();
    stderr.read_line(&mut line).expect("jobctl says something");
    line
}

fn stderr_of(child: &mut Child) -> BufReader<impl Read + use<>> {
    BufReader::new(child.stderr.take().expect("piped"))
}

#[test]
fn a_worker_that_stays_away_is_given_up() {
    let world = World::new(ready(&[Step::Forever], None));
    let (child, _stdout) = begin_with(world.command(&["run", "--reconnect-timeout", "300ms", "server"]));
    // The certificates stay where they are.
    let World { pki: _pki, worker } = world;
    let address = worker.address;
    drop(worker);
    let ran = finish(child);
    show("a worker that stays away", &ran);
    assert_eq!((ran.code, count(&ran.stderr, LOST)), (Some(125), 1), "{ran:?}");
    let words = format!("gave up connecting anew after 300ms: cannot reach {address}: connection refused");
    assert!(ran.stderr.contains(&words) && ran.stderr.contains("--from-offset 6"), "{ran:?}");
}

#[test]
fn an_interrupt_meanwhile_stops_the_job_when_the_worker_is_back() {
    let World { pki, worker } = World::new(ready(&[Step::Forever], None));
    let command = crate::jobctl::as_client(&pki, "alice", worker.address, &["run", "server"]);
    let (mut child, mut stdout) = begin_with(command);
    let mut stderr = stderr_of(&mut child);
    let address = worker.address;
    drop(worker);
    let note = next_note(&mut stderr);
    assert!(note.starts_with(LOST) && note.ends_with("; reconnecting\n"), "{note}");
    send(&child, Signal::SIGINT);
    let note = next_note(&mut stderr);
    assert!(note.contains("as soon as the worker is there again; once more leaves it"), "{note}");
    let stopped = outcome(Cause::Stopped, Ended::ExitCode(7));
    let script = ready(&[Step::UntilStopped, crate::fake_worker::stdout(b"bye\n"), Step::End], stopped);
    let worker = FakeWorker::at(address, &pki, script);
    assert_eq!(next_note(&mut stderr), format!("jobctl: reconnected to the worker at {address}\n"));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the rest");
    assert_eq!((rest.as_str(), finish(child).code), ("bye\n", Some(7)));
    assert_eq!(worker.asked(|asked| asked.stops.len()), 1);
}

#[test]
fn a_stop_that_never_reached_the_worker_is_told() {
    let World { pki, worker } = World::new(ready(&[Step::Forever], None));
    let args = ["run", "--reconnect-timeout", "1s", "server"];
    let (mut child, _stdout) = begin_with(crate::jobctl::as_client(&pki, "alice", worker.address, &args));
    let mut stderr = stderr_of(&mut child);
    let id = worker.asked(|asked| asked.starts[0].id.clone());
    drop(worker);
    next_note(&mut stderr);
    send(&child, Signal::SIGINT);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("the rest");
    assert_eq!(finish(child).code, Some(125), "{rest}");
    assert!(rest.contains("gave up") && rest.contains(&format!("`jobctl stop {id}`")), "{rest}");
}

#[test]
fn a_second_interrupt_meanwhile_leaves() {
    let World { pki, worker } = World::new(ready(&[Step::Forever], None));
    let command = crate::jobctl::as_client(&pki, "alice", worker.address, &["run", "server"]);
    let (mut child, _stdout) = begin_with(command);
    let mut stderr = stderr_of(&mut child);
    drop(worker);
    next_note(&mut stderr);
    send(&child, Signal::SIGINT);
    next_note(&mut stderr);
    insist(&mut child);
    let note = next_note(&mut stderr);
    assert!(note.contains("without a connection to the worker; `jobctl stop"), "{note}");
    assert_eq!(finish(child).code, Some(130));
}

#[test]
fn somebody_else_in_the_workers_place_is_not_trusted() {
    let World { pki, worker } = World::new(ready(&[Step::Forever], None));
    let command = crate::jobctl::as_client(&pki, "alice", worker.address, &["run", "server"]);
    let (child, _stdout) = begin_with(command);
    let address = worker.address;
    drop(worker);
    let _other = FakeWorker::at(address, &Pki::new(), Script::default());
    let ran = finish(child);
    show("another CA", &ran);
    assert_eq!(ran.code, Some(125));
    assert!(
        ran.stderr.contains("cannot trust the worker") && ran.stderr.contains("--from-offset 6"),
        "{ran:?}"
    );
}

#[test]
fn the_kernel_watches_over_an_idle_connection() {
    let world = World::new(ready(&[Step::Forever], None));
    let (mut child, _stdout) = begin_with(world.command(&["run", "server"]));
    // proc_net_tcp(5): remote address, then queues, then which timer runs: 02 is keepalive, and 01 runs until what was sent
    // last is acknowledged.
    let remote = format!("0100007F:{:04X}", world.worker.address.port());
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", child.id())).expect("/proc/net/tcp");
        let line =
            table.lines().find(|line| line.split_whitespace().nth(2) == Some(&remote)).expect("its line");
        if line.split_whitespace().nth(5).expect("a timer").starts_with("02:") {
            break;
        }
        assert!(Instant::now() < deadline, "{line}");
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("it runs");
    child.wait().expect("our own child");
}
