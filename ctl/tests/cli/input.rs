//! Jobs have no stdin: what is piped into `run` and `start` is not dropped without a word.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::fake_worker::{Script, Step};
use crate::jobctl::{Ran, World, exited};

const WORDS: &str = "jobctl: note: jobs get no input";

fn world() -> World {
    let steps = vec![Step::UntilReleased, Step::End];
    World::new(Script { steps, outcome: exited(0), ..Default::default() })
}

/// Runs `script` in a shell in which `$BIN` is `jobctl`.
fn shell(world: &World, script: &str) -> Ran {
    let jobctl = world.command(&[]);
    let mut command = Command::new("sh");
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.args(["-c", script]).env("BIN", jobctl.get_program());
    command.envs(jobctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(world.pki.folder()).stdin(Stdio::null());
    Ran::from(command.output().expect("a shell"))
}

#[test]
fn input_from_a_pipe_or_a_file_is_told_once() {
    let world = world();
    fs::write(world.pki.path("input"), "some\nlines\n").expect("a file");
    for script in [
        "echo input | $BIN start -- tar x",
        "$BIN start -- sort <input",
        "echo input | $BIN start -- sort >/dev/null",
    ] {
        let ran = shell(&world, script);
        assert_eq!((ran.code, ran.stderr.matches(WORDS).count()), (Some(0), 1), "{script}: {ran:?}");
    }
    let mut child = world.command(&["run", "cat"]).stdin(Stdio::piped()).spawn().expect("jobctl runs");
    let mut stdin = child.stdin.take().expect("piped");
    world.worker.wait_until(|asked| asked.streams.len() == 1);
    // Late, and in parts.
    for _ in 0..3 {
        stdin.write_all(b"input").expect("room");
        thread::sleep(Duration::from_millis(50));
    }
    world.worker.release();
    let ran = Ran::from(child.wait_with_output().expect("jobctl ends"));
    assert_eq!((ran.code, ran.stderr.matches(WORDS).count()), (Some(0), 1), "{ran:?}");
}

#[test]
fn where_nothing_is_lost_nothing_is_said() {
    let world = world();
    fs::write(world.pki.path("input"), "some\nlines\n").expect("a file");
    fs::write(world.pki.path("empty"), "").expect("a file");
    for script in [
        "$BIN start true </dev/null",
        "$BIN start true <empty",
        "true | $BIN start true",
        "$BIN start true <&-",
        // What a loop or a script reads is not meant for a job.
        "while read -r line; do $BIN start echo $line || exit; done <input",
        "cat input | while read -r line; do $BIN start echo $line || exit; done",
        "echo '$BIN start true' >script; cat input | sh script",
        "(echo '$BIN start true'; echo true) | sh -s >/dev/null",
    ] {
        let ran = shell(&world, script);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{script}: {ran:?}");
    }
    // As a service or a build system starts it.
    let child = world.command(&["start", "true"]).stdin(Stdio::piped()).spawn().expect("jobctl runs");
    let ran = Ran::from(child.wait_with_output().expect("jobctl ends"));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let file = File::open(world.pki.path("input")).expect("a file");
    let ran = Ran::from(world.command(&["list"]).stdin(file).output().expect("jobctl runs"));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}
