//! A policy is read again while it is in use: at once, whole, or not at all.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use jobworker_tests::api::{ListRequest, StatusRequest, WaitRequest};
use jobworker_tests::client::{everything, shell, spec, start};
use jobworker_tests::policy::{PolicyFile, shipped};
use jobworker_tests::wait::{PATIENCE, until, until_equal};
use jobworker_tests::{Client, Worker};
use nix::sys::signal::Signal;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::policy::worker;
use crate::support::{Bystander, wait_for_file};

const READ: &str = "policy read again";
const KEPT: &str = "the policy that was read before stays in force";

/// Lines of the log with this in them.
fn told(worker: &Worker, words: &str) -> usize {
    worker.log().iter().filter(|line| line.contains(words)).count()
}

fn until_told(worker: &Worker, words: &str, times: usize) {
    until_equal(&format!("{words:?} in the log"), &times, || told(worker, words));
}

async fn may_start(client: &mut Client) -> bool {
    match start(client, spec(&["true"])).await {
        Ok(_) => true,
        Err(status) if status.code() == Code::PermissionDenied => false,
        Err(status) => panic!("neither: {status}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_in_force_at_once_on_connections_that_are_open() {
    let file = PolicyFile::new(shipped::DEFAULT);
    let worker = worker(&file);
    let mut bob = worker.user().await;
    assert!(!may_start(&mut bob).await);
    file.replace(shipped::OWNER);
    until_told(&worker, READ, 1);
    assert!(may_start(&mut bob).await, "renamed into its place");
    file.write(shipped::DEFAULT);
    until_told(&worker, READ, 2);
    assert!(!may_start(&mut bob).await, "written in place");
    worker.signal(Signal::SIGHUP);
    until_told(&worker, READ, 3);
    assert!(!may_start(&mut bob).await, "read again when asked to, changed or not");
    assert_eq!(told(&worker, KEPT), 0);
    // As an editor does that keeps the old file.
    fs::rename(file.path(), file.folder().join("policy.toml.old")).expect("a file");
    file.write(shipped::OWNER);
    until_told(&worker, READ, 4);
    assert!(may_start(&mut bob).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_keeps_the_old_policy_and_says_why() {
    let file = PolicyFile::new(shipped::OWNER);
    let worker = worker(&file);
    let mut bob = worker.user().await;
    file.replace("[roles.user]\n\nstop = \"mine\"\n");
    until_told(&worker, KEPT, 1);
    let line = worker.log().into_iter().find(|line| line.contains(KEPT)).expect("it was told");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let path = file.path().display().to_string();
    let words = format!("{path}:3: `stop = \"mine\"`: unknown variant `mine`");
    assert!(line["message"].as_str().is_some_and(|message| message.contains(&words)), "{line}");
    assert_eq!(line["level"], "ERROR");
    assert!(may_start(&mut bob).await, "the old one");
    worker.signal(Signal::SIGHUP);
    until_told(&worker, KEPT, 2);
    fs::remove_file(file.path()).expect("a file");
    until_told(&worker, KEPT, 3);
    assert!(told(&worker, "No such file") == 1 && may_start(&mut bob).await);
    file.replace(shipped::DEFAULT);
    until_told(&worker, READ, 1);
    assert!(!may_start(&mut bob).await, "the new one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_to_another_file_is_a_change() {
    let (file, folder) =
        (PolicyFile::new(shipped::DEFAULT), tempfile::tempdir().expect("a temporary folder"));
    // As Kubernetes does it: policy.toml -> ..data/policy.toml, and ..data is renamed.
    let place = |name: &str, text: &str| {
        fs::create_dir(folder.path().join(name)).expect("a folder");
        fs::write(folder.path().join(name).join("policy.toml"), text).expect("a writable folder");
        symlink(name, folder.path().join("..new")).expect("a link");
        fs::rename(folder.path().join("..new"), folder.path().join("..data")).expect("a link");
    };
    place("1", shipped::DEFAULT);
    fs::remove_file(file.path()).expect("a file");
    let path = folder.path().join("policy.toml");
    symlink("..data/policy.toml", &path).expect("a link");
    let worker = Worker::builder().args(&["--policy", path.to_str().expect("UTF-8")]).start();
    let mut bob = worker.user().await;
    assert!(!may_start(&mut bob).await);
    place("2", shipped::OWNER);
    until_told(&worker, READ, 1);
    assert!(may_start(&mut bob).await);
    // And its target, in the folder where that is now.
    fs::write(folder.path().join("2/policy.toml"), shipped::DEFAULT).expect("a writable folder");
    until_told(&worker, READ, 2);
    assert!(!may_start(&mut bob).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_that_last_end_when_the_right_to_them_does() {
    let file = PolicyFile::new(shipped::DEFAULT);
    let worker = worker(&file);
    let (mut alice, mut bob) = (worker.admin().await, worker.user().await);
    let gate = file.folder().join("gate");
    let script = format!("echo up; {}; echo done", wait_for_file(&gate));
    let job = start(&mut alice, shell(&script)).await.expect("an admin may").id;
    let mut bobs = bob.stream(everything(&job)).await.expect("a user may").into_inner();
    assert!(bobs.message().await.expect("allowed so far").is_some());
    let mut alices = alice.stream(everything(&job)).await.expect("an admin may").into_inner();
    let waiting = {
        let (mut bob, job) = (bob.clone(), job.clone());
        tokio::spawn(async move { bob.wait(WaitRequest { job }).await })
    };
    until_equal("all three are let in", &4, || worker.audit().len());
    // This policy leaves both as they are.
    file.replace(&format!("{}\nstop = \"own\"\n", shipped::DEFAULT));
    until_told(&worker, READ, 1);
    assert!(!waiting.is_finished());
    file.replace(shipped::ISOLATED);
    let ended = |answer: Result<(), Status>| {
        let status = answer.expect_err("the right is gone");
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains("on jobs of its own only"), "{status}");
    };
    let message = timeout(PATIENCE, bobs.message()).await.expect("the stream ends");
    ended(message.map(drop));
    ended(timeout(PATIENCE, waiting).await.expect("the call ends").expect("no panic").map(drop));
    let denied =
        || worker.audit().into_iter().filter(|line| line["decision"] == "denied").collect::<Vec<_>>();
    until("an audit line for each", || (denied().len() == 2).then_some(()));
    for line in denied() {
        assert_eq!((&line["client"], &line["job"]), (&"bob".into(), &job.as_str().into()), "{line}");
        assert!(
            line["rule"].as_str().is_some_and(|rule| rule.contains("roles.user.all = \"own\"")),
            "{line}"
        );
    }
    fs::write(&gate, "").expect("a writable folder");
    let mut seen = Vec::new();
    while let Some(message) = alices.message().await.expect("an admin still may") {
        if let Some(jobworker_tests::api::stream_response::Event::Chunk(chunk)) = message.event {
            seen.extend_from_slice(&chunk.data);
        }
    }
    assert_eq!(seen, b"up\ndone\n");
    bob.status(StatusRequest { job }).await.expect_err("nor may he look");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reloading_disturbs_nobody() {
    let file = PolicyFile::new(shipped::DEFAULT);
    let worker = Arc::new(worker(&file));
    let bystander = Bystander::of(&worker);
    for round in 0..10 {
        let text = [shipped::OWNER, "[roles.broken", shipped::ISOLATED, shipped::DEFAULT][round % 4];
        let before = told(&worker, READ) + told(&worker, KEPT);
        file.replace(text);
        until("the change was seen", || (told(&worker, READ) + told(&worker, KEPT) > before).then_some(()));
    }
    bystander.is_served().await;
    bystander.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_policy_a_hangup_changes_nothing() {
    let worker = Worker::start();
    worker.signal(Signal::SIGHUP);
    until_told(&worker, "the built-in one stays in force", 1);
    worker.admin().await.list(ListRequest::default()).await.expect("it serves on");
}
