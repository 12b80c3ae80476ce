//! Every way in which a client's certificate can be wrong, made by openssl: jobctl and the worker's audit log say what is
//! wrong, and with which certificate of the chain.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use jobworker_tests::openssl::{CA, CLIENT, Certificate, Key, Openssl};
use jobworker_tests::{Pki, Worker, until};
use serde_json::Value;

use crate::support::{Answer, jobctl_as};

const EXPIRED: [&str; 2] = ["200101000000Z", "200201000000Z"];
const EARLY: [&str; 2] = ["450101000000Z", "480101000000Z"];

/// Puts a client's certificate, with those of the CAs above it, among the worker's clients.
fn place(openssl: &Openssl, pki: &Pki, client: &str, above: &[&str]) {
    let identity = pki.identity(client);
    let chain = std::iter::once(&client).chain(above).map(|file| openssl.read(&format!("{file}.pem")));
    fs::write(&identity.cert, chain.collect::<String>()).expect("a writable folder");
    fs::copy(openssl.path(&format!("{client}-key.pem")), &identity.key).expect("a writable folder");
}

/// Has a worker trust a CA.
fn trust(openssl: &Openssl, pki: &Pki, ca: &str) {
    let mut file = File::options().append(true).open(pki.ca()).expect("the CA's file");
    file.write_all(openssl.read(&format!("{ca}.pem")).as_bytes()).expect("a writable file");
}

/// The reason in the audit line of the refused connection of a client.
fn audited(worker: &Worker, client: &str) -> String {
    let reason = || {
        let is_its = |line: &Value| line["claimed_client"] == client && line["action"] == "connect";
        let line = worker.audit().into_iter().find(is_its)?;
        line["reason"].as_str().map(str::to_owned)
    };
    until(&format!("the audit line of {client}"), reason)
}

/// The same words on both sides: behind "the worker refused the certificate" and in the audit log.
#[track_caller]
fn expect(worker: &Worker, client: &str, words: &str) {
    let answer = jobctl_as(worker, client, &["list"]).with_code(1);
    let reason = audited(worker, client);
    let both = format!("{client}: jobctl: {:?}, audit log: {reason:?}", answer.stderr);
    assert!(
        answer.stderr.starts_with("jobctl: unauthenticated: the worker refused the certificate"),
        "{both}"
    );
    assert!(answer.stderr.contains(words), "not {words:?} in {both}");
    assert!(
        reason.starts_with("the client's certificate ") && reason.contains(words),
        "not {words:?} in {both}"
    );
}

#[test]
fn a_certificate_that_breaks_a_rule_is_refused_with_that_rule() {
    let (openssl, pki) = (Openssl::new(), Arc::new(Pki::new()));
    let ca =
        |file, key| openssl.issue(Certificate { file, common_name: file, key, ..Certificate::default() });
    let rsa = Key::Rsa(2048);
    ca("root", Key::Curve("P-256"));
    ca("rsa-root", rsa);
    ca("small-root", Key::Rsa(1024));
    ca("koblitz-root", Key::Curve("secp256k1"));
    let below = |file, signer, extensions, validity| {
        let common_name = file;
        let signer = Some(signer);
        openssl.issue(Certificate {
            file,
            common_name,
            signer,
            extensions,
            validity,
            ..Certificate::default()
        });
    };
    let always = Certificate::default().validity;
    let limited =
        format!("{}basicConstraints=critical,CA:TRUE,pathlen:0\n", CA.split_once('\n').expect("lines").1);
    let constrained = format!("{CA}nameConstraints=critical,permitted;DNS:example.org\n");
    let for_servers = format!("{CA}extendedKeyUsage=serverAuth\n");
    below("old-ca", "root", CA, EXPIRED);
    below("early-ca", "root", CA, EARLY);
    below("last-ca", "root", &limited, always);
    below("one-too-many-ca", "last-ca", CA, always);
    below("constrained-ca", "root", &constrained, always);
    below("server-ca", "root", &for_servers, always);
    below("no-ca", "root", CLIENT, always);
    let client = |file, signer, extensions, validity, signature: &[&str]| {
        let (common_name, signer) = (file, Some(signer));
        openssl.issue(Certificate {
            file,
            common_name,
            signer,
            extensions,
            validity,
            signature,
            ..Certificate::default()
        });
    };
    let critical = format!("{CLIENT}1.3.6.1.4.1.32473.9=critical,ASN1:UTF8String:odd\n");
    let named = format!("{CLIENT}subjectAltName=DNS:build.example.net\n");
    client("good", "root", CLIENT, always, &[]);
    client("sha1", "rsa-root", CLIENT, always, &["-md", "sha1"]);
    client("pss", "rsa-root", CLIENT, always, &["-sigopt", "rsa_padding_mode:pss"]);
    client("small", "small-root", CLIENT, always, &[]);
    client("koblitz", "koblitz-root", CLIENT, always, &[]);
    client("below-old", "old-ca", CLIENT, always, &[]);
    client("below-early", "early-ca", CLIENT, always, &[]);
    client("too-deep", "one-too-many-ca", CLIENT, always, &[]);
    client("misnamed", "constrained-ca", &named, always, &[]);
    client("below-server", "server-ca", CLIENT, always, &[]);
    client("below-client", "no-ca", CLIENT, always, &[]);
    client("authority", "root", CA, always, &[]);
    client("critical", "root", &critical, always, &[]);
    let cas = ["root", "rsa-root", "small-root", "koblitz-root"];
    cas.into_iter().for_each(|ca| trust(&openssl, &pki, ca));
    for (client, above) in [
        ("below-old", &["old-ca"][..]),
        ("below-early", &["early-ca"]),
        ("too-deep", &["one-too-many-ca", "last-ca"]),
        ("misnamed", &["constrained-ca"]),
        ("below-server", &["server-ca"]),
        ("below-client", &["no-ca"]),
    ] {
        place(&openssl, &pki, client, above);
    }
    for client in ["good", "sha1", "pss", "small", "koblitz", "authority", "critical"] {
        place(&openssl, &pki, client, &[]);
    }
    // Without lists: what is wrong is to be found by itself.
    let worker = Worker::builder().pki(&pki).without_list().start();
    jobctl_as(&worker, "good", &["list"]).with_code(0);
    for (client, words) in [
        ("sha1", "certificate is signed with SHA-1 and RSA: only "),
        ("pss", "certificate is signed with RSASSA-PSS: only "),
        (
            "small",
            "comes from the CA \"small-root\", whose certificate has an RSA key of 1024 bits: RSA with 2048",
        ),
        ("koblitz", "comes from the CA \"koblitz-root\", whose certificate has a key on the curve secp256k1"),
        ("below-old", "comes from the CA \"old-ca\", whose certificate expired on 2020-0"),
        ("below-early", "comes from the CA \"early-ca\", whose certificate is not valid before 204"),
        (
            "too-deep",
            "comes from the CA \"last-ca\", whose certificate allows 0 CAs below it at most (pathlen)",
        ),
        (
            "misnamed",
            "\"constrained-ca\", whose certificate may not sign for the names in it (name constraints)",
        ),
        (
            "below-server",
            "comes from the CA \"server-ca\", whose certificate is not meant for clients: its extended",
        ),
        (
            "below-client",
            "comes from the CA \"no-ca\", whose certificate may not sign others: it is not a CA's",
        ),
        ("authority", "certificate is a CA's own (basicConstraints CA:TRUE)"),
    ] {
        expect(&worker, client, words);
    }
    // jobctl does not even try with these two; another client does.
    let local = jobctl_as(&worker, "critical", &["list"]).with_code(1);
    local.saying(&[
        "critical.pem can't be used: the certificate has a critical extension",
        "(1.3.6.1.4.1.32473.9)",
    ]);
    openssl.issue(Certificate {
        file: "weak",
        common_name: "weak",
        key: Key::Rsa(1024),
        signer: Some("root"),
        extensions: CLIENT,
        ..Certificate::default()
    });
    place(&openssl, &pki, "weak", &[]);
    let local = jobctl_as(&worker, "weak", &["list"]).with_code(1);
    local.saying(&[
        "weak-key.pem can't be used: the certificate",
        "has an RSA key of 1024 bits: RSA with 2048 to 8192",
    ]);
    for (client, words) in [
        ("critical", "certificate has a critical extension that is not known here (1.3.6.1.4.1.32473.9)"),
        ("weak", "certificate has an RSA key of 1024 bits: RSA with 2048 to 8192 bits"),
    ] {
        let identity = pki.identity(client);
        let mut s_client = Command::new("openssl");
        s_client.args(["s_client", "-tls1_3", "-connect", &worker.address, "-cipher", "DEFAULT@SECLEVEL=0"]);
        s_client.arg("-cert").arg(identity.cert).arg("-key").arg(identity.key).stdin(Stdio::null());
        let output = s_client.output().expect("openssl can be executed");
        let reason = audited(&worker, client);
        assert!(reason.contains(words), "{reason}; {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_list_that_tells_nothing_is_said_to_be_the_reason() {
    let (openssl, pki) = (Openssl::new(), Arc::new(Pki::new()));
    let ca = |file, common_name| {
        openssl.issue(Certificate { file, common_name, ..Certificate::default() });
    };
    // Two CAs of one name, as those are that are made with the defaults; a list says nothing of the key.
    ca("twin", "twin");
    ca("other-twin", "twin");
    ca("forgotten", "forgotten");
    ca("unlisted", "unlisted");
    let client = |file, signer| {
        openssl.issue(Certificate {
            file,
            common_name: file,
            signer: Some(signer),
            extensions: CLIENT,
            ..Certificate::default()
        });
        place(&openssl, &pki, file, &[]);
    };
    client("of-twin", "twin");
    client("of-other-twin", "other-twin");
    client("of-forgotten", "forgotten");
    client("of-unlisted", "unlisted");
    ["twin", "forgotten", "unlisted"].into_iter().for_each(|ca| trust(&openssl, &pki, ca));
    let own = fs::read_to_string(pki.crl()).expect("a list");
    let forgotten = openssl.list("forgotten", "210101000000Z");
    let later = "480101000000Z";
    fs::write(pki.crl(), own.clone() + &openssl.list("other-twin", later) + &forgotten).expect("a folder");
    let worker = Worker::builder().pki(&pki).start();
    jobctl_as(&worker, "alice", &["list"]).with_code(0);
    for (client, audit, jobctl) in [
        ("of-twin", "is another CA's of the same name", "no revocation list of that CA"),
        (
            "of-other-twin",
            "there is one of that name, with another key",
            "not signed by a CA that the worker knows",
        ),
        ("of-forgotten", "the list in --crl expired on 2021-01-01", "no revocation list of that CA"),
        ("of-unlisted", "--crl has no list of the CA that signed it", "no revocation list of that CA"),
    ] {
        let answer = jobctl_as(&worker, client, &["list"]).with_code(1);
        let start =
            format!("jobctl: unauthenticated: the worker refused the certificate {}", pki.dir().display());
        assert!(answer.stderr.starts_with(&start), "{client}: {answer:#?}");
        assert!(answer.stderr.contains(jobctl), "{client}: {answer:#?}");
        let reason = audited(&worker, client);
        assert!(
            reason.starts_with("the client's certificate ") && reason.contains(audit),
            "{client}: {reason}"
        );
    }
    drop(worker);
    // Beside the list that is its own, the other one does no harm.
    fs::write(pki.crl(), own + &openssl.list("other-twin", later) + &openssl.list("twin", later))
        .expect("a folder");
    let worker = Worker::builder().pki(&pki).start();
    jobctl_as(&worker, "of-twin", &["list"]).with_code(0);
}

#[test]
fn a_file_that_can_not_be_used_is_told_with_the_reason() {
    let (openssl, pki) = (Openssl::new(), Arc::new(Pki::new()));
    let worker = Worker::builder().pki(&pki).start();
    let alice = pki.identity("alice");
    let dir = pki.dir().to_owned();
    let path = |name: &str| dir.join(name);
    let arg = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let cert = arg(&alice.cert);
    openssl.run(&["x509", "-in", &cert, "-outform", "DER", "-out", &arg(&path("der.pem"))]);
    let key = arg(&alice.key);
    openssl.run(&[
        "pkey",
        "-in",
        &key,
        "-aes256",
        "-passout",
        "pass:secret",
        "-out",
        &arg(&path("locked.pem")),
    ]);
    openssl.run(&[
        "ec",
        "-in",
        &key,
        "-aes256",
        "-passout",
        "pass:secret",
        "-out",
        &arg(&path("locked-sec1.pem")),
    ]);
    openssl.run(&["crl", "-in", &arg(&pki.crl()), "-outform", "DER", "-out", &arg(&path("crl-der.pem"))]);
    openssl.issue(Certificate {
        file: "koblitz",
        common_name: "k",
        key: Key::Curve("secp256k1"),
        ..Certificate::default()
    });
    let text = fs::read_to_string(&alice.cert).expect("a certificate");
    fs::write(path("cut.pem"), &text[..text.len() / 2]).expect("a writable folder");
    fs::write(path("empty.pem"), "").expect("a writable folder");
    fs::create_dir(path("folder.pem")).expect("a writable folder");
    std::os::unix::fs::symlink("loop.pem", path("loop.pem")).expect("a link");
    let (nowhere, directory) = ("No such file or directory", "Is a directory");
    let table = [
        ("CERT", "nowhere.pem", nowhere),
        ("CERT", "folder.pem", directory),
        ("CERT", "loop.pem", "Too many levels of symbolic links"),
        ("CERT", "empty.pem", "the file is empty"),
        ("CERT", "der.pem", "the file is DER, and PEM is needed"),
        ("CERT", "cut.pem", "the file ends in the middle of a section: it is not whole"),
        ("CERT", "alice-key.pem", "it begins with \"PRIVATE KEY\""),
        ("KEY", "nowhere.pem", nowhere),
        ("KEY", "folder.pem", directory),
        ("KEY", "empty.pem", "the file is empty"),
        ("KEY", "alice.pem", "it begins with \"CERTIFICATE\""),
        ("KEY", "locked.pem", "the file is encrypted with a passphrase"),
        ("KEY", "locked-sec1.pem", "the file is encrypted with a passphrase"),
        ("KEY", "bob-key.pem", "can't be used together: the key is that of another certificate"),
        ("CA", "nowhere.pem", nowhere),
        ("CA", "folder.pem", directory),
        ("CA", "empty.pem", "the file is empty"),
        ("CA", "der.pem", "the file is DER, and PEM is needed"),
        ("CRL", "nowhere.pem", nowhere),
        ("CRL", "empty.pem", "the file is empty"),
        ("CRL", "crl-der.pem", "the file is DER, and PEM is needed (openssl crl"),
        ("CRL", "ca.pem", "has no section \"-----BEGIN X509 CRL-----\" (PEM)"),
    ];
    for (variable, file, words) in table {
        let mut jobctl = worker.jobctl_as("alice", &["list"]);
        let answer = Answer::of(jobctl.env(format!("JOBCTL_{variable}"), path(file))).with_code(1);
        let flag = format!("jobctl: --{} {}", variable.to_lowercase(), path(file).display());
        assert!(answer.stderr.starts_with(&flag), "{variable} {file}: {answer:#?}");
        assert!(answer.stderr.contains(words), "{variable} {file}: {answer:#?}");
        // Nothing of a library's inside.
        assert!(!answer.stderr.contains("KeyMismatch"), "{answer:#?}");
    }
    let mut jobctl = worker.jobctl_as("alice", &["list"]);
    jobctl.env("JOBCTL_CERT", openssl.path("koblitz.pem")).env("JOBCTL_KEY", openssl.path("koblitz-key.pem"));
    Answer::of(&mut jobctl)
        .with_code(1)
        .saying(&["can't be used: the certificate", "a key on the curve secp256k1"]);
}
