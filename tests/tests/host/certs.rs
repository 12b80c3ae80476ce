//! Certificates as operators make them: by `jobworker certs` and by the openssl script, with every kind of key.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use jobworker_tests::binaries::binary;
use jobworker_tests::{Pki, Worker};
use tempfile::TempDir;

use crate::support::{Answer, jobctl_as};

/// The documented way without jobworker.
const OPENSSL_SCRIPT: &str = include_str!("../../../certs/openssl.sh");

fn certs(dir: &Path, command: &str, args: &[&str]) -> Answer {
    let mut jobworker = Command::new(binary("jobworker"));
    jobworker.args(["certs", command, "--dir"]).arg(dir).args(args).stdin(Stdio::null());
    Answer::of(jobworker.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// A CA, a server, an admin `alice` and a user `bob`, all with one kind of key.
fn made_by_jobworker(key: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let hosts = ["--host", "localhost", "--host", "127.0.0.1"];
    certs(dir.path(), "init", &["--key", key]).with_code(0);
    certs(dir.path(), "server", &[&["--key", key], &hosts[..]].concat()).with_code(0);
    for (name, role) in [("alice", "admin"), ("bob", "user")] {
        certs(dir.path(), "client", &["--key", key, "--name", name, "--role", role]).with_code(0);
    }
    dir
}

pub(crate) fn made_by_openssl(key: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut openssl = Command::new("sh");
    openssl.args(["-c", OPENSSL_SCRIPT, "openssl.sh", "--key", key]).arg(dir.path().join("pki"));
    openssl.args(["localhost", "127.0.0.1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    Answer::of(&mut openssl).with_code(0);
    for entry in fs::read_dir(dir.path().join("pki")).expect("the script's folder").flatten() {
        fs::rename(entry.path(), dir.path().join(entry.file_name())).expect("the same disk");
    }
    dir
}

/// The admin runs, the user may look only.
fn expect_both_roles(worker: &Worker, admin: &str, user: &str) {
    let answer = jobctl_as(worker, admin, &["run", "--", "echo", "served"]).with_code(0);
    assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("served\n", ""));
    jobctl_as(worker, user, &["list"]).with_code(0);
    jobctl_as(worker, user, &["start", "--", "true"]).with_code(1).saying(&["permission denied"]);
}

#[test]
fn certificates_by_jobworker_open_the_door() {
    for key in ["p256", "ed25519"] {
        let pki = Arc::new(Pki::found_in(made_by_jobworker(key)));
        for name in ["ca-key", "server-key", "alice-key"] {
            let mode =
                fs::metadata(pki.dir().join(format!("{name}.pem"))).expect("a key").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        expect_both_roles(&Worker::builder().pki(&pki).start(), "alice", "bob");
    }
}

#[test]
fn certificates_by_openssl_with_rsa_4096_open_the_door() {
    let pki = Arc::new(Pki::found_in(made_by_openssl("rsa4096")));
    expect_both_roles(&Worker::builder().pki(&pki).start(), "admin", "user");
}

#[test]
fn certificates_by_openssl_with_p256_open_the_door() {
    let pki = Arc::new(Pki::found_in(made_by_openssl("p256")));
    expect_both_roles(&Worker::builder().pki(&pki).start(), "admin", "user");
}

#[test]
fn who_is_revoked_stays_out_and_the_renewed_gets_in() {
    let dir = made_by_jobworker("p256");
    certs(dir.path(), "revoke", &["bob"]).with_code(0);
    let pki = Arc::new(Pki::found_in(dir));
    let worker = Worker::builder().pki(&pki).start();
    jobctl_as(&worker, "bob", &["list"]).with_code(1).saying(&[
        "unauthenticated",
        "certificate revoked",
        "(bob)",
    ]);
    jobctl_as(&worker, "alice", &["list"]).with_code(0);
    certs(pki.dir(), "client", &["--name", "bob", "--role", "user", "--force"]).with_code(0);
    jobctl_as(&worker, "bob", &["list"]).with_code(0);
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path();
    certs(path, "server", &["--host", "localhost"]).with_code(1).saying(&["holds no CA", "certs init"]);
    certs(path, "init", &[]).with_code(0);
    let ca = fs::read(path.join("ca.pem")).expect("a CA");
    certs(path, "init", &[]).with_code(1).saying(&["ca.pem"]);
    assert_eq!(fs::read(path.join("ca.pem")).expect("a CA"), ca, "a CA is never overwritten");
    certs(path, "client", &["--name", "../evil", "--role", "admin"]).with_code(2).saying(&["../evil"]);
    certs(path, "client", &["--name", "carol", "--role", "Admin"]).with_code(2).saying(&["Admin"]);
    certs(path, "client", &["--name", "carol", "--role", "user", "--days", "0"])
        .with_code(2)
        .saying(&["--days"]);
    certs(path, "server", &["--host", "https://x:1"]).with_code(2).saying(&["https://x:1"]);
    certs(path, "revoke", &["nobody"]).with_code(1).saying(&["nobody.pem"]);
    assert!(!path.join("carol.pem").exists());
}
