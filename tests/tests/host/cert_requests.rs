//! First certificates whose keys never travel: from the request to a connection, and what a signer refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use jobworker_tests::binaries::binary;
use jobworker_tests::worker::clean;
use jobworker_tests::{Pki, Worker};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Answer, jobctl_as};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// `jobworker certs ARGS…` in a folder.
pub(crate) fn certs(dir: &Path, args: &[&str]) -> Answer {
    let mut command = Command::new(binary("jobworker"));
    command.arg("certs").args(args).current_dir(dir).stdin(Stdio::null());
    Answer::of(&mut command)
}

/// `jobctl cert ARGS…` in a folder.
pub(crate) fn jobctl_cert(dir: &Path, args: &[&str]) -> Answer {
    let mut command = Command::new(binary("jobctl"));
    clean(&mut command);
    command.env("JOBCTL_CONFIG", "/nonexistent/jobctl.toml").env("TZ", "UTC");
    Answer::of(command.arg("cert").args(args).current_dir(dir).stdin(Stdio::null()))
}

/// `openssl ARGS…` in a folder.
pub(crate) fn openssl(dir: &Path, args: &[&str]) -> Answer {
    Answer::of(Command::new("openssl").args(args).current_dir(dir)).with_code(0)
}

fn word_after<'a>(text: &'a str, before: &str) -> &'a str {
    let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("no {before:?} in {text}"));
    rest.split(|c: char| !c.is_ascii_hexdigit()).next().expect("a word")
}

#[test]
fn from_the_request_to_a_connection_and_only_public_files_travel() {
    let (worker_host, issuer, person) = (folder(), folder(), folder());
    let hosts = ["--host", "localhost", "--host", "127.0.0.1"];
    certs(issuer.path(), &["init", "--dir", "."]).with_code(0);
    certs(worker_host.path(), &[&["request", "--dir", "."], &hosts[..]].concat()).with_code(0);
    fs::copy(worker_host.path().join("server.csr"), issuer.path().join("server.csr")).expect("sent");
    certs(issuer.path(), &[&["sign", "--dir", ".", "server.csr"], &hosts[..]].concat()).with_code(0);

    let asked = jobctl_cert(person.path(), &["request", "--name", "carol"]).with_code(0).stdout;
    assert!(asked.contains("jobworker certs sign --dir DIR carol.csr --role ROLE"), "{asked}");
    let mode = fs::metadata(person.path().join("carol-key.pem")).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::copy(person.path().join("carol.csr"), issuer.path().join("carol.csr")).expect("sent");
    let signed =
        certs(issuer.path(), &["sign", "--dir", ".", "carol.csr", "--role", "admin"]).with_code(0).stdout;
    assert!(signed.contains("certificate for carol, role admin"), "{signed}");
    assert_eq!(word_after(&asked, ", key "), word_after(&signed, "its key is "), "what both compare");
    let der = Command::new("sh")
        .args(["-c", "openssl pkey -in carol-key.pem -pubout -outform DER | sha256sum"])
        .current_dir(person.path())
        .output()
        .expect("openssl");
    assert!(String::from_utf8_lossy(&der.stdout).starts_with(word_after(&asked, ", key ")), "{der:?}");
    let keys = |dir: &TempDir| {
        let names = fs::read_dir(dir.path()).expect("a folder").flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| name.ends_with("-key.pem"));
        names
    };
    assert_eq!(keys(&issuer), ["ca-key.pem"], "no other key has travelled");

    for (from, file, to) in [(&worker_host, "server-key.pem", &issuer), (&person, "carol-key.pem", &issuer)] {
        // The test's worker looks for all files in one folder.
        fs::rename(from.path().join(file), to.path().join(file)).expect("a key");
    }
    let pki = Arc::new(Pki::found_in(issuer));
    let worker = Worker::builder().pki(&pki).start();
    jobctl_as(&worker, "carol", &["list"]).with_code(0);
    jobctl_as(&worker, "carol", &["run", "--", "true"]).with_code(0);
    let shown = jobctl_as(&worker, "carol", &["cert", "status", "--output", "json"]).with_code(0).stdout;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&shown["name"], &shown["role"]), (&"carol".into(), &"admin".into()), "{shown}");
    assert!(shown["days_left"].as_i64().is_some_and(|days| (44..=45).contains(&days)), "{shown}");
    let serial = worker.audit()[0]["serial"].clone();
    assert_eq!(
        (shown["serial"].clone(), shown["fingerprint_sha256"].clone()),
        (serial, worker.audit()[0]["fingerprint"].clone())
    );
    drop(worker);
    certs(pki.dir(), &["revoke", "--dir", ".", "carol"]).with_code(0);
    let worker = Worker::builder().pki(&pki).start();
    jobctl_as(&worker, "carol", &["list"]).with_code(1).saying(&["certificate revoked"]);
}

#[test]
fn requests_by_openssl_with_every_kind_of_key_open_the_door() {
    let pki = Arc::new(Pki::new());
    let worker = Worker::builder().pki(&pki).start();
    let dir = pki.dir();
    for (name, key) in [
        ("p256", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"][..]),
        ("ed25519", &["-newkey", "ed25519"]),
        ("rsa", &["-newkey", "rsa:2048"]),
    ] {
        let (subject, file, key_file) =
            (format!("/CN={name}"), format!("{name}.csr"), format!("{name}-key.pem"));
        let own = ["req", "-new", "-nodes", "-subj", &subject, "-out", &file, "-keyout", &key_file];
        openssl(dir, &[&own[..], key].concat());
        certs(dir, &["sign", "--dir", ".", &file, "--role", "user"]).with_code(0);
        jobctl_as(&worker, name, &["list"]).with_code(0);
        jobctl_as(&worker, name, &["start", "--", "true"])
            .with_code(1)
            .saying(&["role \"user\" may not start"]);
    }
}

#[test]
fn nothing_is_overwritten_and_no_key_is_put_beside_anothers_certificate() {
    let dir = folder();
    let path = dir.path();
    jobctl_cert(path, &["request", "--name", "dave"]).with_code(0);
    let before = fs::read(path.join("dave-key.pem")).expect("a key");
    jobctl_cert(path, &["request", "--name", "dave"]).with_code(1).saying(&["exists already", "--force"]);
    assert_eq!(fs::read(path.join("dave-key.pem")).expect("a key"), before);
    certs(path, &["init", "--dir", "."]).with_code(0);
    let sign = ["sign", "--dir", ".", "dave.csr", "--role", "user"];
    certs(path, &sign).with_code(0);
    certs(path, &sign).with_code(1).saying(&["dave.pem exists already"]);
    jobctl_cert(path, &["request", "--name", "dave", "--out", "other"]).with_code(0);
    fs::rename(path.join("other/dave.csr"), path.join("dave.csr")).expect("the same disk");
    let answer = certs(path, &[&sign[..], &["--force"]].concat());
    answer.with_code(1).saying(&["dave-key.pem is the key of another certificate"]);
    fs::remove_file(path.join("dave-key.pem")).expect("a key");
    certs(path, &[&sign[..], &["--force"]].concat()).with_code(0);
    jobctl_cert(path, &["request", "--name", "../eve"]).with_code(2).saying(&["../eve"]);
    certs(path, &["sign", "--dir", ".", "dave.csr"]).with_code(2).saying(&["--role", "--host"]);
    let both = ["sign", "--dir", ".", "dave.csr", "--role", "user", "--host", "localhost"];
    certs(path, &both).with_code(2).saying(&["cannot be used with"]);
}
