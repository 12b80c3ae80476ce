//! What a request for a renewal asks for changes nothing: no user becomes anybody else, by whatever bytes.

use std::fs;

use jobworker_tests::Worker;
use jobworker_tests::pki::{self, role_extension, role_value};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use tonic::Code;

use crate::cert_renew::{leaf, renew};
use crate::support::details;

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
