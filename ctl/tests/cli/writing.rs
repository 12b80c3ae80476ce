//! Where jobctl writes to: pipes that are full or closed, files that take a part, disks that are full.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use jobworker_proto::v1::{Cause, Job, JobSpec, OutputStream, outcome::Ended};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::fake_worker::{ID, Script, Step, chunk, stderr, stdout};
use crate::jobctl::{Ran, World, bare, exited, outcome};
use crate::run::begin_with;

const ALL: usize = 600_000;

fn long_output() -> Vec<u8> {
    (0..ALL).map(|n| if n % 61 == 60 { b'\n' } else { b"abcdefghijklmnopqrstuvw"[n % 23] }).collect()
}

/// The offset at which a message says to go on.
fn offset_said(ran: &Ran) -> usize {
    let (_, rest) = ran.stderr.split_once("--from-offset ").unwrap_or_else(|| panic!("{ran:?}"));
    rest.split(|other: char| !other.is_ascii_digit()).next().expect("a part").parse().expect("a number")
}

/// `jobctl` with a limit on the size of files (in KiB or half of it, as the shell has it), writing into `file`.
fn limited(world: &World, words: &str, file: &std::path::Path) -> Ran {
    let jobctl = world.command(&[]);
    let mut shell = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f 300; exec \"$0\" {words}");
    shell.env_clear().args(["-c", &script, jobctl.get_program().to_str().expect("UTF-8")]);
    shell.envs(jobctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(Stdio::null()).stdout(File::create(file).expect("a file"));
    Ran::from(shell.stderr(Stdio::piped()).output().expect("a shell"))
}

#[test]
fn a_short_write_counts_what_was_written() {
    let data = long_output();
    for piece in [1_000, 99_991, ALL] {
        let mut steps: Vec<_> = data.chunks(piece).map(stdout).collect();
        steps.push(Step::End);
        let world = World::new(Script { steps, outcome: exited(0), ..Default::default() });
        let cut = world.pki.path("cut");
        for (words, code) in [(format!("stream {ID}"), 1), ("run --no-reconnect make".to_owned(), 125)] {
            let ran = limited(&world, &words, &cut);
            let written = fs::read(&cut).expect("what was written");
            assert_eq!(ran.code, Some(code), "{ran:?}");
            assert!(ran.stderr.contains("cannot write the output: File too large"), "{ran:?}");
            assert!(!written.is_empty() && written.len() < ALL && data.starts_with(&written));
            assert_eq!(offset_said(&ran), written.len(), "pieces of {piece}: {ran:?}");
        }
    }
}

#[test]
fn a_short_write_with_times_counts_the_output_alone() {
    let data = long_output();
    let mut steps: Vec<_> = data.chunks(7_001).map(stdout).collect();
    steps.push(Step::End);
    let world = World::new(Script { steps, ..Default::default() });
    let cut = world.pki.path("cut");
    let ran = limited(&world, &format!("stream --timestamps {ID}"), &cut);
    let stamp = "1970-01-01T00:00:01.500000+00:00 ";
    let written = fs::read_to_string(&cut).expect("what was written");
    let output: usize =
        written.split_inclusive('\n').map(|line| line.strip_prefix(stamp).map_or(0, str::len)).sum();
    assert!(output > 0);
    assert_eq!(offset_said(&ran), output, "{ran:?}");
}

/// A pipe or a socket whose writer does not wait.
fn hasty(socket: bool) -> (Box<dyn Read>, OwnedFd) {
    if socket {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        theirs.set_nonblocking(true).expect("O_NONBLOCK");
        return (Box::new(ours), theirs.into());
    }
    let (reader, writer) = std::io::pipe().expect("a pipe");
    fcntl(writer.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("O_NONBLOCK");
    (Box::new(reader), writer.into())
}

/// Fills it up to the last byte.
fn fill(writer: &OwnedFd) -> usize {
    let mut file = File::from(writer.try_clone().expect("dup"));
    let mut filled = 0;
    for size in [65_536, 1_024, 1] {
        while let Ok(count) = file.write(&vec![b'.'; size]) {
            filled += count;
        }
    }
    filled
}

/// What a reader gets that comes a second late.
fn read_late(mut reader: Box<dyn Read>) -> Vec<u8> {
    thread::sleep(Duration::from_secs(1));
    let mut read = Vec::new();
    reader.read_to_end(&mut read).expect("readable");
    read
}

#[test]
fn output_waits_for_a_late_reader_though_the_pipe_does_not() {
    let data = [long_output(), long_output()].concat();
    for (socket, to_stderr) in [(false, false), (true, false), (false, true)] {
        let steps = data.chunks(70_001).map(if to_stderr { stderr } else { stdout });
        let steps = steps.chain([Step::End]).collect();
        let world = World::new(Script { steps, outcome: exited(3), ..Default::default() });
        let (reader, writer) = hasty(socket);
        let mut command = world.command(&["run", "make"]);
        if to_stderr {
            command.stderr(writer)
        } else {
            command.stdout(writer)
        };
        let child = command.spawn().expect("jobctl runs");
        // It holds the writer's end.
        drop(command);
        let read = read_late(reader);
        let ran = Ran::from(child.wait_with_output().expect("jobctl ends"));
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert!(read == data, "{} bytes of {}: {ran:?}", read.len(), data.len());
    }
}

/// Runs `command` with a full pipe for stdout or stderr and gives what came out of it.
fn through_full_pipe(mut command: Command, to_stderr: bool) -> (Option<i32>, String) {
    let (reader, writer) = hasty(false);
    let filled = fill(&writer);
    if to_stderr {
        command.stderr(writer)
    } else {
        command.stdout(writer)
    };
    let mut child = command.spawn().expect("jobctl runs");
    drop(command);
    let read = read_late(reader);
    let code = child.wait().expect("our own child").code();
    (code, String::from_utf8(read[filled..].to_vec()).expect("UTF-8"))
}

#[test]
fn whatever_jobctl_says_waits_for_a_late_reader() {
    let spec = JobSpec { args: vec![vec![b'a'; 200_000]], ..Default::default() };
    let now = Job { id: ID.into(), spec: Some(spec), ..Default::default() };
    let killed = outcome(Cause::Signaled, Ended::Signal(9));
    let world = World::new(Script { steps: vec![Step::End], now, outcome: killed, ..Default::default() });
    let (code, list) = through_full_pipe(world.command(&["list", "--output", "json"]), false);
    assert_eq!((code, list.len() > 400_000), (Some(0), true), "{} bytes", list.len());
    let (code, id) = through_full_pipe(world.command(&["start", "--id", ID, "x"]), false);
    assert_eq!((code, id), (Some(0), format!("{ID}\n")));
    let (code, note) = through_full_pipe(world.command(&["run", "x"]), true);
    assert_eq!((code, note.contains("SIGKILL")), (Some(137), true), "{note}");
    let (code, help) = through_full_pipe(bare(&["run", "--help"]), false);
    assert_eq!((code, help.contains("--memory-limit")), (Some(0), true), "{help}");
    let (code, usage) = through_full_pipe(bare(&["run", "--bogus"]), true);
    assert_eq!((code, usage.contains("--bogus")), (Some(125), true), "{usage}");
}

fn full() -> File {
    File::options().write(true).open("/dev/full").expect("/dev/full")
}

/// A pipe that nobody reads from.
fn closed() -> OwnedFd {
    std::io::pipe().expect("a pipe").1.into()
}

#[test]
fn an_id_that_cannot_be_printed_is_told_on_stderr() {
    let world = World::new(Script::default());
    for format in ["text", "json"] {
        for target in [Stdio::from(full()), Stdio::from(closed())] {
            let mut command = world.command(&["start", "--output", format, "--id", ID, "true"]);
            let ran = Ran::from(command.stdout(target).output().expect("jobctl runs"));
            assert_eq!(ran.code, Some(1), "{ran:?}");
            let words = format!("jobctl: job {ID} was started, but ");
            assert!(ran.stderr.starts_with(&words), "{ran:?}");
        }
    }
}

#[test]
fn what_was_done_is_told_though_it_cannot_be_printed() {
    let outcome = outcome(Cause::Stopped, Ended::Signal(15));
    let world = World::new(Script { outcome, ..Default::default() });
    let ran = |args: &[&str]| Ran::from(world.command(args).stdout(full()).output().expect("jobctl runs"));
    let stopped = ran(&["stop", ID]);
    assert_eq!(stopped.code, Some(1));
    assert!(stopped.stderr.contains(&format!("job {ID}: stopped: killed by signal 15")), "{stopped:?}");
    let removed = ran(&["remove", "1111", "3333"]);
    assert_eq!(removed.code, Some(1));
    for id in ["1111", "3333"] {
        assert!(removed.stderr.contains(&format!("job {id} was removed, but ")), "{removed:?}");
    }
    let waited = ran(&["wait", ID]);
    assert_eq!(waited.code, Some(125));
    assert!(waited.stderr.contains(&format!("job {ID}: stopped: killed by signal 15")), "{waited:?}");
    for args in [&["--help"][..], &["--version"], &["run", "--help"]] {
        let ran = Ran::from(bare(args).stdout(full()).output().expect("jobctl runs"));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("No space left"), "{ran:?}");
    }
}

/// As a local command that SIGPIPE ends, whether the job was still running or had ended.
#[test]
fn a_reader_that_leaves_run_is_141() {
    let much = chunk(OutputStream::Stdout, &[b'x'; 100_000]);
    let endless = (vec![stdout(b"ready\n"), Step::Endless(much)], outcome(Cause::Stopped, Ended::Signal(15)));
    let ended =
        (vec![stdout(b"ready\n"), Step::UntilReleased, stdout(&[b'x'; 3_000_000]), Step::End], exited(0));
    for (steps, outcome) in [endless, ended] {
        let world = World::new(Script { steps, outcome, ..Default::default() });
        let (child, stdout) = begin_with(world.command(&["run", "server"]));
        drop(stdout);
        world.worker.release();
        let ran = Ran::from(child.wait_with_output().expect("jobctl ends"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(141), ""));
        world.worker.wait_until(|asked| asked.stops.len() == 1);
    }
}

#[test]
fn a_reader_that_leaves_is_no_error_for_what_only_looks() {
    let world = World::new(Script { steps: vec![stdout(b"x\n"), Step::End], ..Default::default() });
    for args in [&["list"][..], &["status", ID], &["stream", ID]] {
        let ran = Ran::from(world.command(args).stdout(closed()).output().expect("jobctl runs"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}
