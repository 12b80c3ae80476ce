//! The CA that renews: another one than the one that clients are trusted by, an intermediate one, one that can't be used.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use jobworker_tests::metrics::{address, samples};
use jobworker_tests::pki::{Identity, role_extension, role_value};
use jobworker_tests::{Pki, Worker, until};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose,
};

use crate::cert_renew::{leaf, leaf_of};
use crate::certs_support::renewal_authority;
use crate::support::{Answer, Running, jobctl_as};

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
fn what_ends_with_its_ca_is_renewed_to_the_same_end() {
    let pki = Arc::new(Pki::new());
    let [ca, key] = renewal_authority(&pki, "renewal CA", true);
    let worker = Worker::builder().pki(&pki).args(&["--renew-ca", &ca, "--renew-key", &key]).start();
    let dora = pki.odd_client("dora", |params| {
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(3);
        params.custom_extensions = vec![role_extension(&role_value("user"))];
    });
    jobctl_as(&worker, "dora", &["cert", "renew"]).with_code(0);
    let (first, serial) = (leaf_of(&dora), |leaf: &jobworker_certs::Leaf| leaf.serial.digits());
    jobctl_as(&worker, "dora", &["cert", "renew"]).with_code(0);
    let second = leaf_of(&dora);
    assert_eq!(second.not_after_unix_sec, first.not_after_unix_sec);
    assert_ne!(serial(&second), serial(&first));
    assert_eq!(worker.certificates_issued().len(), 2);
}

#[test]
fn the_pair_of_the_first_ca_is_kept_for_workers_that_know_no_other() {
    let pki = Arc::new(Pki::new());
    // What a worker has that knows the first CA only.
    let dir = tempfile::tempdir().expect("a temporary folder");
    for file in ["ca.pem", "ca-key.pem", "crl.pem", "server.pem", "server-key.pem"] {
        fs::copy(pki.dir().join(file), dir.path().join(file)).expect("a writable folder");
    }
    let other = Worker::builder().pki(&Arc::new(Pki::found_in(dir))).start();
    let only_first = other.pki.ca();
    let [ca, key] = renewal_authority(&pki, "renewal CA", true);
    let worker = Worker::builder().pki(&pki).args(&["--renew-ca", &ca, "--renew-key", &key]).start();
    let dora = pki.odd_client("dora", |params| {
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(3);
        params.custom_extensions = vec![role_extension(&role_value("user"))];
    });
    let config = pki.dir().join("config.toml");
    let context = |name: &str, address: &str, ca: &Path| {
        let (ca, cert, key) = (ca.display(), dora.cert.display(), dora.key.display());
        format!("[contexts.{name}]\naddress = '{address}'\nca = '{ca}'\ncert = '{cert}'\nkey = '{key}'\n")
    };
    let contexts =
        context("here", &worker.address, &pki.ca()) + &context("there", &other.address, &only_first);
    fs::write(&config, contexts).expect("a writable folder");
    let renew = || {
        let mut jobctl = worker.jobctl_as("dora", &["cert", "renew"]);
        Answer::of(jobctl.env("JOBCTL_CONFIG", &config)).with_code(0)
    };
    let before = [fs::read(&dora.cert).expect("a file"), fs::read(&dora.key).expect("a file")];
    let former = [dora.cert.with_extension("pem.old"), dora.key.with_extension("pem.old")];
    let kept = || former.each_ref().map(|path| fs::read(path).expect("a file"));

    let answer = renew();
    for words in [
        "signed by the CA \"renewal CA\"",
        "that one is signed by the CA \"test CA\": a worker whose --ca has no other refuses the new one",
        &format!("(--cert {} --key {})", former[0].display(), former[1].display()),
    ] {
        assert!(answer.stdout.contains(words), "{words}: {answer:#?}");
    }
    let note = format!("context \"there\" uses this certificate, too, and no CA in {}", only_first.display());
    assert!(answer.stderr.contains(&note) && !answer.stderr.contains("\"here\""), "{answer:#?}");
    assert_eq!(kept(), before);
    // The other worker does refuse the new one, and takes the former one.
    let with = |cert: &Path, key: &Path| {
        Answer::of(other.jobctl_as("dora", &["list"]).env("JOBCTL_CERT", cert).env("JOBCTL_KEY", key))
    };
    with(&dora.cert, &dora.key).with_code(1).saying(&["not signed by a CA that the worker knows"]);
    with(&former[0], &former[1]).with_code(0);

    // A second renewal, by the same CA as the first, does not cost the one that is needed there.
    let answer = renew();
    assert!(answer.stdout.contains("it is not kept, because"), "{answer:#?}");
    assert_eq!(kept(), before);
}
