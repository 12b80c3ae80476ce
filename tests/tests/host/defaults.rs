//! What an operator says that jobs begin with: refused before anything is made, where jobs can't be given it.

use std::process::{Command, Stdio};

use jobworker_tests::binaries::binary;
use jobworker_tests::worker::clean;
use nix::unistd::{User, geteuid};

/// How a spawner with these flags ends, and what it says.
fn refusal(args: &[&str]) -> (Option<i32>, String) {
    let state = tempfile::tempdir().expect("a temporary folder");
    let folder = state.path().join("made");
    let user = User::from_uid(geteuid()).expect("a password database").expect("a user of this host");
    let mut command = Command::new(binary("jobworker"));
    clean(&mut command);
    command.args(["spawner", "--default-user", &user.name, "--state-dir"]).arg(&folder).args(args);
    let output = command.stdin(Stdio::null()).output().expect("jobworker can be executed");
    assert!(!folder.exists(), "it has made its state folder");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_jobs_can_not_be_given_is_refused() {
    let usage = Some(2);
    for (args, code, words) in [
        // Nobody may have more open files than fs.nr_open.
        (
            &["--default-rlimit", "NOFILE=unlimited"][..],
            Some(1),
            &["--default-rlimit NOFILE=unlimited:unlimited", "EPERM", "fs.nr_open"][..],
        ),
        (&["--default-rlimit", "CORE=0,CORE=1"], Some(1), &["CORE=0:0 and CORE=1:1", "the same resource"]),
        (&["--default-rlimit", "OPEN=1"], usage, &["\"OPEN\" is no resource", "NOFILE"]),
        (&["--default-rlimit", "CORE=2:1"], usage, &["\"CORE=2:1\"", "above the hard one"]),
        (&["--default-oom-score-adj", "-1001"], usage, &["\"-1001\"", "-1000 to 1000"]),
    ] {
        let (found, said) = refusal(args);
        assert_eq!(found, code, "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{args:?}: no {word:?} in {said}");
        }
    }
}
