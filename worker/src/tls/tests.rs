use std::fs;

use jobworker_certs::{AuthorityRequest, Days, Existing, Folder, Holder, KeyKind, ServerRequest};
use rcgen::{CertificateRevocationListParams, KeyIdMethod, SerialNumber};
use tempfile::TempDir;

use super::set::Set;
use super::*;

struct Pki {
    dir: TempDir,
    files: Files,
}

fn pki() -> Pki {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::at(dir.path());
    let name = "test CA".parse().unwrap();
    folder.init(&AuthorityRequest { name, key: KeyKind::P256, days: Days::YEAR }).unwrap();
    let server =
        ServerRequest { hosts: vec!["localhost".parse().unwrap()], key: KeyKind::P256, days: Days::YEAR };
    folder.issue(&Holder::Server, Existing::Keep, |ca| ca.issue_server(&server)).unwrap();
    let file = |name: &str| dir.path().join(name);
    let crl = vec![file("crl.pem")];
    let files = Files { ca: file("ca.pem"), cert: file("server.pem"), key: file("server-key.pem"), crl };
    Pki { dir, files }
}

fn refused(files: &Files) -> String {
    server_config(files).expect_err("a file is bad").to_string()
}

#[test]
fn the_projects_own_files_are_good() {
    let Pki { dir: _dir, files } = pki();
    let config = server_config(&files).unwrap();
    assert_eq!((config.send_tls13_tickets, config.alpn_protocols.as_slice()), (0, &[b"h2".to_vec()][..]));
    server_config(&Files { crl: Vec::new(), ..files }).unwrap();
}

#[test]
fn the_suites_are_those_of_tls_1_3_in_our_order() {
    let provider = provider();
    let suites: Vec<_> = provider.cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
    assert_eq!(
        suites,
        ["TLS13_AES_256_GCM_SHA384", "TLS13_AES_128_GCM_SHA256", "TLS13_CHACHA20_POLY1305_SHA256"]
    );
    assert!(provider.kx_groups.iter().any(|group| group.name() == rustls::NamedGroup::X25519MLKEM768));
}

#[test]
fn a_file_that_is_missing_or_something_else_is_named() {
    let Pki { dir, files } = pki();
    let missing = dir.path().join("none.pem");
    let error = refused(&Files { ca: missing.clone(), ..files.clone() });
    assert!(error.starts_with(&format!("can't use the CA {}: No such file", missing.display())), "{error}");
    let error = refused(&Files { cert: files.key.clone(), ..files.clone() });
    assert!(
        error.ends_with(
            "server-key.pem: it has no section \"-----BEGIN CERTIFICATE-----\" (PEM); it begins with \"PRIVATE KEY\""
        ),
        "{error}"
    );
    let error = refused(&Files { key: files.ca.clone(), ..files.clone() });
    assert!(error.contains("the private key") && error.contains("BEGIN PRIVATE KEY"), "{error}");
    let error = refused(&Files { key: dir.path().join("ca-key.pem"), ..files.clone() });
    assert!(error.contains("ca-key.pem: it is not the key of the certificate"), "{error}");
    let error = refused(&Files { crl: vec![files.ca.clone()], ..files });
    assert!(error.contains("the revocation list") && error.contains("BEGIN X509 CRL"), "{error}");
}

/// A list of nobody that ended long ago, by the CA of a folder. PEM.
fn ended_list(dir: &TempDir, number: u8) -> String {
    let authority = jobworker_certs::Authority::load(dir.path()).unwrap();
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2020, 2, 1),
        crl_number: SerialNumber::from(vec![number]),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(authority.issuer()).unwrap().pem().unwrap()
}

const ENDED: &str = "it expired on 2020-02-01T00:00:00Z";

#[test]
fn an_expired_revocation_list_is_no_list() {
    let Pki { dir, files } = pki();
    fs::write(&files.crl[0], ended_list(&dir, 1)).unwrap();
    let error = refused(&files);
    assert!(error.contains(&format!("crl.pem: {ENDED}")), "{error}");
}

#[test]
fn one_forgotten_list_of_several_keeps_nothing_out_and_a_mistaken_one_is_not_taken() {
    let (Pki { dir, mut files }, other) = (pki(), pki());
    let own = fs::read_to_string(&other.files.crl[0]).unwrap();
    let cas = [&files.ca, &other.files.ca].map(|ca| fs::read_to_string(ca).unwrap()).concat();
    fs::write(&files.ca, cas).unwrap();
    files.crl.push(other.files.crl[0].clone());
    let good = Set::read(&files).unwrap();

    let forgotten = ended_list(&dir, 1);
    fs::write(&files.crl[0], &forgotten).unwrap();
    let error = good.read_again(&files).map(drop).expect_err("put in place by mistake").to_string();
    assert!(error.contains(&format!("crl.pem: {ENDED}")), "{error}");
    let started = Set::read(&files).expect("the other CA's clients get in");

    let other_list = |serial: &str| {
        Folder::at(other.dir.path()).revoke(&serial.parse().unwrap()).unwrap();
        fs::read_to_string(&other.files.crl[0]).unwrap()
    };
    other_list("77");
    started.read_again(&files).expect("a revocation beside the forgotten one");
    // The same with both lists in one file.
    files.crl.truncate(1);
    fs::write(&files.crl[0], forgotten.clone() + &own).unwrap();
    let started = Set::read(&files).unwrap();
    fs::write(&files.crl[0], forgotten + &other_list("78")).unwrap();
    let again = started.read_again(&files).expect("a revocation beside the forgotten one");
    fs::write(&files.crl[0], ended_list(&dir, 9) + &own).unwrap();
    let error = again.read_again(&files).map(drop).expect_err("another that has ended").to_string();
    assert!(error.contains(ENDED), "{error}");
}

/// Clients refuse the worker then; that is no reason to keep a revocation out.
#[test]
fn an_ended_certificate_that_is_in_force_keeps_nothing_else_out() {
    let Pki { dir, files } = pki();
    let authority = jobworker_certs::Authority::load(dir.path()).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let end = time::OffsetDateTime::now_utc() + time::Duration::seconds(2);
    params.not_after = end;
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(&files.cert, params.signed_by(&key, authority.issuer()).unwrap().pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    let good = Set::read(&files).unwrap();
    while time::OffsetDateTime::now_utc() < end + time::Duration::seconds(2) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(refused(&files).contains("server.pem: it expired on "));
    Folder::at(dir.path()).revoke(&"77".parse().unwrap()).unwrap();
    good.read_again(&files).expect("it was in force before");
}
