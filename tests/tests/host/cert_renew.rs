//! Certificates that renew themselves over the API: the same names, the same role, another key; and nothing that a
//! request says changes that.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use jobworker_certs::{Folder, Leaf, RoleOid};
use jobworker_tests::api::{ListRequest, RenewRequest, RenewResponse};
use jobworker_tests::client::{everything, output, spec, start, wait};
use jobworker_tests::metrics::{address, samples};
use jobworker_tests::pki::{self, Identity, role_extension, role_value};
use jobworker_tests::policy::{PolicyFile, shipped};
use jobworker_tests::{Client, Pki, Worker, until};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tonic::{Code, Status};

use crate::certs_support::{ending, renewal_authority};
use crate::support::{Running, details, jobctl_as};

fn leaf(pem: &str) -> Leaf {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    Leaf::from_der(&der, &RoleOid::default()).expect("a certificate")
}

fn leaf_of(identity: &Identity) -> Leaf {
    leaf(&fs::read_to_string(&identity.cert).expect("a certificate"))
}

/// The files of somebody under other names.
fn kept(pki: &Pki, name: &str, as_name: &str) -> Identity {
    let (from, to) = (pki.identity(name), pki.identity(as_name));
    fs::copy(from.cert, &to.cert).expect("a certificate");
    fs::copy(from.key, &to.key).expect("a key");
    to
}

async fn renew(client: &mut Client, csr: Vec<u8>) -> Result<RenewResponse, Status> {
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
    assert!(!left.iter().any(|name| name.to_string_lossy().contains(".pem.")), "nothing is left: {left:?}");

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

/// Everything that a request could try to become somebody else with.
fn attempts() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let csr = |edit: &dyn Fn(&mut CertificateParams)| pki::csr(edit);
    let name = |name: &str| pki::csr(|params| params.distinguished_name.push(DnType::CommonName, name));
    let san = |name: SanType| pki::csr(|params| params.subject_alt_names = vec![name.clone()]);
    let ia5 = |text: &str| text.try_into().expect("ASCII");
    vec![
        ("another's name", name("alice"), &["csr: ", "the common name \"alice\""]),
        (
            "a URI name",
            san(SanType::URI(ia5("spiffe://example.org/alice"))),
            &["\"spiffe://example.org/alice\""],
        ),
        ("a DNS name", san(SanType::DnsName(ia5("alice"))), &["the DNS name \"alice\""]),
        ("an address", san(SanType::IpAddress([127, 0, 0, 1].into())), &["the address 127.0.0.1"]),
        ("an e-mail address", san(SanType::Rfc822Name(ia5("alice@example.org"))), &["alice@example.org"]),
        (
            "a role",
            csr(&|params| params.custom_extensions = vec![role_extension(&role_value("admin"))]),
            &["the extension 1.3.6.1.4.1.32473.1.1", "the role"],
        ),
        ("to be a CA", csr(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), &["CA:TRUE"]),
        (
            "to sign certificates",
            csr(&|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]),
            &["the key usages"],
        ),
        (
            "to be a server",
            csr(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            &["serverAuth"],
        ),
        (
            "any usage",
            csr(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]),
            &["extended key usage"],
        ),
        (
            "an organisation",
            csr(&|params| params.distinguished_name.push(DnType::OrganizationName, "admins")),
            &["2.5.4.10", "admins"],
        ),
        ("nothing", Vec::new(), &["it is no certificate request"]),
        ("too much", vec![0x30; 1 << 20], &["1048576 bytes", "16384 are the most"]),
        ("PEM", b"-----BEGIN CERTIFICATE REQUEST-----\n".to_vec(), &["it is no certificate request"]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_makes_a_user_anybody_else() {
    let worker = Worker::builder().renewing().start();
    for (number, (what, csr, words)) in attempts().into_iter().enumerate() {
        // Each by a client of its own, because only so many requests are answered in a minute.
        let mut user = worker.client(&worker.pki.client(&format!("user{number}"), "user", &[])).await;
        let refused = renew(&mut user, csr).await.expect_err(what);
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}: {refused}");
        assert_eq!(details(&refused), ("INVALID_FIELD".to_owned(), vec!["csr".to_owned()]), "{what}");
        for word in words {
            assert!(refused.message().contains(word), "{what}: no {word:?} in {}", refused.message());
        }
    }
    for line in worker.audit() {
        assert_eq!((&line["decision"], &line["action"]), (&"invalid".into(), &"renew".into()), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_request_may_say_changes_nothing_in_the_certificate() {
    let worker = Worker::builder().renewing().start();
    let own = pki::csr(|params| {
        params.distinguished_name.push(DnType::CommonName, "bob");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let mut bob = worker.user().await;
    for csr in [own, pki::csr(|_| {})] {
        let response = renew(&mut bob, csr).await.expect("his own");
        let leaf = leaf(&response.chain_pem);
        assert_eq!((leaf.common_name.as_deref(), leaf.role.as_deref()), (Some("bob"), Some("user")));
        assert_eq!(response.chain_pem.matches("BEGIN CERTIFICATE").count(), 1);
        assert_eq!(
            response.not_after_unix_usec / 1_000_000,
            u64::try_from(leaf.not_after_unix_sec).expect("later")
        );
        let path = worker.pki.dir().join("issued.pem");
        fs::write(&path, &response.chain_pem).expect("a writable folder");
        let text = crate::cert_requests::openssl(
            worker.pki.dir(),
            &["x509", "-in", "issued.pem", "-noout", "-text"],
        )
        .stdout;
        assert!(
            text.contains("TLS Web Client Authentication") && !text.contains("Server Authentication"),
            "{text}"
        );
        assert!(text.contains("CA:FALSE") && text.contains("Digital Signature\n"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_request_and_anothers_signature_are_refused() {
    let worker = Worker::builder().renewing().start();
    let mut bob = worker.user().await;
    let good = pki::csr(|_| {});
    let mut signature = good.clone();
    *signature.last_mut().expect("a signature") ^= 1;
    // Another's key in a request that its holder has signed: to get a certificate for a key that one does not have.
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let [mine, other] = [(), ()].map(|()| KeyPair::generate().expect("a key"));
    let request = params.serialize_request(&mine).expect("a request").der().to_vec();
    let at = request.windows(65).position(|bytes| bytes == mine.public_key_raw()).expect("its key");
    let mut stolen = request.clone();
    stolen[at..at + 65].copy_from_slice(other.public_key_raw());
    for (csr, words) in [
        (signature, "its signature was not made with the private key"),
        (stolen, "its signature was not made with the private key"),
        (good[..good.len() - 1].to_vec(), "it is no certificate request"),
        ([&good[..], b"x"].concat(), "1 bytes follow it"),
    ] {
        let refused = renew(&mut bob, csr).await.expect_err(words);
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(words), "{refused}");
    }
    renew(&mut bob, request).await.expect("an untouched one");
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
fn another_authority_renews_until_its_own_end() {
    let pki = Arc::new(Pki::new());
    let [ca, key] = renewal_authority(&pki, "renewal CA", true);
    let worker = Worker::builder().pki(&pki).args(&["--renew-ca", &ca, "--renew-key", &key]).start();
    assert!(!worker.log().iter().any(|line| line.contains("will refuse")), "{:#?}", worker.log());
    // It would end with its CA, before the one there is.
    let before = fs::read(pki.identity("bob").cert).expect("a certificate");
    let answer = jobctl_as(&worker, "bob", &["cert", "renew"]).with_code(1);
    answer.saying(&["a certificate from here would end on", "yours lasts until"]);
    assert_eq!(worker.certificates_issued(), Vec::<serde_json::Value>::new());
    assert_eq!(fs::read(pki.identity("bob").cert).expect("a certificate"), before);
    let short = pki.odd_client("dora", |params| {
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(1);
        params.not_after =
            time::OffsetDateTime::now_utc() + time::Duration::days(3) + time::Duration::hours(1);
        params.custom_extensions = vec![role_extension(&role_value("user"))];
    });
    let note = "jobctl: note: your certificate ends in 3 days: jobctl cert renew\n";
    let listed = jobctl_as(&worker, "dora", &["list", "--output", "json"]).with_code(0);
    assert_eq!((listed.stderr.as_str(), listed.stdout.as_str()), (note, "[]\n"));
    jobctl_as(&worker, "dora", &["cert", "renew"]).with_code(0);
    let after = leaf_of(&short);
    let authority = leaf(&fs::read_to_string(&ca).expect("the CA"));
    assert_eq!(after.not_after_unix_sec, authority.not_after_unix_sec, "it ends with its CA");
    let listed = jobctl_as(&worker, "dora", &["list"]).with_code(0);
    assert_eq!(listed.stderr, "", "20 days are left");
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
fn the_end_of_the_authority_is_told_like_the_others() {
    let pki = Arc::new(Pki::new());
    let [ca, key] = renewal_authority(&pki, "renewal", true);
    let args = ["--renew-ca", &ca, "--renew-key", &key, "--metrics-listen=127.0.0.1:0"];
    let worker = Worker::builder().pki(&pki).args(&args).start();
    let begin = format!("the renewal CA {ca} (renewal) ends in ");
    let lines = || worker.log().into_iter().filter(|line| line.contains(&begin)).count();
    until("its line in the log", || (lines() == 1).then_some(()));
    let end = leaf(&fs::read_to_string(&ca).expect("the CA")).not_after_unix_sec;
    let sample = format!("what=\"renewal_ca\",subject=\"renewal\",path=\"{ca}\"");
    let told = samples(&address(&worker));
    let value =
        *told.iter().find(|(name, _)| name.contains(&sample)).unwrap_or_else(|| panic!("{told:#?}")).1;
    #[expect(clippy::cast_precision_loss, reason = "seconds of this century fit")]
    let expected = end as f64;
    assert_eq!(value, expected);
}

/// An empty list of revoked certificates, PEM.
fn empty_list(issuer: &CertifiedIssuer<'_, KeyPair>) -> String {
    let now = time::OffsetDateTime::now_utc();
    let params = CertificateRevocationListParams {
        this_update: now - time::Duration::days(1),
        next_update: now + time::Duration::days(9),
        crl_number: vec![1].into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).and_then(|list| list.pem()).expect("a list")
}

#[test]
fn an_intermediate_authority_sends_what_is_between_it_and_the_root() {
    let pki = Arc::new(Pki::new());
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let key = || KeyPair::generate().expect("a key");
    let root = CertifiedIssuer::self_signed(params("root"), key()).expect("a root");
    let middle = CertifiedIssuer::signed_by(params("middle"), key(), &root).expect("a CA");
    let [ca, renew_key] = ["middle.pem", "middle-key.pem"].map(|file| pki.dir().join(file));
    fs::write(&ca, middle.pem() + &root.pem()).expect("a writable folder");
    fs::write(&renew_key, middle.key().serialize_pem()).expect("a writable folder");
    fs::set_permissions(&renew_key, Permissions::from_mode(0o600)).expect("our own file");
    for (file, more) in [("ca.pem", root.pem()), ("crl.pem", empty_list(&root) + &empty_list(&middle))] {
        let path = pki.dir().join(file);
        fs::write(&path, fs::read_to_string(&path).expect("a file") + &more).expect("a writable folder");
    }
    let [ca, renew_key] = [ca, renew_key].map(|path| path.to_str().expect("UTF-8").to_owned());
    let options = ["--renew-ca", &ca, "--renew-key", &renew_key, "--renew-days", "90"];
    let worker = Worker::builder().pki(&pki).args(&options).start();
    assert!(!worker.log().iter().any(|line| line.contains("will refuse")), "{:#?}", worker.log());
    jobctl_as(&worker, "bob", &["cert", "renew"]).with_code(0);
    let chain = fs::read_to_string(pki.identity("bob").cert).expect("a chain");
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2, "the certificate and the one that signed it");
    assert!(chain.ends_with(&middle.pem()), "and not the root: {chain}");
    jobctl_as(&worker, "bob", &["list"]).with_code(0);
}

#[test]
fn a_certificate_that_the_worker_would_refuse_never_replaces_one_that_it_takes() {
    let pki = Arc::new(Pki::new());
    let [ca, key] = renewal_authority(&pki, "stranger", false);
    let worker = Worker::builder().pki(&pki).args(&["--renew-ca", &ca, "--renew-key", &key]).start();
    assert!(
        worker.log().iter().any(|line| line.contains("will refuse the certificates")),
        "{:#?}",
        worker.log()
    );
    pki.odd_client("erin", |params| {
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(2);
        params.custom_extensions = vec![role_extension(&role_value("user"))];
    });
    let files = |identity: &Identity| {
        [fs::read(&identity.cert), fs::read(&identity.key)].map(|file| file.expect("a file"))
    };
    let before = files(&pki.identity("erin"));
    let answer = jobctl_as(&worker, "erin", &["cert", "renew"]).with_code(1);
    answer.saying(&["erin.pem is kept as it was", "does not let its own new certificate in"]);
    assert_eq!(files(&pki.identity("erin")), before);
    let left = fs::read_dir(pki.dir()).expect("a folder").flatten().count();
    jobctl_as(&worker, "erin", &["list"]).with_code(0);
    assert_eq!(left, fs::read_dir(pki.dir()).expect("a folder").flatten().count());
}

#[test]
fn a_key_that_others_can_get_at_or_that_does_not_fit_keeps_the_worker_from_starting() {
    let pki = Pki::new();
    let [ca, key] = renewal_authority(&pki, "renewal CA", true);
    let attempt = |ca: &str, key: &str| {
        let mut command = std::process::Command::new(jobworker_tests::binaries::binary("jobworker"));
        jobworker_tests::worker::clean(&mut command);
        let server = pki.server();
        command.args(["serve", "--listen", "127.0.0.1:0", "--renew-ca", ca, "--renew-key", key]);
        command.arg("--state-dir").arg(pki.dir().join("state")).arg("--ca").arg(pki.ca());
        command.arg("--cert").arg(server.cert).arg("--key").arg(server.key);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut attempt = Running::start(command);
        // One that comes up in spite of it does not end.
        assert_eq!(attempt.ended().code(), Some(1));
        attempt
    };
    for mode in [0o604, 0o620, 0o644, 0o666] {
        fs::set_permissions(Path::new(&key), Permissions::from_mode(mode)).expect("our own file");
        attempt(&ca, &key).wait_for_stderr("ca-key.pem has mode");
    }
    fs::set_permissions(Path::new(&key), Permissions::from_mode(0o640)).expect("our own file");
    let alice = pki.identity("alice");
    let (leaf, leafs_key) = (alice.cert.to_str().expect("UTF-8"), alice.key.to_str().expect("UTF-8"));
    attempt(leaf, leafs_key).wait_for_stderr("not a CA's certificate");
    attempt(&ca, leafs_key).wait_for_stderr("alice-key.pem is not this certificate's private key");
    attempt("/no/such.pem", &key).wait_for_stderr("/no/such.pem");
}

#[test]
fn what_would_end_earlier_is_not_issued() {
    let worker = Worker::builder().args(&["--renew-days=5"]).renewing().start();
    let words = ["nothing is gained", "yours lasts until"];
    jobctl_as(&worker, "bob", &["cert", "renew"]).with_code(1).saying(&words);
    assert_eq!(worker.certificates_issued(), Vec::<serde_json::Value>::new());
    let told: Vec<_> = worker.audit().iter().map(|line| line["decision"].clone()).collect();
    assert_eq!(told, ["allowed", "failed"], "{:#?}", worker.audit());
}
