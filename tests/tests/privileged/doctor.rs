//! `jobworker doctor` where everything is there: each limit is really tried, what lacks is named, nothing is left.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Instant;

use jobworker_tests::api::{JobState, Limits};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{limited, shell, start};
use jobworker_tests::subtree::CONTROLLERS;
use jobworker_tests::worker::clean;
use jobworker_tests::{Pki, Subtree, census};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::jobs::{status, stop};
use crate::setup::{Setup, Turn};
use crate::unprivileged::{ALICE, Spawner, WORKER};

/// What each limit's line says where it is in force; swap's only where the kernel has swap built in.
const IN_FORCE: [(&str, &str); 6] = [
    ("--cpu-limit", "cpu.max 50000 100000"),
    ("--cpu-weight", "cpu.weight 50"),
    ("--memory-limit", "memory.max 67108864"),
    ("--memory-high", "memory.high 50331648"),
    ("--pids-limit", "pids.max 64"),
    ("--io-limit", "(/dev/vdb) rbps=10000000 wbps=5000000 riops=1000 wiops=500"),
];

/// A worker that is root has to be told as whom jobs run.
const AS_ROOT: [&str; 2] = ["--default-user", "root"];

/// doctor, for a state folder on the disk at /data.
fn doctor(pki: &Pki, state: &Path) -> Command {
    let mut command = Command::new(binary("jobworker"));
    clean(&mut command);
    command.args(["doctor", "--listen", "127.0.0.1:0", "--state-dir"]).arg(state);
    command.arg("--ca").arg(pki.ca()).arg("--crl").arg(pki.crl());
    command.arg("--cert").arg(pki.server().cert).arg("--key").arg(pki.server().key);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn on_data() -> TempDir {
    tempfile::tempdir_in("/data").expect("a writable /data")
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[track_caller]
fn expect_line(lines: &[String], level: &str, words: &[&str]) {
    let fits = |line: &String| line.starts_with(level) && words.iter().all(|word| line.contains(word));
    assert!(lines.iter().any(fits), "no {level} with {words:?} in {lines:#?}");
}

/// Exit code 0, every limit in force, and a birth.
#[track_caller]
fn expect_all_ok(output: &Output) {
    let lines = lines(output);
    assert_eq!(output.status.code(), Some(0), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("FAIL")), "{lines:#?}");
    for controller in CONTROLLERS {
        expect_line(&lines, "ok", &[&format!("controller {controller}: ")]);
    }
    for (flag, in_force) in IN_FORCE {
        expect_line(&lines, "ok", &[flag, in_force]);
    }
    let has_swap = Path::new("/proc/swaps").exists();
    let swap = if has_swap {
        ["--swap-limit", "memory.swap.max 16777216"]
    } else {
        ["--swap-limit", "swapaccount=1"]
    };
    expect_line(&lines, if has_swap { "ok" } else { "warn" }, &swap);
    expect_line(&lines, "ok", &["birth: ", "CLONE_INTO_CGROUP", "cgroup.kill"]);
    expect_line(&lines, "ok", &["disk of /data/", "/dev/vdb"]);
}

/// As it was delegated: no group in it, no controller handed down, no process.
#[track_caller]
fn expect_untouched(group: &Path) {
    assert!(census::folders(group).is_empty(), "{:?}", census::folders(group));
    for file in ["cgroup.subtree_control", "cgroup.procs"] {
        assert_eq!(fs::read_to_string(group.join(file)).expect("a group").trim(), "", "{file}");
    }
}

#[tokio::test]
async fn every_limit_is_tried_and_the_subtree_is_as_before() {
    let _turn = Turn::shared().await;
    let (subtree, pki, state) = (Subtree::new(), Pki::new(), on_data());
    let mut command = doctor(&pki, state.path());
    command.arg("--cgroup").arg(subtree.path()).args(["--default-user", "alice"]);
    expect_all_ok(&command.output().expect("jobworker can be executed"));
    expect_untouched(&subtree.path());
    assert_eq!(fs::read_dir(state.path()).expect("our folder").count(), 0);
}

/// As under `systemd-run -p Delegate=yes`: the process stands in the very group that it has to make room in.
#[tokio::test]
async fn its_own_group_is_tried_and_as_before() {
    let _turn = Turn::shared().await;
    let (subtree, pki, state) = (Subtree::new(), Pki::new(), on_data());
    let enter = format!("echo $$ >{}/cgroup.procs && exec \"$0\" \"$@\"", subtree.path().display());
    let mut inner = doctor(&pki, state.path());
    inner.args(AS_ROOT);
    let mut command = Command::new("/bin/sh");
    clean(&mut command);
    command.args(["-c", &enter]).arg(inner.get_program()).args(inner.get_args());
    let output = command.stdin(Stdio::null()).output().expect("a shell");
    expect_all_ok(&output);
    expect_line(&lines(&output), "ok", &["subtree: ", subtree.path().to_str().expect("UTF-8")]);
    expect_untouched(&subtree.path());
}

/// Ended at fifteen moments of its run: where it holds the subtree, it puts that back first.
#[tokio::test]
async fn ended_at_any_moment_it_leaves_nothing() {
    let _turn = Turn::shared().await;
    let (subtree, pki, state) = (Subtree::new(), Pki::new(), on_data());
    let mut command = doctor(&pki, state.path());
    command.arg("--cgroup").arg(subtree.path()).args(AS_ROOT);
    let started = Instant::now();
    expect_all_ok(&command.output().expect("jobworker can be executed"));
    let whole = started.elapsed();
    let mut ended_early = 0;
    for part in 1..=15 {
        let process = command.spawn().expect("jobworker can be executed");
        thread::sleep(whole * part / 16);
        let pid = Pid::from_raw(i32::try_from(process.id()).expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("our own child");
        let status = process.wait_with_output().expect("our own child").status;
        ended_early += u32::from(status.signal() == Some(Signal::SIGTERM as i32));
        expect_untouched(&subtree.path());
    }
    assert!(ended_early > 0, "no run took as long as the first: nothing was tried");
}

#[tokio::test]
async fn a_controller_that_is_missing_fails_with_what_to_do() {
    let _turn = Turn::shared().await;
    let (subtree, pki, state) = (Subtree::with(&["cpu", "io", "pids"]), Pki::new(), on_data());
    let mut command = doctor(&pki, state.path());
    let output = command
        .arg("--cgroup")
        .arg(subtree.path())
        .args(AS_ROOT)
        .output()
        .expect("jobworker can be executed");
    let lines = lines(&output);
    assert_eq!(output.status.code(), Some(1), "{lines:#?}");
    let above = subtree.path().parent().expect("a group above").display().to_string();
    expect_line(
        &lines,
        "FAIL",
        &["controller memory: ", &above, "; do: ", "Delegate=yes", "+memory", "subtree_control"],
    );
    for (flag, in_force) in IN_FORCE {
        if flag.starts_with("--memory") {
            assert!(!lines.iter().any(|line| line.contains(flag)), "{flag} was tried: {lines:#?}");
        } else {
            expect_line(&lines, "ok", &[flag, in_force]);
        }
    }
    assert_eq!(lines.iter().filter(|line| line.starts_with("FAIL")).count(), 1, "{lines:#?}");
    expect_untouched(&subtree.path());
}

#[tokio::test]
async fn beside_a_worker_all_is_tried_and_its_jobs_go_on() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let limits = Limits { pids: "5".to_owned(), ..Limits::default() };
    let job = start(&mut client, limited(shell("exec sleep 1017"), limits)).await.expect("a job");
    let (before, shims) = (setup.subtree.jobs(), setup.subtree.path().join("shims/cgroup.procs"));
    let of_a_dead_one = setup.subtree.path().join("jobs/doctor-4194305");
    fs::create_dir(&of_a_dead_one).expect("a group");

    let mut command = doctor(&setup.worker.pki, setup.worker.state().path());
    let processes = fs::read_to_string(&shims).expect("the spawner's group");
    let output = command.args(AS_ROOT).output().expect("jobworker can be executed");
    let lines = lines(&output);
    assert_eq!(output.status.code(), Some(0), "{lines:#?}");
    expect_line(&lines, "ok", &["spawner: ", setup.subtree.path().to_str().expect("UTF-8")]);
    for (flag, in_force) in IN_FORCE {
        // The state folder is on a tmpfs.
        if flag == "--io-limit" {
            assert!(!lines.iter().any(|line| line.contains("io.max")), "{lines:#?}");
        } else {
            expect_line(&lines, "ok", &[flag, in_force]);
        }
    }
    expect_line(&lines, "warn", &["disk of ", "tmpfs", "lsblk"]);
    expect_line(&lines, "ok", &["birth: "]);
    assert_eq!(setup.subtree.jobs(), before, "groups are left, or a stale one was not removed");
    assert_eq!(fs::read_to_string(&shims).expect("the spawner's group"), processes);

    let seen = status(&mut client, &job.id).await;
    assert_eq!((seen.state(), seen.processes), (JobState::Running, Some(1)));
    stop(&mut client, &job.id, Some(0)).await;
}

#[tokio::test]
async fn who_may_not_try_is_told_who_may() {
    let _turn = Turn::shared().await;
    let spawner = Spawner::start();
    let worker = spawner.worker();
    let examine = |uid: Option<u32>| {
        let mut command = doctor(&worker.pki, worker.state().path());
        command.arg("--spawner-socket").arg(spawner.socket());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let output = command.output().expect("jobworker can be executed");
        (output.status.code(), lines(&output))
    };
    let jobs = spawner.subtree.path().join("jobs").display().to_string();

    let (code, lines) = examine(Some(WORKER));
    assert_eq!(code, Some(0), "{lines:#?}");
    expect_line(&lines, "ok", &["spawner: ", "listens on"]);
    expect_line(&lines, "ok", &["controller memory: "]);
    expect_line(
        &lines,
        "warn",
        &["limits: not tried", &jobs, "Permission denied", "sudo ", "--spawner-socket"],
    );

    let (code, lines) = examine(Some(ALICE));
    assert_eq!(code, Some(1), "{lines:#?}");
    expect_line(&lines, "FAIL", &["spawner: ", "does not answer us", "as root or as the worker's user"]);
    expect_line(&lines, "FAIL", &["server-key.pem", "Permission denied", "chown"]);

    let (code, lines) = examine(None);
    assert_eq!(code, Some(0), "{lines:#?}");
    expect_line(&lines, "ok", &["--memory-limit", "memory.max 67108864"]);
    expect_line(&lines, "ok", &["birth: "]);
    assert!(spawner.subtree.jobs().is_empty());
}
