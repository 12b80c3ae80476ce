//! `jobctl cert renew` and a worker that answers with anything but this client's next certificate: the pair that is there
//! stays.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use time::{Duration, OffsetDateTime};

use crate::fake_worker::{FakeWorker, Script};
use crate::jobctl::{Ran, as_client, bare};
use crate::pki::Pki;
use crate::script::Renews;

/// What a worker like this leaves a client with, whose certificate ended in 3 days.
fn renewed_by(pki: &Arc<Pki>, renews: Renews) -> Ran {
    let worker = FakeWorker::new(pki, Script { renews: Some(renews), ..Script::default() });
    Ran::from(as_client(pki, "carol", worker.address, &["cert", "renew"]).output().expect("jobctl runs"))
}

fn files(folder: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let mut files: Vec<_> =
        entries.map(|entry| (entry.file_name(), fs::read(entry.path()).expect("a file"))).collect();
    files.sort();
    files
}

fn later(params: &mut CertificateParams) {
    params.not_after = OffsetDateTime::now_utc() + Duration::days(45);
}

#[test]
fn anything_but_the_next_certificate_is_refused_and_changes_no_file() {
    let pki = Arc::new(Pki::new());
    pki.issue_short("carol", 3);
    let before = files(pki.folder());
    let other = Arc::clone(&pki);
    let sign = |edit: fn(&mut CertificateParams)| -> Renews {
        let pki = Arc::clone(&pki);
        Arc::new(move |csr| pki.sign(csr, edit))
    };
    let another_key = move |_: &[u8]| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "carol");
        let csr = params.serialize_request(&KeyPair::generate().expect("a key")).expect("a request");
        other.sign(csr.der(), later)
    };
    let cases: Vec<(Renews, &str)> = vec![
        (Arc::new(|_| String::new()), "holds no certificate"),
        (Arc::new(|_| "-----BEGIN CERTIFICATE-----\nx".to_owned()), "no certificate that can be read"),
        (Arc::new(another_key), "is for another key"),
        (
            sign(|params| {
                later(params);
                params.distinguished_name.push(DnType::CommonName, "mallory");
            }),
            "has other names",
        ),
        (
            sign(|params| {
                later(params);
                params.subject_alt_names.push(SanType::URI("urn:x".try_into().expect("ASCII")));
            }),
            "has other names",
        ),
        (
            sign(|params| {
                later(params);
                let oid = [1, 3, 6, 1, 4, 1, 32473, 1, 1];
                let admin = rcgen::CustomExtension::from_oid_content(&oid, b"\x0c\x05admin".to_vec());
                params.custom_extensions.push(admin);
            }),
            "has another role: Some(\"admin\") instead of None",
        ),
        (sign(|params| params.not_after = OffsetDateTime::now_utc() + Duration::days(2)), "would end on"),
        (
            sign(|params| {
                later(params);
                params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            }),
            "does not let its own new certificate in",
        ),
    ];
    for (renews, words) in cases {
        let ran = renewed_by(&pki, renews);
        assert_eq!(ran.code, Some(1), "{words}: {ran:?}");
        assert!(
            ran.stderr.contains(words) && ran.stderr.contains("carol.pem is kept as it was"),
            "{words}: {ran:?}"
        );
        assert_eq!(files(pki.folder()), before, "{words}");
    }
    let ran = renewed_by(&pki, sign(later));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let after = files(pki.folder());
    let changed: Vec<_> = after.iter().filter(|file| !before.contains(file)).map(|(name, _)| name).collect();
    assert_eq!(changed, ["carol-key.pem", "carol-key.pem.old", "carol.pem", "carol.pem.old"]);
    assert_eq!(before.len() + 2, after.len());
    for name in ["carol.pem", "carol-key.pem"] {
        let of = |files: &[(std::ffi::OsString, Vec<u8>)], name: &str| {
            files.iter().find(|(other, _)| other == name).map(|(_, bytes)| bytes.clone())
        };
        assert_eq!(of(&after, &format!("{name}.old")), of(&before, name), "the former one is kept");
    }
}

#[test]
fn an_old_worker_and_an_unreadable_certificate_are_told() {
    let pki = Pki::new();
    let worker = FakeWorker::new(&pki, Script::default());
    let ran =
        Ran::from(as_client(&pki, "alice", worker.address, &["cert", "renew"]).output().expect("it runs"));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), "jobctl: an old worker\n"));
    let key = pki.path("alice-key.pem");
    let mut status = bare(&["cert", "status", "--cert", key.to_str().expect("UTF-8")]);
    let ran = Ran::from(status.output().expect("it runs"));
    assert!(ran.code == Some(1) && ran.stderr.contains("no certificate can be read from it"), "{ran:?}");
    let ran = Ran::from(bare(&["cert", "status"]).output().expect("it runs"));
    assert!(ran.code == Some(1) && ran.stderr.contains("no --cert"), "{ran:?}");
}

#[test]
fn only_the_last_week_is_told_of() {
    let pki = Pki::new();
    let worker = FakeWorker::new(&pki, Script::default());
    for (days, expected) in [
        (0, "jobctl: note: your certificate ends in 1 hour: jobctl cert renew\n"),
        (1, "jobctl: note: your certificate ends in 1 day: jobctl cert renew\n"),
        (6, "jobctl: note: your certificate ends in 6 days: jobctl cert renew\n"),
        (7, ""),
    ] {
        let name = format!("in{days}");
        pki.issue_short(&name, days);
        let args = ["list", "--output", "json"];
        let ran = Ran::from(as_client(&pki, &name, worker.address, &args).output().expect("it runs"));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        // Truncated: an hour and a few milliseconds may be less than an hour by now.
        let stderr = ran.stderr.replace("less than an hour", "1 hour");
        assert_eq!(stderr, expected, "{days} days");
        assert!(ran.stdout.starts_with('['), "JSON and nothing else: {ran:?}");
    }
}
