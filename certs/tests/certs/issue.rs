//! What is in the files: modes, usages, names, the role, times; read by x509-parser and by the openssl program.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use crate::common::{certificate, certs, make_all, openssl, openssl_text};
use jobworker_certs::{Authority, ClientRequest, Days, KeyKind, RoleOid};
use tempfile::TempDir;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

const MINUTES_5: i64 = 5 * 60;
const DAY: i64 = 24 * 60 * 60;

fn inspect(dir: &Path, file: &str, check: impl FnOnce(&X509Certificate<'_>)) {
    let der = certificate(&dir.join(file));
    check(&X509Certificate::from_der(&der).unwrap().1);
}

fn lifetime(certificate: &X509Certificate<'_>) -> i64 {
    certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp()
}

#[test]
fn keys_are_private_and_certificates_readable_whatever_the_folder_was() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("made/for/this");
    make_all(&dir, "p256");
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o700);
    let mut files = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let (name, metadata) = (entry.as_ref().unwrap().file_name(), entry.unwrap().metadata().unwrap());
        let name = name.into_string().unwrap();
        let wanted = if name.ends_with("-key.pem") { 0o600 } else { 0o644 };
        assert_eq!(metadata.mode() & 0o7777, wanted, "{name}");
        files += 1;
    }
    assert_eq!(files, 9, "CA, server, two clients, the list, and no left-over");
}

#[test]
fn the_authority_signs_leaves_and_lists_only() {
    let dir = TempDir::new().unwrap();
    certs(dir.path(), &["init", "--name", "Büro CA", "--days", "10"]).unwrap();
    inspect(dir.path(), "ca.pem", |ca| {
        let constraints = ca.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = ca.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
        assert_eq!(ca.subject().iter_common_name().next().unwrap().as_str().unwrap(), "Büro CA");
        assert_eq!(lifetime(ca), 10 * DAY + MINUTES_5);
    });
}

#[test]
fn a_server_is_a_server_only_with_its_hosts() {
    let dir = TempDir::new().unwrap();
    certs(dir.path(), &["init"]).unwrap();
    let hosts = ["--host", "localhost", "--host", "127.0.0.1", "--host", "::1", "--host", "*.Example.org"];
    certs(dir.path(), &[&["server", "--days", "7"], &hosts[..]].concat()).unwrap();
    inspect(dir.path(), "server.pem", |server| {
        let usage = server.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any);
        assert!(!server.is_ca());
        assert_eq!(lifetime(server), 7 * DAY + MINUTES_5);
        let names = &server.subject_alternative_name().unwrap().unwrap().value.general_names;
        let mut ipv6_loopback = [0; 16];
        ipv6_loopback[15] = 1;
        let wanted = [
            GeneralName::DNSName("localhost"),
            GeneralName::IPAddress(&[127, 0, 0, 1]),
            GeneralName::IPAddress(&ipv6_loopback),
            GeneralName::DNSName("*.example.org"),
        ];
        assert_eq!(*names, wanted);
    });
}

#[test]
fn a_client_carries_its_role_and_names() {
    let dir = TempDir::new().unwrap();
    certs(dir.path(), &["init"]).unwrap();
    let uris = ["--uri", "spiffe://example.org/alice", "--uri", "urn:alice"];
    certs(dir.path(), &[&["client", "--name", "alice@example.org", "--role", "admin"], &uris[..]].concat())
        .unwrap();
    inspect(dir.path(), "alice@example.org.pem", |client| {
        let usage = client.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        assert!(!client.is_ca());
        assert_eq!(lifetime(client), 45 * DAY + MINUTES_5);
        assert_eq!(
            client.subject().iter_common_name().next().unwrap().as_str().unwrap(),
            "alice@example.org"
        );
        let names = &client.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(*names, [GeneralName::URI("spiffe://example.org/alice"), GeneralName::URI("urn:alice")]);
        let oid = x509_parser::der_parser::oid!(1.3.6.1.4.1.32473.1.1);
        let role = client.get_extension_unique(&oid).unwrap().expect("the role extension");
        assert!(!role.critical);
        assert_eq!(role.value, b"\x0c\x05admin");
        assert_eq!(client.raw_serial().len(), 16);
    });
}

#[test]
fn the_roles_extension_can_be_another() {
    let dir = TempDir::new().unwrap();
    certs(dir.path(), &["init"]).unwrap();
    certs(dir.path(), &["client", "--name", "alice", "--role", "user", "--role-oid", "1.2.3.4"]).unwrap();
    let text = openssl_text(dir.path(), &["x509", "-in", "alice.pem", "-noout", "-text"]);
    assert!(text.contains("1.2.3.4: \n                ..user\n"), "{text}");
    assert!(!text.contains("32473"), "{text}");
}

#[test]
fn openssl_reads_and_verifies_every_kind_of_key() {
    for (key, algorithm, signature) in [
        ("p256", "NIST CURVE: P-256", "ecdsa-with-SHA256"),
        ("ed25519", "ED25519 Public-Key", "Signature Algorithm: ED25519"),
        ("rsa4096", "Public-Key: (4096 bit)", "sha256WithRSAEncryption"),
    ] {
        let dir = TempDir::new().unwrap();
        make_all(dir.path(), key);
        let ssl = |args: &[&str]| openssl_text(dir.path(), args);
        ssl(&["verify", "-x509_strict", "-CAfile", "ca.pem", "-purpose", "sslserver", "server.pem"]);
        ssl(&[
            "verify",
            "-x509_strict",
            "-CAfile",
            "ca.pem",
            "-purpose",
            "sslclient",
            "alice.pem",
            "bob.pem",
        ]);
        assert!(
            !openssl(dir.path(), &["verify", "-CAfile", "ca.pem", "-purpose", "sslserver", "bob.pem"])
                .status
                .success()
        );
        let text = ssl(&["x509", "-in", "bob.pem", "-noout", "-text"]);
        for words in [
            algorithm,
            signature,
            "TLS Web Client Authentication",
            "1.3.6.1.4.1.32473.1.1: \n                ..user\n",
        ] {
            assert!(text.contains(words), "{key}: no {words:?} in {text}");
        }
        for name in ["ca", "server", "alice"] {
            let of_key = ssl(&["pkey", "-in", &format!("{name}-key.pem"), "-pubout"]);
            assert_eq!(
                of_key,
                ssl(&["x509", "-in", &format!("{name}.pem"), "-noout", "-pubkey"]),
                "{key} {name}"
            );
        }
        ssl(&["crl", "-in", "crl.pem", "-CAfile", "ca.pem", "-noout"]);
    }
}

#[test]
fn a_leaf_ends_with_its_authority() {
    let dir = TempDir::new().unwrap();
    certs(dir.path(), &["init", "--days", "10"]).unwrap();
    certs(dir.path(), &["client", "--name", "alice", "--role", "admin"]).unwrap();
    let authority = Authority::load(dir.path()).unwrap();
    inspect(dir.path(), "alice.pem", |alice| {
        assert_eq!(alice.validity().not_after.to_datetime(), authority.not_after());
    });
    let request = |days: &str| ClientRequest {
        name: "bob".parse().unwrap(),
        role: "user".parse().unwrap(),
        role_oid: RoleOid::default(),
        uris: Vec::new(),
        key: KeyKind::default(),
        days: days.parse().unwrap(),
    };
    assert!(authority.issue_client(&request("11")).unwrap().cut_to_authority);
    let short = authority.issue_client(&request("9")).unwrap();
    assert!(!short.cut_to_authority && short.not_after < authority.not_after());
    assert!(!format!("{short:?}").contains("PRIVATE"), "debug output shows a private key");
    assert_eq!(Days::CLIENT.to_string(), "45");
}
