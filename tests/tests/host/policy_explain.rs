//! What a policy says to people: `jobworker policy`, and jobctl when it is denied.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use jobworker_tests::policy::{PolicyFile, shipped};

use crate::policy::worker;
use crate::support::{Answer, jobctl_as};

#[test]
fn a_policy_can_be_checked_and_explained_without_a_worker() {
    let file = PolicyFile::new(shipped::OWNER);
    let path = file.path().to_str().expect("UTF-8").to_owned();
    let policy = |args: &[&str]| {
        let mut command = std::process::Command::new(jobworker_tests::binaries::binary("jobworker"));
        Answer::of(command.arg("policy").args(args))
    };
    let summary = policy(&["check", &path]).with_code(0).stdout;
    assert!(summary.contains("role user:") && summary.contains("on own jobs: start, stop"), "{summary}");
    let line = 1 + shipped::OWNER.lines().position(|line| line == "[roles.user]").expect("a role") + 2;
    let rule = format!("{path}:{line}: roles.user.stop = \"own\"\n");
    let ask = ["explain", &path, "--role", "user", "--action", "stop", "--name", "ann", "--job-owner"];
    let answer = policy(&[&ask[..], &["ann"]].concat()).with_code(0).stdout;
    assert_eq!(answer, format!("allowed by {rule}"));
    let answer = policy(&[&ask[..], &["bob"]].concat()).with_code(1).stdout;
    assert!(answer.starts_with(&format!("denied by {rule}")) && answer.contains("another's"), "{answer}");
    let built_in = policy(&["explain", "--role", "user", "--action", "start"]).with_code(1).stdout;
    assert!(
        built_in.starts_with("denied by built-in default.toml:17: [roles.user] does not name start"),
        "{built_in}"
    );
    fs::set_permissions(file.path(), Permissions::from_mode(0o664)).expect("our own file");
    policy(&["check", &path]).with_code(0).saying(&[
        "warning: ",
        "its group or everyone may write",
        "(mode 664)",
    ]);
    file.write("[roles.user]\nstop = \"mine\"\n");
    let words = ["policy.toml:2: `stop = \"mine\"`", "unknown variant `mine`", "`own`"];
    policy(&["check", &path]).with_code(1).saying(&words);
    policy(&["explain", &path, "--role", "user", "--action", "stop"]).with_code(1).saying(&words);
}

#[test]
fn a_shared_os_user_and_forbidden_limits_are_said() {
    let policy = |args: &[&str]| {
        let mut command = std::process::Command::new(jobworker_tests::binaries::binary("jobworker"));
        Answer::of(command.arg("policy").args(args))
    };
    let file = PolicyFile::new(shipped::ISOLATED);
    let path = file.path().to_str().expect("UTF-8").to_owned();
    policy(&["check", &path]).with_code(0).saying(&[
        "warning: ",
        "[roles.user]: all jobs of its clients run as one OS user, the spawner's default",
        "can read and end the other jobs of that user",
        "run_as = \"common_name\"",
    ]);
    file.write(shipped::OS_USER);
    let quiet = policy(&["check", &path]).with_code(0);
    assert_eq!(quiet.stderr, "");
    file.write("[roles.user]\nstart = \"own\"\n[roles.user.jobs]\nlimits = \"none\"\nmemory = \"64MiB\"\n");
    let summary = policy(&["check", &path]).with_code(0).stdout;
    assert!(summary.contains("policy.toml:4: roles.user.jobs.limits = \"none\""), "{summary}");
    assert!(summary.contains("its clients may not ask for limits"), "{summary}");
    let ask = ["explain", &path, "--role", "user", "--action", "start"];
    let answer = policy(&ask).with_code(0).stdout;
    assert!(answer.contains("memory = 64MiB"), "{answer}");
    for (option, value, field) in
        [("--memory-limit", "1M", "spec.limits.memory"), ("--timeout", "5s", "spec.timeout_msec")]
    {
        let answer = policy(&[&ask[..], &[option, value]].concat()).with_code(1).stdout;
        let rule = format!("denied by {path}:4: roles.user.jobs.limits = \"none\"\n");
        assert!(answer.starts_with(&rule), "{answer}");
        assert!(
            answer.contains(&format!("{field}: this role may not ask for limits (role \"user\")")),
            "{answer}"
        );
    }
}

#[test]
fn jobctl_says_what_the_policy_said() {
    let worker = worker(&PolicyFile::new(shipped::ISOLATED));
    let job = jobctl_as(&worker, "alice", &["start", "--", "true"]).with_code(0).stdout.trim_end().to_owned();
    let words = ["permission denied: role \"user\" has the right to status on jobs of its own only"];
    jobctl_as(&worker, "bob", &["status", &job]).with_code(1).saying(&words);
    jobctl_as(&worker, "bob", &["run", "--", "sh", "-c", "exit 3"]).with_code(3);
}
