//! Bad input and a folder in the way: a clear message, and every file as it was.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use crate::common::{certs, make_all};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// Every file's name and contents.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap_or_default()))
        .collect()
}

fn refused(dir: &Path, args: &[&str], words: &str) {
    let before = contents(dir);
    let error = certs(dir, args).expect_err(&format!("{args:?} must fail"));
    assert!(error.contains(words), "{args:?}: no {words:?} in: {error}");
    assert_eq!(contents(dir), before, "{args:?} changed files");
}

#[test]
fn bad_values_are_named() {
    let dir = TempDir::new().unwrap();
    certs(dir.path(), &["init"]).unwrap();
    let client = ["client", "--name", "alice", "--role", "admin"];
    for (args, words) in [
        (&["client", "--name", "../alice", "--role", "admin"][..], "client name \"../alice\": 1 to 64 of"),
        (&["client", "--name", "ca", "--role", "admin"], "client name \"ca\""),
        (&["client", "--name", "", "--role", "admin"], "client name \"\""),
        (&["client", "--name", "alice", "--role", "Admin"], "role \"Admin\": 1 to 32 lower-case"),
        (&["client", "--name", "alice"], "--role"),
        (&["server"], "--host"),
        (&["server", "--host", "localhost:50051"], "host \"localhost:50051\": a DNS name or an IP"),
        (&["server", "--host", "localhost", "--host", ""], "host \"\""),
        (&["server", "--host", "localhost", "--days", "0"], "days \"0\": a whole number of days, 1 to 36500"),
        (&["server", "--host", "localhost", "--key", "rsa1024"], "[possible values: p256, ed25519, rsa4096]"),
        (&[&client[..], &["--days", "1.5"]].concat(), "days \"1.5\""),
        (&[&client[..], &["--uri", "alice"]].concat(), "URI \"alice\": scheme:rest"),
        (&[&client[..], &["--role-oid", "2.5.29.17"]].concat(), "role OID \"2.5.29.17\""),
    ] {
        refused(dir.path(), args, words);
    }
}

#[test]
fn nothing_is_overwritten_unless_asked() {
    let dir = TempDir::new().unwrap();
    make_all(dir.path(), "p256");
    refused(dir.path(), &["init"], "/ca.pem exists already: a CA is never overwritten");
    refused(
        dir.path(),
        &["server", "--host", "localhost"],
        "/server.pem exists already: --force replaces it",
    );
    let alice = ["client", "--name", "alice", "--role", "user"];
    refused(dir.path(), &alice, "/alice.pem exists already: --force replaces it");

    let before = contents(dir.path());
    certs(dir.path(), &[&alice[..], &["--force"]].concat()).unwrap();
    let after = contents(dir.path());
    let changed: Vec<_> =
        after.iter().filter(|(name, bytes)| before[*name] != **bytes).map(|(name, _)| name).collect();
    assert_eq!(changed, ["alice-key.pem", "alice.pem"]);
    assert_eq!(before.len(), after.len(), "a renewal leaves no further file");
    crate::common::handshake(dir.path(), "alice", "localhost").unwrap();
    let key = fs::metadata(dir.path().join("alice-key.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_part_of_a_set_is_in_the_way_too() {
    for left in ["ca-key.pem", "crl.pem"] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(left), "precious").unwrap();
        refused(dir.path(), &["init"], &format!("/{left} exists already"));
    }
    let dir = TempDir::new().unwrap();
    certs(dir.path(), &["init"]).unwrap();
    fs::write(dir.path().join("alice-key.pem"), "precious").unwrap();
    refused(dir.path(), &["client", "--name", "alice", "--role", "user"], "/alice-key.pem exists already");
}

#[test]
fn a_half_written_renewal_is_taken_back() {
    let dir = TempDir::new().unwrap();
    make_all(dir.path(), "p256");
    // A folder where the certificate belongs: the key is placed first, then the certificate's rename fails.
    fs::remove_file(dir.path().join("alice.pem")).unwrap();
    fs::create_dir(dir.path().join("alice.pem")).unwrap();
    refused(
        dir.path(),
        &["client", "--name", "alice", "--role", "admin", "--force"],
        "/alice.pem: Operation not permitted",
    );
    fs::create_dir(dir.path().join("carol.pem")).unwrap();
    refused(dir.path(), &["client", "--name", "carol", "--role", "admin", "--force"], "/carol.pem: ");
}

#[test]
fn a_folder_without_a_usable_authority_is_explained() {
    let dir = TempDir::new().unwrap();
    let alice = ["client", "--name", "alice", "--role", "user"];
    refused(dir.path(), &alice, "holds no CA: make one first (jobworker certs init --dir ");
    certs(dir.path(), &["init"]).unwrap();
    let other = TempDir::new().unwrap();
    certs(other.path(), &["init"]).unwrap();

    fs::copy(other.path().join("ca-key.pem"), dir.path().join("ca-key.pem")).unwrap();
    refused(dir.path(), &alice, "ca.pem: ca-key.pem is not this certificate's private key");
    fs::write(dir.path().join("ca-key.pem"), "junk").unwrap();
    refused(dir.path(), &alice, "ca-key.pem: not a private key this program can use");
    fs::remove_file(dir.path().join("ca-key.pem")).unwrap();
    refused(dir.path(), &alice, "ca-key.pem: No such file");

    make_all(&other.path().join("all"), "p256");
    for (from, to) in [("alice.pem", "ca.pem"), ("alice-key.pem", "ca-key.pem")] {
        fs::copy(other.path().join("all").join(from), dir.path().join(to)).unwrap();
    }
    refused(dir.path(), &alice, "ca.pem: not a CA's certificate");
}

#[test]
fn an_ended_authority_issues_and_revokes_nothing() {
    let dir = TempDir::new().unwrap();
    make_all(dir.path(), "p256");
    let key = KeyPair::from_pem(&fs::read_to_string(dir.path().join("ca-key.pem")).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "jobworker CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let words = "the CA ended on 2021-01-01 00:00:00 UTC: make a new one in another folder";
    refused(dir.path(), &["client", "--name", "carol", "--role", "user"], words);
    refused(dir.path(), &["revoke", "bob"], words);
}
