//! Jobs as another user: who they are, and what they get to see.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, EnvVar, Job, JobSpec};
use jobworker_tests::client::{everything, output, run, shell, spec, start};
use jobworker_tests::{Worker, census};
use tonic::Code;

use crate::jobs::{assert_ended, assert_refused, finish, start_until, stop};
use crate::setup::Setup;

fn as_alice(script: &str) -> JobSpec {
    JobSpec { user: "alice".to_owned(), ..shell(script) }
}

async fn with_alice() -> Setup {
    Setup::with(&["--allow-user", "alice"]).await
}

#[tokio::test]
async fn a_job_as_alice_is_alice() {
    let setup = with_alice().await;
    let script = "id; pwd; umask; echo x >/home/alice/mine && echo wrote";
    let (job, seen) = finish(&mut setup.worker.admin().await, as_alice(script)).await;
    assert_ended(&job, Cause::Exited, Ended::ExitCode(0));
    assert_eq!(job.user, "alice");
    let expected = "uid=1001(alice) gid=1001(alice) groups=1001(alice),2001(staff2)\n/\n0022\nwrote\n";
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_number_is_a_user_too() {
    let setup = with_alice().await;
    let spec = JobSpec { user: "1001".to_owned(), ..shell("id -un; echo $HOME") };
    let (job, seen) = finish(&mut setup.worker.admin().await, spec).await;
    assert_eq!((job.user.as_str(), seen.as_str()), ("alice", "alice\n/home/alice\n"));
}

#[tokio::test]
async fn the_environment_is_clean() {
    let setup = with_alice().await;
    let mut spec = as_alice(r"tr '\0' '\n' </proc/$$/environ; :");
    spec.env = vec![EnvVar { key: "GIVEN".to_owned(), value: b"a b=c".to_vec() }];
    let (_, seen) = finish(&mut setup.worker.admin().await, spec).await;
    let seen: BTreeMap<_, _> = seen.lines().map(|line| line.split_once('=').expect("K=V")).collect();
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), ["GIVEN", "HOME", "LANG", "PATH", "USER"]);
    assert_eq!((seen["HOME"], seen["USER"], seen["GIVEN"]), ("/home/alice", "alice", "a b=c"));
}

/// What the shell was born with. It ignores SIGQUIT by itself, hence another program for the signals.
const INSIDE: &str = r#"
read -r _ _ _ _ pgrp session tty _ </proc/$$/stat
[ "$pgrp $session $tty" = "$$ $$ 0" ] && echo own session
ls -1 /proc/$$/fd
readlink /proc/$$/fd/0
"#;

#[tokio::test]
async fn nothing_is_inherited() {
    let setup = with_alice().await;
    let mut client = setup.worker.admin().await;
    let (_, seen) = finish(&mut client, as_alice(INSIDE)).await;
    assert_eq!(seen, "own session\n0\n1\n2\n/dev/null\n");
    let (_, seen) =
        finish(&mut client, JobSpec { user: "alice".to_owned(), ..spec(&["cat", "/proc/self/status"]) })
            .await;
    for name in ["SigPnd", "SigBlk", "SigIgn", "SigCgt", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert!(seen.contains(&format!("{name}:\t0000000000000000\n")), "{name} is not clear: {seen}");
    }
}

#[tokio::test]
async fn the_working_directory_is_entered_as_the_user() {
    let setup = with_alice().await;
    let mut client = setup.worker.admin().await;
    let spec = JobSpec { workdir: b"/home/alice".to_vec(), ..as_alice("pwd") };
    assert_eq!(finish(&mut client, spec).await.1, "/home/alice\n");

    fs::create_dir_all("/var/of-root").expect("a writable /var");
    fs::set_permissions("/var/of-root", Permissions::from_mode(0o700)).expect("our own folder");
    let spec = JobSpec { workdir: b"/var/of-root".to_vec(), ..as_alice("pwd") };
    let words = ["spec.workdir", "/var/of-root", "alice"];
    assert_refused(start(&mut client, spec).await, Code::InvalidArgument, "INVALID_FIELD", &words);
    assert!(setup.subtree.jobs().is_empty() && census::job_folders(&setup.worker.jobs_dir()).len() == 1);
}

#[tokio::test]
async fn stderr_can_be_opened_by_name() {
    let setup = with_alice().await;
    let mut client = setup.worker.admin().await;
    let script = "echo to stderr >/dev/stderr; echo to stdout >/dev/stdout; echo again >>/proc/self/fd/2";
    let job = run(&mut client, as_alice(script)).await.expect("the job runs");
    assert_ended(&job, Cause::Exited, Ended::ExitCode(0));
    let output = output(&mut client, everything(&job.id)).await.expect("the output is there");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "to stderr\nagain\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "to stdout\n");
}

#[tokio::test]
async fn alice_can_neither_read_nor_write_a_jobs_folder() {
    let setup = with_alice().await;
    // What stands above must not be what keeps her out.
    fs::set_permissions(setup.worker.state().path(), Permissions::from_mode(0o755)).expect("our own folder");
    fs::set_permissions(setup.worker.jobs_dir(), Permissions::from_mode(0o755)).expect("our own folder");
    let mut client = setup.worker.admin().await;
    let job = start_until(&mut client, as_alice("echo secret; exec sleep 1010"), "secret").await;
    let folder = setup.worker.jobs_dir().join(&job.id);
    for file in ["", "spec.json", "state.json", "output", "index", "control", "lock"] {
        let mode = fs::metadata(folder.join(file)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o007, 0, "{file:?} has mode {mode:o}");
    }
    let path = folder.to_str().expect("UTF-8");
    let script = format!(
        "cd {path} 2>/dev/null || ls {path} 2>/dev/null || cat {path}/* 2>/dev/null || echo kept out"
    );
    assert_eq!(finish(&mut client, as_alice(&script)).await.1, "kept out\n");
    stop(&mut client, &job.id, Some(0)).await;
}

#[tokio::test]
async fn a_user_who_is_not_allowed_is_refused() {
    let setup = with_alice().await;
    let mut client = setup.worker.admin().await;
    for user in ["bob", "1002", "jobworker"] {
        let spec = JobSpec { user: user.to_owned(), ..shell("id") };
        let words = ["spec.user", user, "--allow-user"];
        assert_refused(start(&mut client, spec).await, Code::PermissionDenied, "DENIED", &words);
        assert_nothing_started(&setup.worker, &setup);
    }
}

#[tokio::test]
async fn jobs_that_name_no_user_run_as_the_default_one() {
    let setup = Setup::with(&["--default-user", "bob"]).await;
    let (job, seen): (Job, _) = finish(&mut setup.worker.admin().await, shell("id -un")).await;
    assert_eq!((job.user.as_str(), seen.as_str()), ("bob", "bob\n"));
}

fn assert_nothing_started(worker: &Worker, setup: &Setup) {
    assert!(census::job_folders(&worker.jobs_dir()).is_empty(), "a folder is left");
    assert!(setup.subtree.jobs().is_empty(), "a group is left");
}
