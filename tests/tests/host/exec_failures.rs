//! A command that can't be executed: not found and not executable are told apart, with the errno's words and the path,
//! and nothing of the job is left.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jobworker_tests::Worker;
use jobworker_tests::api::JobSpec;
use jobworker_tests::client::{run, spec, start};
use jobworker_tests::wait::until_equal;
use tonic::Code;

use crate::support::{Belongings, details, jobctl};

async fn expect_failure(worker: &Worker, command: &str, reason: &str, words: &[&str]) {
    let mut admin = worker.admin().await;
    let refused = start(&mut admin, spec(&[command])).await.expect_err(command);
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_eq!(details(&refused), (reason.to_owned(), vec!["spec.command".to_owned()]), "{refused}");
    for word in [&[command], words].concat() {
        assert!(refused.message().contains(word), "{word:?} is not in {:?}", refused.message());
    }
    let exit_code = if reason == "COMMAND_NOT_FOUND" { 127 } else { 126 };
    let answer =
        jobctl(worker, &["run", "--", command]).with_code(exit_code).saying(words).saying(&[command]);
    assert_eq!(answer.stdout, "");
    jobctl(worker, &["start", "--", command]).with_code(1).saying(words);
    until_equal("nothing is left of it", &Belongings::none(), || Belongings::of(worker));
}

fn script(path: &Path, text: &str, mode: u32) -> String {
    fs::write(path, text).expect("a writable folder");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own file");
    path.to_str().expect("a UTF-8 path").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_not_there_is_127() {
    let worker = Worker::start();
    let not_found = "COMMAND_NOT_FOUND";
    expect_failure(&worker, "no-such-command", not_found, &["not found", "/usr/bin/no-such-command"]).await;
    expect_failure(&worker, "/no/such/command", not_found, &["not found", "ENOENT"]).await;
    expect_failure(&worker, "/etc/hosts/command", not_found, &["not found"]).await;
    expect_failure(&worker, "./relative", not_found, &["not found"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_be_executed_is_126() {
    let worker = Worker::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (dir, reason) = (folder.path(), "COMMAND_NOT_EXECUTABLE");
    let plain = script(&dir.join("plain"), "#!/bin/sh\n", 0o644);
    expect_failure(&worker, &plain, reason, &["EACCES"]).await;
    expect_failure(&worker, dir.to_str().expect("a UTF-8 path"), reason, &["EACCES"]).await;
    let orphan = script(&dir.join("orphan"), "#!/no/such/interpreter\n", 0o755);
    expect_failure(&worker, &orphan, reason, &["interpreter"]).await;
    let bare = script(&dir.join("bare"), "echo no shebang\n", 0o755);
    expect_failure(&worker, &bare, reason, &["ENOEXEC"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_looked_up_where_it_should_be() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    script(&folder.path().join("relative"), "#!/bin/sh\nexit 4\n", 0o755);
    let workdir = folder.path().to_str().expect("a UTF-8 path").as_bytes().to_vec();
    let job =
        run(&mut admin, JobSpec { workdir, ..spec(&["./relative"]) }).await.expect("it is in the workdir");
    assert_eq!(job.outcome.and_then(|outcome| outcome.ended), exited(4));
    // One that may not be executed is passed over for one further on in the PATH, as shells do.
    script(&folder.path().join("true"), "not this one", 0o644);
    let path = format!("PATH={}:/usr/bin:/bin", folder.path().display());
    jobctl(&worker, &["run", "--env", &path, "--", "true"]).with_code(0);
}

fn exited(code: i32) -> Option<jobworker_tests::api::outcome::Ended> {
    Some(jobworker_tests::api::outcome::Ended::ExitCode(code))
}
