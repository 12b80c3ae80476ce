//! The certificates do what they are for: TLS 1.3 between a client and a server that checks the revocation list.

use std::{path::Path, process::Command};

use crate::common::{certs, handshake, make_all};
use jobworker_certs::Authority;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use tempfile::TempDir;

fn refused(dir: &Path, client: &str, host: &str) -> String {
    handshake(dir, client, host).expect_err("the handshake must fail").to_string()
}

#[test]
fn every_kind_of_key_is_accepted() {
    for key in ["p256", "ed25519", "rsa4096"] {
        let dir = TempDir::new().unwrap();
        make_all(dir.path(), key);
        for host in ["localhost", "127.0.0.1"] {
            handshake(dir.path(), "alice", host).unwrap_or_else(|error| panic!("{key}, {host}: {error}"));
        }
    }
}

#[test]
fn another_host_and_the_wrong_usage_are_refused() {
    let dir = TempDir::new().unwrap();
    make_all(dir.path(), "p256");
    let error = refused(dir.path(), "alice", "example.org");
    assert!(error.contains("not valid for name"), "{error}");
    let error = refused(dir.path(), "server", "localhost");
    assert!(error.contains("allow extended key usage for client authentication"), "{error}");
}

#[test]
fn another_authority_is_refused_though_it_has_the_same_name() {
    let (ours, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    make_all(ours.path(), "p256");
    make_all(other.path(), "p256");
    for file in ["alice.pem", "alice-key.pem"] {
        std::fs::copy(other.path().join(file), ours.path().join(file)).unwrap();
    }
    let error = refused(ours.path(), "alice", "localhost");
    assert!(error.contains("BadSignature"), "{error}");
}

#[test]
fn a_revoked_client_is_refused_and_the_others_are_not() {
    for key in ["p256", "ed25519", "rsa4096"] {
        let dir = TempDir::new().unwrap();
        make_all(dir.path(), key);
        certs(dir.path(), &["revoke", "bob"]).unwrap();
        let error = refused(dir.path(), "bob", "localhost");
        assert!(error.contains("Revoked"), "{key}: {error}");
        handshake(dir.path(), "alice", "localhost").unwrap();
        // A new certificate for the same person is another serial number.
        certs(dir.path(), &["client", "--name", "bob", "--role", "user", "--force"]).unwrap();
        handshake(dir.path(), "bob", "localhost").unwrap();
    }
}

#[test]
fn the_issuer_signs_what_the_commands_would_not() {
    let dir = TempDir::new().unwrap();
    make_all(dir.path(), "p256");
    let authority = Authority::load(dir.path()).unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority.issuer()).unwrap();
    std::fs::write(dir.path().join("old.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.path().join("old-key.pem"), key.serialize_pem()).unwrap();
    let error = refused(dir.path(), "old", "localhost");
    assert!(error.contains("expired"), "{error}");
}

fn script(dir: &Path, args: &[&str]) -> std::process::Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/openssl.sh");
    Command::new("sh").arg(script).args(args).current_dir(dir).output().unwrap()
}

#[test]
fn the_openssl_scripts_certificates_are_accepted_and_revoked_by_either_tool() {
    for key in ["rsa4096", "p256"] {
        let dir = TempDir::new().unwrap();
        let output = script(dir.path(), &["--key", key, ".", "localhost", "127.0.0.1", "::1"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for host in ["localhost", "127.0.0.1", "::1"] {
            handshake(dir.path(), "admin", host).unwrap();
        }
        handshake(dir.path(), "user", "localhost").unwrap();
        for name in ["ca", "server", "admin", "user"] {
            assert_eq!(mode(dir.path(), &format!("{name}-key.pem")), 0o600);
            assert_eq!(mode(dir.path(), &format!("{name}.pem")), 0o644);
        }
        // The folder is one of ours: our commands go on where openssl stopped, and keep what it revoked.
        crate::common::openssl_text(dir.path(), &["ca", "-config", "openssl.cnf", "-revoke", "user.pem"]);
        crate::common::openssl_text(
            dir.path(),
            &["ca", "-config", "openssl.cnf", "-gencrl", "-out", "crl.pem"],
        );
        assert!(refused(dir.path(), "user", "localhost").contains("Revoked"));
        certs(dir.path(), &["client", "--name", "alice", "--role", "admin"]).unwrap();
        handshake(dir.path(), "alice", "localhost").unwrap();
        certs(dir.path(), &["revoke", "alice"]).unwrap();
        for name in ["user", "alice"] {
            assert!(refused(dir.path(), name, "localhost").contains("Revoked"), "{key}, {name}");
        }
        handshake(dir.path(), "admin", "localhost").unwrap();
    }
}

fn mode(dir: &Path, file: &str) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_openssl_script_refuses_bad_arguments_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    for (args, words) in [
        (&[][..], "usage:"),
        (&["out"], "usage:"),
        (&["--key"], "--key needs a value"),
        (&["--key", "dsa", "out", "localhost"], "--key 'dsa'"),
        (&["out", "a b"], "host 'a b'"),
        (&["out", "localhost,DNS:evil"], "host 'localhost,DNS:evil'"),
        (&["--key", "p256", "out", "300.1.1.1"], "300.1.1.1"),
    ] {
        let output = script(dir.path(), args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(words), "{args:?}: {stderr}");
        let left = dir.path().join("out").read_dir().map_or(0, Iterator::count);
        assert_eq!(left, 0, "{args:?} left files");
    }
    let help = script(dir.path(), &["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).starts_with("usage: openssl.sh"));
    assert!(script(dir.path(), &["--key", "p256", "out", "localhost"]).status.success());
    let again = script(dir.path(), &["--key", "p256", "out", "localhost"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("out/ca.pem exists already"));
}
