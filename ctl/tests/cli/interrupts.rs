//! Signals that reach `jobctl run` and `start`: what each does, and what becomes of the job.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use jobworker_proto::v1::{Cause, outcome::Ended};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tonic::Status;

use crate::fake_worker::{Script, Step, stdout};
use crate::jobctl::{Ran, World, outcome, send};
use crate::run::{begin_with, finish};

/// A job that says `ready`, and `bye` once it is stopped.
fn stoppable() -> World {
    let steps = vec![stdout(b"ready\n"), Step::UntilStopped, stdout(b"bye\n"), Step::End];
    let outcome = outcome(Cause::Stopped, Ended::ExitCode(7));
    World::new(Script { steps, outcome, ..Default::default() })
}

fn endless() -> World {
    World::new(Script { steps: vec![stdout(b"ready\n"), Step::Forever], ..Default::default() })
}

/// The job was stopped, once, and followed to its end.
fn was_stopped_and_followed(world: &World, child: Child, mut stdout: impl Read) {
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the rest");
    let ran = finish(child);
    assert_eq!((rest.as_str(), ran.code), ("bye\n", Some(7)), "{ran:?}");
    assert!(!ran.stderr.contains("left job"), "{ran:?}");
    assert_eq!(world.worker.asked(|asked| asked.stops.len()), 1);
}

/// `jobctl` as a command line of a shell.
fn in_shell(world: &World, script: &str) -> Command {
    let jobctl = world.command(&[]);
    let mut command = Command::new("sh");
    command.env_clear().args(["-c", script, jobctl.get_program().to_str().expect("UTF-8")]);
    command.envs(jobctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a pid"))
}

#[test]
fn two_interrupts_close_together_are_one() {
    for round in 0..20 {
        let world = stoppable();
        let (child, stdout) = begin_with(world.command(&["run", "server"]));
        let (first, second) = match round % 3 {
            0 => (Signal::SIGINT, Signal::SIGTERM),
            1 => (Signal::SIGTERM, Signal::SIGINT),
            _ => (Signal::SIGINT, Signal::SIGINT),
        };
        send(&child, first);
        // A signal that is pending already is not sent again (signal(7)).
        thread::sleep(Duration::from_millis(round * 5));
        // It may have ended by now.
        let _ = kill(pid_of(&child), second);
        was_stopped_and_followed(&world, child, stdout);
    }
}

/// It sends the signal to its child, and then to the whole group.
#[test]
fn timeout_of_gnu_stops_the_job() {
    for _ in 0..5 {
        let world = stoppable();
        let (child, stdout) = begin_with(in_shell(&world, "exec timeout 600 \"$0\" run server"));
        send(&child, Signal::SIGTERM);
        was_stopped_and_followed(&world, child, stdout);
    }
}

/// Its group is signalled, as a terminal does, and it passes on what it got.
#[test]
fn a_wrapper_that_forwards_stops_the_job() {
    for _ in 0..5 {
        let world = stoppable();
        let script = "trap 'kill -TERM $pid' TERM; \"$0\" run server & pid=$!; wait $pid; wait $pid";
        let mut command = in_shell(&world, script);
        command.process_group(0);
        let (child, stdout) = begin_with(command);
        killpg(pid_of(&child), Signal::SIGTERM).expect("it lives");
        was_stopped_and_followed(&world, child, stdout);
    }
}

/// Sends interrupts until it has ended.
pub(crate) fn insist(child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("our own child").is_none() {
        assert!(Instant::now() < deadline, "it can't be interrupted");
        send(child, Signal::SIGINT);
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn who_insists_leaves_and_hears_what_is_true() {
    let world = endless();
    let (mut child, _stdout) = begin_with(world.command(&["run", "server"]));
    insist(&mut child);
    let ran = finish(child);
    let id = world.worker.asked(|asked| asked.starts[0].id.clone());
    assert_eq!(ran.code, Some(130), "{ran:?}");
    let words = format!("left job {id} while it is being stopped");
    assert!(
        ran.stderr.contains(&words) && ran.stderr.contains(&format!("jobctl stop --now {id}")),
        "{ran:?}"
    );
    assert_eq!(world.worker.asked(|asked| asked.stops.len()), 1);
}

#[test]
fn a_stop_that_is_refused_is_not_told_as_a_stop() {
    let refusal = Some(Status::permission_denied("role starter may not stop jobs"));
    let steps = vec![stdout(b"ready\n"), Step::Forever];
    let world = World::new(Script { steps, stop_refusal: refusal, ..Default::default() });
    let (mut child, _stdout) = begin_with(world.command(&["run", "server"]));
    insist(&mut child);
    let ran = finish(child);
    let id = world.worker.asked(|asked| asked.starts[0].id.clone());
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.stderr.contains("may not stop jobs"), "{ran:?}");
    assert!(!ran.stderr.contains("being stopped"), "{ran:?}");
    assert!(ran.stderr.contains(&format!("left job {id}, which goes on")), "{ran:?}");
}

#[test]
fn a_worker_that_says_nothing_does_not_make_it_unkillable() {
    let steps = vec![stdout(b"ready\n"), Step::Forever];
    let world = World::new(Script { steps, mute_after_start: true, ..Default::default() });
    let (mut child, _stdout) = begin_with(world.command(&["run", "server"]));
    insist(&mut child);
    let ran = finish(child);
    let id = world.worker.asked(|asked| asked.starts[0].id.clone());
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(!ran.stderr.contains("being stopped"), "{ran:?}");
    assert!(
        ran.stderr.contains("has not said") && ran.stderr.contains(&format!("jobctl stop {id}")),
        "{ran:?}"
    );
}

/// Where stdout and stderr are one pipe that is full.
#[test]
fn an_interrupt_stops_the_job_though_nobody_reads_what_jobctl_says() {
    let flood =
        Step::Endless(crate::fake_worker::chunk(jobworker_proto::v1::OutputStream::Stdout, &[b'x'; 100_000]));
    let world = World::new(Script { steps: vec![stdout(b"ready\n"), flood], ..Default::default() });
    let (mut child, _stdout) = begin_with(in_shell(&world, "exec \"$0\" run server 2>&1"));
    // Its writer is blocked: the pipe is full.
    let blocked = Instant::now() + Duration::from_secs(20);
    let waits_in_a_pipe = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).expect("its threads");
        tasks.flatten().any(|task| {
            fs::read_to_string(task.path().join("wchan")).is_ok_and(|place| place.contains("pipe"))
        })
    };
    while !waits_in_a_pipe() && Instant::now() < blocked {
        thread::sleep(Duration::from_millis(10));
    }
    send(&child, Signal::SIGINT);
    world.worker.wait_until(|asked| asked.stops.len() == 1);
    insist(&mut child);
    assert_eq!(finish(child).code, Some(130));
}

#[test]
fn hangup_and_quit_leave_the_job_and_say_how_to_go_on() {
    for (signal, code) in [(Signal::SIGHUP, 129), (Signal::SIGQUIT, 131)] {
        let world = endless();
        let (child, _stdout) = begin_with(world.command(&["run", "server"]));
        send(&child, signal);
        let ran = finish(child);
        let id = world.worker.asked(|asked| asked.starts[0].id.clone());
        assert_eq!(ran.code, Some(code), "{ran:?}");
        let words = format!("left job {id}, which goes on: `jobctl stream {id} --from-offset 6`");
        assert!(
            ran.stderr.contains(&words) && ran.stderr.contains(&format!("`jobctl stop {id}`")),
            "{ran:?}"
        );
        assert_eq!(world.worker.asked(|asked| asked.stops.len()), 0);
    }
}

fn ignored(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("its status");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask");
    u64::from_str_radix(mask.trim(), 16).expect("hexadecimal")
}

#[test]
fn what_was_ignored_at_the_start_stays_ignored() {
    let world = stoppable();
    let (child, stdout) = begin_with(in_shell(&world, "trap '' INT HUP QUIT; exec \"$0\" run server"));
    for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        assert_ne!(ignored(&child) & 1 << (signal as i32 - 1), 0, "{signal}");
        send(&child, signal);
    }
    assert_eq!(ignored(&child) & 1 << (Signal::SIGTERM as i32 - 1), 0);
    send(&child, Signal::SIGTERM);
    was_stopped_and_followed(&world, child, stdout);
}

#[test]
fn an_interrupted_start_names_its_job() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let world = World::new(Script { mute: true, ..Default::default() });
        let child = world.command(&["start", "server"]).spawn().expect("jobctl runs");
        world.worker.wait_until(|asked| asked.starts.len() == 1);
        send(&child, signal);
        let ran = Ran::from(child.wait_with_output().expect("jobctl ends"));
        let id = world.worker.asked(|asked| asked.starts[0].id.clone());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
        let words = format!("left while job {id} was being started; `jobctl status {id}`");
        assert!(ran.stderr.contains(&words), "{ran:?}");
    }
}

#[test]
fn interrupts_close_together_while_the_job_is_started_stop_it() {
    let steps = vec![Step::UntilStopped, stdout(b"bye\n"), Step::End];
    let outcome = outcome(Cause::Stopped, Ended::ExitCode(7));
    let world = World::new(Script { steps, outcome, held_start: true, ..Default::default() });
    let mut child = world.command(&["run", "server"]).spawn().expect("jobctl runs");
    world.worker.wait_until(|asked| asked.starts.len() == 1);
    send(&child, Signal::SIGINT);
    send(&child, Signal::SIGTERM);
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut note = String::new();
    stderr.read_line(&mut note).expect("a note");
    assert!(note.contains("as soon as it is started"), "{note}");
    world.worker.release();
    let stdout = child.stdout.take().expect("piped");
    was_stopped_and_followed(&world, child, stdout);
}
