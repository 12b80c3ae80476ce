//! A worker without any privilege beside a spawner that runs as root, as the systemd units have them.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, JobSpec, JobState, Limits, RemoveRequest};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{limited, shell, start};
use jobworker_tests::wait::until;
use jobworker_tests::{Pki, Subtree, Worker, census};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;

use crate::jobs::{assert_ended, assert_gone, assert_refused, finish, start_until, status, stop};
use crate::setup::Turn;

pub(crate) const WORKER: u32 = 990;
pub(crate) const ALICE: u32 = 1001;

/// A spawner as root, for a worker that is not. Its socket is where everybody can see it.
pub(crate) struct Spawner {
    state: Arc<TempDir>,
    pub(crate) subtree: Subtree,
    run: TempDir,
    process: Child,
}

impl Spawner {
    pub(crate) fn start() -> Self {
        Self::logging_to(Stdio::inherit())
    }

    fn logging_to(log: Stdio) -> Self {
        let [state, run] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
        fs::set_permissions(state.path(), Permissions::from_mode(0o750)).expect("our own folder");
        chown(state.path(), Some(0), Some(WORKER)).expect("root may");
        fs::set_permissions(run.path(), Permissions::from_mode(0o755)).expect("our own folder");
        let subtree = Subtree::new();
        let mut command = Command::new(binary("jobworker"));
        command.args([
            "spawner",
            "--worker-user",
            "jobworker",
            "--default-user",
            "bob",
            "--allow-user",
            "alice",
        ]);
        command.arg("--state-dir").arg(state.path()).arg("--cgroup").arg(subtree.path());
        command.arg("--socket").arg(run.path().join("socket"));
        let mut process =
            command.stdout(Stdio::piped()).stderr(log).spawn().expect("jobworker can be executed");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("text");
        assert_eq!(line, "ready\n", "the spawner is not ready");
        Self { state: Arc::new(state), subtree, run, process }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.run.path().join("socket")
    }

    /// A worker that may read nothing of root's: its certificates are its own.
    pub(crate) fn worker(&self) -> Worker {
        self.worker_with(&[])
    }

    fn worker_with(&self, more: &[&str]) -> Worker {
        let pki = pki_of(WORKER);
        let socket = self.socket();
        let args = ["--spawner-socket", socket.to_str().expect("UTF-8")];
        Worker::builder().uid(WORKER).pki(&pki).state(&self.state).args(&args).args(more).start()
    }

    /// Says one line to the spawner as an OS user, and returns what happened.
    pub(crate) fn ask_as(&self, uid: u32, request: &Value) -> Output {
        let mut command = Command::new(binary("actor"));
        command.arg("ask").arg(self.socket()).uid(uid).gid(uid);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut asking = command.spawn().expect("the actor can be executed");
        writeln!(asking.stdin.take().expect("a pipe"), "{request}").expect("it reads");
        asking.wait_with_output().expect("our own child")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn jobs(&self) -> PathBuf {
        self.state.path().join("jobs")
    }
}

/// Certificates that belong to an OS user.
pub(crate) fn pki_of(uid: u32) -> Arc<Pki> {
    let pki = Arc::new(Pki::new());
    chown(pki.dir(), Some(uid), Some(uid)).expect("root may");
    for file in fs::read_dir(pki.dir()).expect("the folder is there") {
        chown(file.expect("a file").path(), Some(uid), Some(uid)).expect("root may");
    }
    pki
}

impl Drop for Spawner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A whole request, as the worker would write it.
fn request(id: &str, user: &str) -> Value {
    let owner = json!({ "name": "x", "common_name": "x", "role": "admin", "serial": "1", "fingerprint_sha256": "00" });
    let job = json!({
        "command": "/bin/sh", "args": ["-c", "id -un"], "user": user, "workdir": "/", "name": null, "timeout_msec": null,
    });
    json!({ "start": { "version": 1, "id": id, "request": job, "owner": owner, "created_unix_usec": 1 } })
}

#[tokio::test]
async fn jobs_start_stop_stream_and_are_limited() {
    let _turn = Turn::shared().await;
    let spawner = Spawner::start();
    let worker = spawner.worker();
    assert_eq!(census::status_line(worker.pid(), "Uid").as_deref(), Some("990\t990\t990\t990"));
    assert_eq!(census::status_line(worker.pid(), "CapEff").as_deref(), Some("0000000000000000"));
    let mut client = worker.admin().await;

    let limits = Limits {
        memory: "64MiB".to_owned(),
        cpu: "0.5".to_owned(),
        pids: "20".to_owned(),
        ..Limits::default()
    };
    let spec =
        JobSpec { user: "alice".to_owned(), ..limited(shell("id -un; exec sleep 1011"), limits.clone()) };
    let job = start_until(&mut client, spec, "alice").await;
    let seen = status(&mut client, &job.id).await;
    assert_eq!(seen.limits_in_force.expect("limits").memory_max_bytes, Some(64 << 20));
    assert_eq!((seen.processes, seen.process.map(|process| process.threads)), (Some(1), Some(1)));
    let stopped = stop(&mut client, &job.id, Some(10_000)).await;
    assert_ended(&stopped, Cause::Stopped, Ended::Signal(15));
    assert_gone(&stopped, &[]);

    let (job, seen) = finish(&mut client, limited(shell("id -un"), limits)).await;
    assert_eq!((job.user.as_str(), seen.as_str()), ("bob", "bob\n"), "the spawner's default user");
    drop((client, worker));
    assert!(spawner.subtree.jobs().is_empty());
}

#[tokio::test]
async fn the_spawner_decides_about_users_whoever_asks() {
    let _turn = Turn::shared().await;
    let spawner = Spawner::start();
    let worker = spawner.worker();
    let refused = start(&mut worker.admin().await, JobSpec { user: "root".to_owned(), ..shell("id") }).await;
    assert_refused(refused, Code::PermissionDenied, "DENIED", &["root", "--allow-user"]);
    drop(worker);

    // A worker that was taken over says what it likes.
    for user in ["root", "0", "jobworker"] {
        let output = spawner.ask_as(WORKER, &request("3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f", user));
        let answer: Value = serde_json::from_slice(&output.stdout).expect("an answer");
        assert_eq!(answer["refused"]["kind"], "user_not_allowed", "{answer}");
    }
    assert!(census::job_folders(&spawner.jobs()).is_empty() && spawner.subtree.jobs().is_empty());

    let id = "4f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f";
    let output = spawner.ask_as(WORKER, &request(id, "alice"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "\"started\"\n");
    let written = spawner.jobs().join(id).join("output");
    until("the job has run", || fs::read(&written).is_ok_and(|bytes| bytes == b"alice\n").then_some(()));
    until_no_group(&spawner);
}

#[tokio::test]
async fn nobody_else_is_let_in() {
    let _turn = Turn::shared().await;
    let spawner = Spawner::start();
    let request = request("5f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f", "alice");
    let output = spawner.ask_as(ALICE, &request);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");

    // Nor by a mode that somebody got wrong: the peer's credentials are checked, too.
    fs::set_permissions(spawner.socket(), Permissions::from_mode(0o666)).expect("root may");
    let output = spawner.ask_as(ALICE, &request);
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(census::job_folders(&spawner.jobs()).is_empty());
    // And the spawner is well.
    let output = spawner.ask_as(WORKER, &json!("attach"));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("an answer");
    assert_eq!(answer["base"].as_str().map(Path::new), Some(spawner.subtree.path().as_path()), "{answer}");
}

#[tokio::test]
async fn nonsense_does_not_hurt_the_spawner() {
    let _turn = Turn::shared().await;
    let spawner = Spawner::start();
    for nonsense in [
        json!(1),
        json!({ "start": {} }),
        json!({ "start": request("../../x", "alice") }),
        json!("x".repeat(1 << 20)),
    ] {
        let output = spawner.ask_as(WORKER, &nonsense);
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    let (job, _) = finish(&mut spawner.worker().admin().await, shell(":")).await;
    assert_ended(&job, Cause::Exited, Ended::ExitCode(0));
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_hurt_the_spawner() {
    let _turn = Turn::shared().await;
    let mut spawner = Spawner::logging_to(Stdio::piped());
    drop(spawner.process.stderr.take().expect("a pipe"));
    fs::set_permissions(spawner.socket(), Permissions::from_mode(0o666)).expect("root may");
    // It has something to say about this one.
    let output = spawner.ask_as(ALICE, &json!("attach"));
    assert!(output.stdout.is_empty(), "{output:?}");
    let output = spawner.ask_as(WORKER, &json!("attach"));
    assert!(!output.stdout.is_empty(), "the spawner is gone");
}

#[tokio::test]
async fn a_worker_that_may_delete_nothing_has_ended_jobs_removed() {
    let _turn = Turn::shared().await;
    let spawner = Spawner::start();
    let worker = spawner.worker();
    let mut client = worker.admin().await;
    let remove = |job: &str| RemoveRequest { job: job.to_owned() };
    let running = start_until(&mut client, shell("echo up; exec sleep 1012"), "up").await;
    let refused =
        client.remove(remove(&running.id)).await.map(|answer| answer.into_inner().job.expect("a job"));
    assert_refused(refused, Code::FailedPrecondition, "JOB_NOT_ENDED", &[&running.id, "stop it first"]);
    let (ended, _) = finish(&mut client, JobSpec { user: "alice".to_owned(), ..shell("id -un") }).await;
    let folder = spawner.jobs().join(&ended.id);
    let output = Command::new("rm").arg("-r").arg(&folder).uid(WORKER).gid(WORKER).output().expect("rm");
    assert!(!output.status.success() && folder.exists(), "the worker itself may not: {output:?}");
    let removed = client.remove(remove(&ended.id)).await.expect("removed").into_inner().job;
    assert_eq!(removed.expect("a job").finished_unix_usec, ended.finished_unix_usec);
    assert_eq!(census::job_folders(&spawner.jobs()), [spawner.jobs().join(&running.id)].into());

    // Nor need it for retention.
    let (ended, _) = finish(&mut client, shell("head -c 300000 /dev/zero")).await;
    drop((client, worker));
    let next = spawner.worker_with(&["--keep-ended-bytes", "200kB"]);
    let folder = spawner.jobs().join(&ended.id);
    until("retention has it removed", || (!folder.exists()).then_some(()));
    let mut client = next.admin().await;
    assert_eq!(status(&mut client, &running.id).await.state(), JobState::Running);
    stop(&mut client, &running.id, None).await;
    client.remove(remove(&running.id)).await.expect("removed");
    assert!(census::job_folders(&spawner.jobs()).is_empty() && spawner.subtree.jobs().is_empty());
}

/// The outcome of a job that nobody waits for comes a moment after its output.
fn until_no_group(spawner: &Spawner) {
    until("the group is removed", || spawner.subtree.jobs().is_empty().then_some(()));
}
