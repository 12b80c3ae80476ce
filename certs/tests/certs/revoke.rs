//! Revocation: the signed list is the only record, and it only grows.

use std::{fs, path::Path, thread};

use crate::common::{certificate, certs, make_all, openssl, openssl_text};
use jobworker_certs::{Folder, Revocation, Serial};
use tempfile::TempDir;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

fn serial(dir: &Path, file: &str) -> String {
    let der = certificate(&dir.join(file));
    X509Certificate::from_der(&der).unwrap().1.raw_serial_as_string()
}

/// The list's number and its serials, as openssl shows them.
fn list(dir: &Path) -> (String, Vec<String>) {
    let text = openssl_text(dir, &["crl", "-in", "crl.pem", "-CAfile", "ca.pem", "-noout", "-text"]);
    let (_, after) = text.split_once("X509v3 CRL Number: ").expect("a list has a number");
    let number = after.split_whitespace().next().unwrap().to_owned();
    let serials = text.lines().filter_map(|line| line.trim().strip_prefix("Serial Number: "));
    (number, serials.map(str::to_lowercase).collect())
}

fn hex(serial: &str) -> String {
    serial.replace(':', "")
}

#[test]
fn the_list_grows_keeps_its_entries_and_is_left_alone_the_second_time() {
    let dir = TempDir::new().unwrap();
    make_all(dir.path(), "p256");
    assert_eq!(list(dir.path()), ("1".to_owned(), vec![]));
    let (bob, server) = (serial(dir.path(), "bob.pem"), serial(dir.path(), "server.pem"));
    certs(dir.path(), &["revoke", "bob"]).unwrap();
    assert_eq!(list(dir.path()), ("2".to_owned(), vec![hex(&bob)]));
    let before = fs::read(dir.path().join("crl.pem")).unwrap();
    certs(dir.path(), &["revoke", "bob"]).unwrap();
    certs(dir.path(), &["revoke", "--serial", &bob.to_uppercase()]).unwrap();
    assert_eq!(fs::read(dir.path().join("crl.pem")).unwrap(), before);
    certs(dir.path(), &["revoke", "server"]).unwrap();
    assert_eq!(list(dir.path()), ("3".to_owned(), vec![hex(&bob), hex(&server)]));
    let text = openssl_text(dir.path(), &["crl", "-in", "crl.pem", "-noout", "-text"]);
    assert!(!text.contains("Reason Code"), "RFC 5280: unspecified is left out; {text}");
    let verify = |file| {
        openssl(dir.path(), &["verify", "-crl_check", "-CAfile", "ca.pem", "-CRLfile", "crl.pem", file])
    };
    assert!(verify("alice.pem").status.success());
    assert!(String::from_utf8_lossy(&verify("bob.pem").stderr).contains("certificate revoked"));
}

#[test]
fn a_certificate_whose_file_was_replaced_is_revoked_by_its_serial() {
    let dir = TempDir::new().unwrap();
    make_all(dir.path(), "p256");
    let (old_serial, old_pem) =
        (serial(dir.path(), "bob.pem"), fs::read(dir.path().join("bob.pem")).unwrap());
    let old_key = fs::read(dir.path().join("bob-key.pem")).unwrap();
    certs(dir.path(), &["client", "--name", "bob", "--role", "user", "--force"]).unwrap();
    certs(dir.path(), &["revoke", "--serial", &old_serial]).unwrap();
    crate::common::handshake(dir.path(), "bob", "localhost").unwrap();
    fs::write(dir.path().join("lost.pem"), old_pem).unwrap();
    fs::write(dir.path().join("lost-key.pem"), old_key).unwrap();
    let error = crate::common::handshake(dir.path(), "lost", "localhost").unwrap_err().to_string();
    assert!(error.contains("Revoked"), "{error}");
}

#[test]
fn revocations_at_the_same_time_all_count() {
    let dir = TempDir::new().unwrap();
    certs(dir.path(), &["init"]).unwrap();
    let serials: Vec<Serial> = (1..=16).map(|n| format!("40{n:02x}").parse().unwrap()).collect();
    thread::scope(|scope| {
        for serial in &serials {
            scope.spawn(|| assert_eq!(Folder::at(dir.path()).revoke(serial).unwrap(), Revocation::Added));
        }
    });
    let (number, mut listed) = list(dir.path());
    listed.sort();
    let wanted: Vec<_> = serials.iter().map(|serial| hex(&serial.to_string())).collect();
    assert_eq!((number.as_str(), listed), ("17", wanted));
}

#[test]
fn what_can_not_be_revoked_is_said_and_the_list_stays() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    make_all(dir.path(), "p256");
    make_all(other.path(), "p256");
    fs::copy(other.path().join("bob.pem"), dir.path().join("mallory.pem")).unwrap();
    fs::write(dir.path().join("junk.pem"), "junk").unwrap();
    fs::copy(dir.path().join("crl.pem"), dir.path().join("list.pem")).unwrap();
    let before = fs::read(dir.path().join("crl.pem")).unwrap();
    let authority = serial(dir.path(), "ca.pem");
    for (args, words) in [
        (&["nobody"][..], "nobody.pem: No such file"),
        (&["mallory"], "mallory.pem: not issued by the CA in this folder"),
        (&["junk"], "junk.pem: no PEM block \"CERTIFICATE\""),
        (&["list"], "list.pem: holds a PEM block \"X509 CRL\""),
        (&["ca"], "client name \"ca\""),
        (&["../bob"], "client name \"../bob\""),
        (&["--serial", &authority], "is the CA's own"),
        (&["--serial", "xyz"], "serial \"xyz\": hexadecimal"),
        (&["--serial", "4f", "bob"], "cannot be used with"),
        (&[], "required arguments were not provided"),
    ] {
        let error = certs(dir.path(), &[&["revoke"], args].concat()).unwrap_err();
        assert!(error.contains(words), "{args:?}: {error}");
    }
    assert_eq!(fs::read(dir.path().join("crl.pem")).unwrap(), before);
}

#[test]
fn a_list_that_is_missing_broken_or_anothers_is_not_replaced() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    make_all(dir.path(), "p256");
    make_all(other.path(), "p256");
    let list = dir.path().join("crl.pem");
    fs::copy(other.path().join("crl.pem"), &list).unwrap();
    let error = certs(dir.path(), &["revoke", "bob"]).unwrap_err();
    assert!(error.contains("crl.pem: not issued by the CA in this folder"), "{error}");
    fs::write(&list, "").unwrap();
    assert!(
        certs(dir.path(), &["revoke", "bob"]).unwrap_err().contains("crl.pem: no PEM block \"X509 CRL\"")
    );
    assert_eq!(fs::read(&list).unwrap(), b"");
    fs::remove_file(&list).unwrap();
    assert!(certs(dir.path(), &["revoke", "bob"]).unwrap_err().contains("crl.pem: No such file"));
    assert!(!list.exists(), "a new list would forget who was revoked");
}
