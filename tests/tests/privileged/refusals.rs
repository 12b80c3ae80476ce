//! What can't be done on this host is refused by field and value, and leaves nothing.

use jobworker_tests::api::{JobSpec, Limits};
use jobworker_tests::census::{descendants, job_folders};
use jobworker_tests::client::{limited, run, shell, spec, start};
use tonic::Code;

use crate::jobs::assert_refused;
use crate::setup::Setup;

/// Starts each; every one must be refused with these words, and nothing be left of it.
async fn assert_all_refused(code: Code, reason: &str, table: Vec<(JobSpec, &[&str])>) {
    let setup = Setup::with(&["--allow-user", "alice"]).await;
    let mut client = setup.worker.admin().await;
    for (spec, words) in table {
        assert_refused(start(&mut client, spec).await, code, reason, words);
        assert_eq!(setup.subtree.jobs().len(), 0, "{words:?}: a group is left");
        assert_eq!(job_folders(&setup.worker.jobs_dir()).len(), 0, "{words:?}: a folder is left");
        jobworker_tests::wait::until_equal("processes are left", &Vec::new(), || {
            descendants(setup.worker.spawner_pid())
        });
    }
    run(&mut client, shell(":")).await.expect("the next job is fine");
}

fn io(limits: &[&str]) -> JobSpec {
    let io = limits.iter().map(|limit| (*limit).to_owned()).collect();
    limited(shell("echo ran"), Limits { io, ..Limits::default() })
}

#[tokio::test]
async fn io_limits_for_what_is_no_disk() {
    let table: Vec<(JobSpec, &[&str])> = vec![
        (io(&["/dev/sdz:1M"]), &["spec.limits.io", "/dev/sdz"]),
        (io(&["259:77:1M"]), &["spec.limits.io", "259:77"]),
        (io(&["/no/such/path:1M"]), &["spec.limits.io", "/no/such/path"]),
        (io(&["/tmp:1M"]), &["spec.limits.io", "/tmp", "tmpfs"]),
        (io(&["/etc:1M"]), &["spec.limits.io", "/etc", "overlay"]),
        (io(&["/dev/null:1M"]), &["spec.limits.io", "/dev/null", "character device"]),
        // The working directory is "/", an overlay here.
        (io(&["1M"]), &["spec.limits.io", "overlay"]),
        (io(&["/data:rbps=1M", "/dev/vdb:wbps=1M"]), &["spec.limits.io", "/dev/vdb"]),
    ];
    assert_all_refused(Code::InvalidArgument, "INVALID_FIELD", table).await;
}

#[tokio::test]
async fn limits_below_the_least() {
    let limits = |limits| limited(shell("echo ran"), limits);
    let none = Limits::default;
    let table: Vec<(JobSpec, &[&str])> = vec![
        (limits(Limits { cpu: "9m".to_owned(), ..none() }), &["spec.limits.cpu", "9m"]),
        (limits(Limits { cpu_weight: "0".to_owned(), ..none() }), &["spec.limits.cpu_weight", "\"0\""]),
        (limits(Limits { memory: "4095".to_owned(), ..none() }), &["spec.limits.memory", "4095"]),
        (limits(Limits { memory_high: "1K".to_owned(), ..none() }), &["spec.limits.memory_high", "1K"]),
        (limits(Limits { pids: "0".to_owned(), ..none() }), &["spec.limits.pids", "\"0\""]),
        (limits(Limits { io: vec!["/data:0".to_owned()], ..none() }), &["spec.limits.io", "/data:0"]),
    ];
    assert_all_refused(Code::InvalidArgument, "INVALID_FIELD", table).await;
}

/// A page is a limit, and no program fits in it: the kernel says ENOMEM to the one that it can't execute there, or
/// kills it.
#[tokio::test]
async fn a_memory_limit_that_no_program_fits_in() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let spec = limited(shell("echo ran"), Limits { memory: "4KiB".to_owned(), ..Limits::default() });
    match start(&mut client, spec).await {
        Err(refused) => {
            let words = ["spec.limits.memory", "4096 bytes are too few", "ENOMEM"];
            assert_refused(Err::<(), _>(refused), Code::InvalidArgument, "INVALID_FIELD", &words);
            assert_eq!(setup.subtree.jobs().len(), 0, "a group is left");
        }
        Ok(job) => {
            let ended = crate::jobs::until_status(&mut client, &job.id, |job| job.outcome.clone()).await;
            assert_eq!(ended.cause(), jobworker_tests::api::Cause::OutOfMemory, "{ended:?}");
        }
    }
    run(&mut client, shell(":")).await.expect("the next job is fine");
}

#[tokio::test]
async fn users_and_folders_that_are_not_there() {
    let table: Vec<(JobSpec, &[&str])> = vec![
        (JobSpec { user: "nobody-at-all".to_owned(), ..shell(":") }, &["spec.user", "nobody-at-all"]),
        (JobSpec { user: "4711".to_owned(), ..shell(":") }, &["spec.user", "4711"]),
        (
            JobSpec { workdir: b"/no/such/folder".to_vec(), ..shell(":") },
            &["spec.workdir", "/no/such/folder"],
        ),
        (JobSpec { workdir: b"/etc/passwd".to_vec(), ..shell(":") }, &["spec.workdir", "/etc/passwd"]),
    ];
    assert_all_refused(Code::InvalidArgument, "INVALID_FIELD", table).await;
}

#[tokio::test]
async fn commands_that_are_not_there() {
    let table: Vec<(JobSpec, &[&str])> = vec![
        (spec(&["/no/such/command"]), &["spec.command", "/no/such/command"]),
        (spec(&["no-such-command"]), &["spec.command", "no-such-command"]),
    ];
    assert_all_refused(Code::InvalidArgument, "COMMAND_NOT_FOUND", table).await;
}

#[tokio::test]
async fn commands_that_cannot_be_executed() {
    let as_alice = |command: &str| JobSpec { user: "alice".to_owned(), ..spec(&[command]) };
    let table: Vec<(JobSpec, &[&str])> = vec![
        (spec(&["/etc/passwd"]), &["spec.command", "/etc/passwd"]),
        (spec(&["/etc"]), &["spec.command", "/etc"]),
        (as_alice("/root/secret"), &["spec.command", "/root/secret", "alice"]),
    ];
    use std::os::unix::fs::PermissionsExt;
    std::fs::write("/root/secret", "#!/bin/sh\n").expect("root's home");
    std::fs::set_permissions("/root/secret", std::fs::Permissions::from_mode(0o700)).expect("our own file");
    assert_all_refused(Code::InvalidArgument, "COMMAND_NOT_EXECUTABLE", table).await;
}
