//! Requests from elsewhere: openssl's of every kind, and what is refused of them, in words and without a file written.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::common::{certificate, certs, handshake, make_all, openssl_text};
use jobworker_certs::{BadCsr, Csr, Leaf, RoleOid};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

/// A folder with a CA, a server and two clients.
fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    make_all(dir.path(), "p256");
    dir
}

/// `openssl req -new` for a new key, with more arguments.
fn request(dir: &Path, name: &str, key: &[&str], more: &[&str]) {
    let (file, key_file) = (format!("{name}.csr"), format!("{name}-key.pem"));
    let own = ["req", "-new", "-nodes", "-out", &file, "-keyout", &key_file];
    openssl_text(dir, &[&own[..], key, more].concat());
}

const P256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn sign(dir: &Path, file: &str, args: &[&str]) -> Result<(), String> {
    let file = dir.join(file);
    certs(dir, &[&["sign", file.to_str().unwrap()], args].concat())
}

fn leaf(dir: &Path, file: &str) -> Leaf {
    Leaf::from_der(&certificate(&dir.join(file)), &RoleOid::default()).unwrap()
}

#[test]
fn requests_by_openssl_are_signed_for_clients_and_servers() {
    for (kind, key) in [
        ("p256", P256),
        ("p384", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("ed25519", &["-newkey", "ed25519"]),
        ("rsa2048", &["-newkey", "rsa:2048"]),
        ("rsa3072", &["-newkey", "rsa:3072", "-sha512"]),
    ] {
        let dir = folder();
        let path = dir.path();
        request(path, "carol", key, &["-subj", "/CN=carol"]);
        sign(path, "carol.csr", &["--role", "user", "--days", "3"]).unwrap();
        let carol = leaf(path, "carol.pem");
        assert_eq!(
            (carol.common_name.as_deref(), carol.role.as_deref()),
            (Some("carol"), Some("user")),
            "{kind}"
        );
        handshake(path, "carol", "localhost").unwrap();

        for file in ["server.pem", "server-key.pem"] {
            fs::remove_file(path.join(file)).unwrap();
        }
        request(
            path,
            "server",
            key,
            &["-subj", "/CN=build1", "-addext", "subjectAltName=DNS:build1,IP:192.0.2.7"],
        );
        sign(path, "server.csr", &["--host", "build1", "--host", "192.0.2.7", "--host", "other"]).unwrap();
        for host in ["build1", "other"] {
            handshake(path, "carol", host).unwrap();
        }
        openssl_text(
            path,
            &["verify", "-x509_strict", "-CAfile", "ca.pem", "-purpose", "sslserver", "server.pem"],
        );
        openssl_text(
            path,
            &["verify", "-x509_strict", "-CAfile", "ca.pem", "-purpose", "sslclient", "carol.pem"],
        );
    }
}

#[test]
fn a_second_worker_gets_a_folder_of_its_own() {
    let dir = folder();
    let path = dir.path();
    let own = fs::read(path.join("server.pem")).unwrap();
    request(path, "build2", P256, &["-subj", "/CN=build2"]);
    let error = sign(path, "build2.csr", &["--host", "build2"]).unwrap_err();
    assert!(error.contains("server.pem exists already") && error.contains("--out DIR"), "{error}");

    let out = path.join("workers/build2");
    sign(path, "build2.csr", &["--host", "build2", "--out", out.to_str().unwrap()]).unwrap();
    let names = ["verify", "-CAfile", "ca.pem", "-verify_hostname", "build2", "workers/build2/server.pem"];
    openssl_text(path, &names);
    let again = sign(path, "build2.csr", &["--host", "build2", "--out", out.to_str().unwrap()]).unwrap_err();
    assert!(again.contains("workers/build2/server.pem exists already"), "{again}");

    let made = path.join("build3");
    certs(path, &["server", "--host", "build3", "--out", made.to_str().unwrap()]).unwrap();
    assert_eq!(fs::metadata(made.join("server-key.pem")).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read(path.join("server.pem")).unwrap(), own, "the first worker's is as it was");
}

#[test]
fn the_role_and_the_names_are_the_signers_word() {
    let dir = folder();
    let path = dir.path();
    let uris = ["-addext", "subjectAltName=URI:urn:carol"];
    request(path, "carol", P256, &[&["-subj", "/CN=carol"], &uris[..]].concat());
    let error = sign(path, "carol.csr", &["--role", "user"]).unwrap_err();
    assert_eq!(
        error,
        "the certificate request is refused: it asks for the URI name \"urn:carol\": its signer does not give that"
    );
    assert!(!path.join("carol.pem").exists());
    sign(path, "carol.csr", &["--role", "user", "--uri", "urn:first", "--uri", "urn:carol"]).unwrap();
    let carol = leaf(path, "carol.pem");
    assert_eq!((carol.uris.join(" ").as_str(), carol.role.as_deref()), ("urn:first urn:carol", Some("user")));
    assert!(!fs::read_to_string(path.join("carol.pem")).unwrap().contains("PRIVATE"));

    // Another name than the request's, and the file by that name.
    request(path, "x", P256, &["-subj", "/CN=alice"]);
    fs::remove_file(path.join("x-key.pem")).unwrap();
    let error = sign(path, "x.csr", &["--role", "admin"]).unwrap_err();
    assert!(error.contains("/alice.pem exists already"), "{error}");
    sign(path, "x.csr", &["--role", "admin", "--name", "dave"]).unwrap();
    assert_eq!(leaf(path, "dave.pem").common_name.as_deref(), Some("dave"));
    certs(path, &["revoke", "dave"]).unwrap();

    request(path, "nameless", P256, &["-subj", "/"]);
    let error = sign(path, "nameless.csr", &["--role", "user"]).unwrap_err();
    assert!(error.contains("no common name"), "{error}");
    request(path, "odd", P256, &["-subj", "/CN=..evil"]);
    let error = sign(path, "odd.csr", &["--role", "user"]).unwrap_err();
    assert!(error.contains("client name \"..evil\""), "{error}");
}

#[test]
fn what_no_certificate_here_has_is_refused_in_words() {
    let dir = folder();
    let path = dir.path();
    for (more, words) in [
        (&["-addext", "basicConstraints=critical,CA:TRUE"][..], "CA:TRUE"),
        (&["-addext", "extendedKeyUsage=serverAuth"], "serverAuth: a client is no server"),
        (&["-addext", "extendedKeyUsage=clientAuth,codeSigning"], "another extended key usage"),
        (&["-addext", "keyUsage=digitalSignature,keyCertSign"], "the key usages"),
        (&["-addext", "subjectAltName=DNS:localhost"], "the DNS name \"localhost\""),
        (&["-addext", "subjectAltName=IP:127.0.0.1"], "the address 127.0.0.1"),
        (&["-addext", "subjectAltName=email:a@example.org"], "a@example.org"),
        (&["-addext", "1.3.6.1.4.1.32473.1.1=ASN1:UTF8String:admin"], "the extension 1.3.6.1.4.1.32473.1.1"),
        (&["-addext", "nameConstraints=permitted;DNS:x"], "the extension 2.5.29.30"),
    ] {
        request(path, "eve", P256, &[&["-subj", "/CN=eve"], more].concat());
        let error = sign(path, "eve.csr", &["--role", "user"]).unwrap_err();
        assert!(error.contains(words), "{more:?}: no {words:?} in: {error}");
        assert!(!path.join("eve.pem").exists(), "{more:?}");
    }
    for subject in ["/O=admins/CN=eve", "/CN=eve/CN=alice", "/CN=eve/emailAddress=eve@example.org"] {
        request(path, "eve", P256, &["-subj", subject]);
        let error = sign(path, "eve.csr", &["--role", "user"]).unwrap_err();
        assert!(error.contains("in its subject: a subject here is one common name"), "{subject}: {error}");
    }
    // What it may ask for, because every client's certificate says so.
    let fine = ["basicConstraints=CA:FALSE", "keyUsage=digitalSignature", "extendedKeyUsage=clientAuth"];
    let fine: Vec<_> = fine.into_iter().flat_map(|extension| ["-addext", extension]).collect();
    request(
        path,
        "eve",
        P256,
        &[&["-subj", "/CN=eve", "-addext", "subjectKeyIdentifier=hash"], &fine[..]].concat(),
    );
    sign(path, "eve.csr", &["--role", "user"]).unwrap();

    fs::remove_file(path.join("server-key.pem")).unwrap();
    for (more, words) in [
        (&["-subj", "/CN=evil.example.org"][..], "the common name \"evil.example.org\""),
        (
            &["-subj", "/", "-addext", "subjectAltName=DNS:evil.example.org"],
            "the DNS name \"evil.example.org\"",
        ),
        (&["-subj", "/", "-addext", "subjectAltName=IP:192.0.2.8"], "the address 192.0.2.8"),
        (&["-subj", "/", "-addext", "subjectAltName=URI:urn:x"], "the URI name \"urn:x\": servers have none"),
        (&["-subj", "/", "-addext", "extendedKeyUsage=clientAuth"], "clientAuth: a server is no client"),
    ] {
        request(path, "worker", P256, more);
        let error =
            sign(path, "worker.csr", &["--host", "build1", "--host", "192.0.2.7", "--force"]).unwrap_err();
        assert!(error.contains(words), "{more:?}: no {words:?} in: {error}");
    }
}

#[test]
fn weak_keys_and_weak_signatures_are_refused() {
    let dir = folder();
    let path = dir.path();
    for (key, words) in [
        (&["-newkey", "rsa:1024"][..], "its key is RSA with 1024 bits"),
        (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], "its key is of another kind"),
        (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"], "its key is of another kind"),
        (&["-newkey", "ed448"], "its key is of another kind"),
        (&["-newkey", "rsa:2048", "-sha1"], "its signature was not made with"),
    ] {
        request(path, "eve", key, &["-subj", "/CN=eve"]);
        let error = sign(path, "eve.csr", &["--role", "user"]).unwrap_err();
        assert!(error.contains(words), "{key:?}: no {words:?} in: {error}");
    }
}

#[test]
fn what_is_no_request_or_not_whole_is_refused() {
    let dir = folder();
    let path = dir.path();
    request(path, "eve", P256, &["-subj", "/CN=eve"]);
    let good = fs::read_to_string(path.join("eve.csr")).unwrap();
    let mut lines: Vec<_> = good.lines().collect();
    lines.remove(3);
    let (shortened, huge) = (lines.join("\n"), "x".repeat(1 << 20) + &good);
    for (text, words) in [
        ("", "no PEM block"),
        (shortened.as_str(), "it is no certificate request"),
        (&fs::read_to_string(path.join("alice.pem")).unwrap(), "\"CERTIFICATE REQUEST\" is needed"),
        (&huge, "no PEM block"),
    ] {
        fs::write(path.join("bad.csr"), text).unwrap();
        let error = sign(path, "bad.csr", &["--role", "user"]).unwrap_err();
        assert!(error.contains(words), "no {words:?} in: {error}");
    }
    assert!(sign(path, "none.csr", &["--role", "user"]).unwrap_err().contains("none.csr"));
    // openssl's -text in front, and the label of older programs.
    let text = openssl_text(path, &["req", "-in", "eve.csr", "-text"]);
    fs::write(path.join("eve.csr"), text.replace(" CERTIFICATE REQUEST", " NEW CERTIFICATE REQUEST"))
        .unwrap();
    sign(path, "eve.csr", &["--role", "user"]).unwrap();
}

/// A request of rcgen's, signed, with anything in it.
fn csr(edit: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    edit(&mut params);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[test]
fn no_flipped_bit_changes_what_a_request_says() {
    let good = csr(|params| {
        params.distinguished_name.push(DnType::CommonName, "alice");
        params.subject_alt_names = vec![SanType::URI("urn:alice".try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
    });
    let read = Csr::from_der(&good).unwrap();
    assert_eq!(read.common_name(), Some("alice"));
    for bit in 0..8 * good.len() {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // What stands outside of what is signed, such as the outermost length, says nothing about the holder.
        if let Ok(same) = Csr::from_der(&bad) {
            assert_eq!(format!("{same:?}"), format!("{read:?}"), "bit {bit}");
        }
    }
    for end in 0..good.len() {
        assert!(matches!(Csr::from_der(&good[..end]), Err(BadCsr::Malformed(_))), "{end} bytes");
    }
}

#[test]
fn an_extension_that_stands_there_twice_is_refused() {
    // The second one would say CA:TRUE where only the first is looked at.
    let constraints = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0x03, 0x01, 0x01, 0xff]);
    let twice = csr(|params| {
        params.is_ca = IsCa::ExplicitNoCa;
        params.custom_extensions = vec![constraints.clone()];
    });
    let alone = csr(|params| params.custom_extensions = vec![constraints]);
    let authority = csr(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let words = |der: &[u8]| Csr::from_der(der).unwrap_err().to_string();
    assert!(words(&twice).contains("the extension 2.5.29.19 twice"), "{}", words(&twice));
    assert!(words(&alone).contains("CA:TRUE") && words(&authority).contains("CA:TRUE"));
}
