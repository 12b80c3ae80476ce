//! Certificates that renew themselves over the API: the same names, the same role, another key; and nothing that a
//! request says changes that.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use jobworker_certs::{Folder, Leaf, RoleOid};
use jobworker_tests::api::{ListRequest, RenewRequest, RenewResponse};
use jobworker_tests::client::{everything, output, spec, start, wait};
use jobworker_tests::pki::{self, Identity, role_extension, role_value};
use jobworker_tests::policy::{PolicyFile, shipped};
use jobworker_tests::wait::until_equal;
use jobworker_tests::{Client, Pki, Worker, until};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tonic::{Code, Status};

use crate::certs_support::ending;
use crate::support::{details, jobctl_as};

pub(crate) fn leaf(pem: &str) -> Leaf {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    Leaf::from_der(&der, &RoleOid::default()).expect("a certificate")
}

pub(crate) fn leaf_of(identity: &Identity) -> Leaf {
    leaf(&fs::read_to_string(&identity.cert).expect("a certificate"))
}

/// The files of somebody under other names.
fn kept(pki: &Pki, name: &str, as_name: &str) -> Identity {
    let (from, to) = (pki.identity(name), pki.identity(as_name));
    fs::copy(from.cert, &to.cert).expect("a certificate");
    fs::copy(from.key, &to.key).expect("a key");
    to
}

pub(crate) async fn renew(client: &mut Client, csr: Vec<u8>) -> Result<RenewResponse, Status> {
    Ok(client.renew(RenewRequest { csr }).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_the_same_client_with_another_key() {
    let file = PolicyFile::new(shipped::ISOLATED);
    let policy = file.path();
    let pki = Arc::new(Pki::new());
    pki.client("carol", "user", &["spiffe://example.org/carol", "urn:carol"]);
    let worker = Worker::builder()
        .pki(&pki)
        .renewing()
        .args(&["--policy", policy.to_str().expect("UTF-8"), "--renew-days", "90"])
        .start();
    let before = leaf_of(&pki.identity("carol"));
    let mut client = worker.client(&pki.identity("carol")).await;
    let job = start(&mut client, spec(&["echo", "mine"])).await.expect("a job").id;
    wait(&mut client, &job).await.expect("its end");
    let old = kept(&pki, "carol", "carol-before");
    for path in [&pki.identity("carol").key, &pki.identity("carol").cert] {
        fs::set_permissions(path, Permissions::from_mode(0o600)).expect("our own file");
    }

    let answer = jobctl_as(&worker, "carol", &["cert", "renew"]).with_code(0);
    assert!(answer.stdout.contains("carol.pem: renewed, valid until"), "{answer:#?}");
    assert_eq!(answer.stderr, "");
    let identity = pki.identity("carol");
    let after = leaf_of(&identity);
    assert_ne!(after.public_key, before.public_key);
    assert_ne!(after.serial.digits(), before.serial.digits());
    let names = |leaf: &Leaf| {
        (leaf.common_name.clone(), leaf.uris.clone(), leaf.dns_names.clone(), leaf.role.clone())
    };
    assert_eq!(names(&after), names(&before));
    let days = (after.not_after_unix_sec - before.not_after_unix_sec) / (24 * 60 * 60);
    assert_eq!(days, 45, "90 days from now instead of 45");
    for path in [&identity.cert, &identity.key] {
        assert_eq!(
            fs::metadata(path).expect("a file").permissions().mode() & 0o777,
            0o600,
            "{}",
            path.display()
        );
    }
    let left: Vec<_> =
        fs::read_dir(pki.dir()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    let mut beside: Vec<_> = left.iter().filter(|name| name.to_string_lossy().contains(".pem.")).collect();
    beside.sort();
    assert_eq!(beside, ["carol-key.pem.old", "carol.pem.old"], "the former pair, and nothing else: {left:?}");
    // The former pair is what it was, and its key its owner's.
    for (former, kept) in [(&identity.cert, &old.cert), (&identity.key, &old.key)] {
        let former = former.with_extension("pem.old");
        assert_eq!(fs::read(&former).expect("kept"), fs::read(kept).expect("a copy"));
        assert_eq!(fs::metadata(&former).expect("a file").permissions().mode() & 0o777, 0o600);
    }
    for words in
        ["signed by the CA \"test CA\"", "it is kept in", "carol.pem.old, its key in", "carol-key.pem.old"]
    {
        assert!(answer.stdout.contains(words), "{words}: {answer:#?}");
    }
    assert!(!answer.stdout.contains("refuses the new one"), "the same CA: {answer:#?}");

    // Old and new are one client, and the job is theirs; nobody else's.
    for certificate in [&identity, &old] {
        let mut client = worker.client(certificate).await;
        let output = output(&mut client, everything(&job)).await.expect("her own");
        assert_eq!(output.merged, b"mine\n");
    }
    output(&mut worker.user().await, everything(&job)).await.expect_err("another's");

    let lines: Vec<_> = worker.audit().into_iter().filter(|line| line["action"] == "renew").collect();
    let [decision] = &lines[..] else { panic!("{lines:#?}") };
    let lines = worker.certificates_issued();
    let [issued] = &lines[..] else { panic!("{lines:#?}") };
    for line in [decision, issued] {
        assert_eq!(
            (&line["decision"], &line["client"]),
            (&"allowed".into(), &"spiffe://example.org/carol".into())
        );
        assert_eq!(line["serial"], before.serial.digits());
    }
    assert!(
        decision["rule"].as_str().is_some_and(|rule| rule.ends_with(": roles.user.all = \"own\"")),
        "{decision}"
    );
    assert_eq!(issued["new_serial"], after.serial.digits());
    assert_eq!(issued["new_fingerprint"], after.fingerprint_sha256);
    assert!(issued["new_not_after"].as_str().is_some_and(|end| end.ends_with(".000000Z")), "{issued}");

    // What the audit log names can be revoked.
    let serial = issued["new_serial"].as_str().expect("a serial").parse().expect("a serial");
    Folder::at(pki.dir()).revoke(&serial).expect("a list");
    drop(worker);
    let worker = Worker::builder().pki(&pki).start();
    jobctl_as(&worker, "carol", &["list"]).with_code(1).saying(&["certificate revoked"]);
    jobctl_as(&worker, "carol-before", &["list"]).with_code(0);
}

#[test]
fn every_kind_of_key_and_once_more() {
    let worker = Worker::builder().renewing().start();
    for kind in ["ed25519", "rsa4096", "p256"] {
        wait_for_a_later_end(&worker.pki.identity("bob"), 45);
        let shown = jobctl_as(&worker, "bob", &["cert", "renew", "--key-kind", kind, "--output", "json"]);
        let shown: Value = serde_json::from_str(&shown.with_code(0).stdout).expect("JSON");
        assert_eq!((&shown["name"], &shown["role"]), (&"bob".into(), &"user".into()), "{shown}");
        assert_eq!(shown["serial"], leaf_of(&worker.pki.identity("bob")).serial.digits());
        jobctl_as(&worker, "bob", &["list"]).with_code(0);
    }
    let soon = jobctl_as(&worker, "bob", &["cert", "renew", "--within", "15days"]).with_code(0);
    soon.saying(&["not renewed: it ends in 4"]);
}

/// A certificate's end is told in whole seconds, and the next one has to end later.
fn wait_for_a_later_end(identity: &Identity, days: i64) {
    let end = leaf_of(identity).not_after_unix_sec;
    let now = || time::OffsetDateTime::now_utc().unix_timestamp();
    until("the next second", || (now() + days * 24 * 60 * 60 > end).then_some(()));
}

#[test]
fn off_by_default_with_words_that_say_how() {
    let worker = Worker::start();
    let before = fs::read(worker.pki.identity("bob").cert).expect("a certificate");
    jobctl_as(&worker, "bob", &["cert", "renew"]).with_code(1).saying(&[
        "renews no certificates",
        "--renew-ca",
        "jobctl cert request",
    ]);
    assert_eq!(fs::read(worker.pki.identity("bob").cert).expect("a certificate"), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn off_and_denied_have_codes_of_their_own() {
    let refused = renew(&mut Worker::start().user().await, pki::csr(|_| {})).await.expect_err("off");
    assert_eq!((refused.code(), details(&refused).0.as_str()), (Code::FailedPrecondition, "RENEWAL_OFF"));

    let file = PolicyFile::new(&format!("{}renew = \"none\"\n", shipped::DEFAULT));
    let worker =
        Worker::builder().renewing().args(&["--policy", file.path().to_str().expect("UTF-8")]).start();
    let refused = renew(&mut worker.user().await, b"not looked at".to_vec()).await.expect_err("denied");
    assert_eq!((refused.code(), details(&refused).0.as_str()), (Code::PermissionDenied, "DENIED"));
    jobctl_as(&worker, "bob", &["cert", "renew"]).with_code(1).saying(&["role \"user\" may not renew"]);
    renew(&mut worker.admin().await, pki::csr(|_| {})).await.expect("another role may");
    let line = worker.audit().remove(0);
    assert!(
        line["rule"].as_str().is_some_and(|rule| rule.ends_with("roles.user.renew = \"none\"")),
        "{line}"
    );

    for (name, role) in [("norole", Vec::new()), ("two", vec!["admin", "user"])] {
        let odd = worker.pki.odd_client(name, |params| {
            params.custom_extensions = role.iter().map(|role| role_extension(&role_value(role))).collect();
        });
        let refused = renew(&mut worker.client(&odd).await, pki::csr(|_| {})).await.expect_err(name);
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_too_often_is_told_and_others_are_served() {
    let worker = Worker::builder().renewing().start();
    let mut bob = worker.user().await;
    for _ in 0..10 {
        renew(&mut bob, pki::csr(|_| {})).await.expect("not too often");
    }
    let refused = renew(&mut bob, pki::csr(|_| {})).await.expect_err("too often");
    assert_eq!((refused.code(), details(&refused).0.as_str()), (Code::ResourceExhausted, "CAP_REACHED"));
    assert!(refused.message().contains("bob has asked for 10 certificates within a minute"), "{refused}");
    bob.list(ListRequest::default()).await.expect("everything else");
    renew(&mut worker.admin().await, pki::csr(|_| {})).await.expect("somebody else");
}

#[test]
fn a_certificate_that_has_ended_is_a_failure_to_whoever_asks_for_its_status() {
    let worker = Worker::start();
    jobctl_as(&worker, "bob", &["cert", "status"]).with_code(0);
    ending(&worker.pki, "over", time::OffsetDateTime::now_utc() - time::Duration::hours(2));
    let answer = jobctl_as(&worker, "over", &["cert", "status"]).with_code(1);
    assert!(answer.stdout.contains("(it has ended)"), "{answer:#?}");
}

#[test]
fn what_would_end_earlier_is_not_issued() {
    let worker = Worker::builder().args(&["--renew-days=5"]).renewing().start();
    let words = ["nothing is gained", "yours lasts until"];
    jobctl_as(&worker, "bob", &["cert", "renew"]).with_code(1).saying(&words);
    assert_eq!(worker.certificates_issued(), Vec::<serde_json::Value>::new());
    let told = || worker.audit().iter().map(|line| line["decision"].to_string()).collect::<Vec<_>>();
    until_equal("the audit lines", &vec!["\"allowed\"".to_owned(), "\"failed\"".to_owned()], told);
}
