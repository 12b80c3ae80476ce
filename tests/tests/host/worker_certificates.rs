//! Every way in which a worker's certificate can be wrong, as jobctl sees it; and revocation of a worker's (`--crl`).

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use jobworker_tests::openssl::{CA, Certificate, Key, Openssl, SERVER};
use jobworker_tests::pki::Identity;
use jobworker_tests::{Pki, Worker};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection};

use crate::support::{Answer, jobctl_as};

/// A server that shakes hands with a certificate, once, and goes away. Whether that is a good one, it does not care.
fn server(chain_pem: &str, key_pem: &str) -> String {
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).expect("a key");
    let key = provider.key_provider.load_private_key(key).expect("a usable key");
    let certified = CertifiedKey::new(chain.expect("certificates"), key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        let (mut tcp, _) = listener.accept().expect("jobctl connects");
        let mut tls = ServerConnection::new(Arc::new(config)).expect("a configuration");
        // jobctl breaks it off.
        while tls.is_handshaking() && tls.complete_io(&mut tcp).is_ok() {}
    });
    address
}

fn jobctl_to(worker: &Worker, address: &str, args: &[&str]) -> Command {
    let mut jobctl = worker.jobctl_as("alice", args);
    jobctl.env("JOBCTL_ADDRESS", address);
    jobctl
}

#[test]
fn a_worker_that_is_not_to_be_trusted_is_told_with_the_reason() {
    let openssl = Openssl::new();
    let worker = Worker::start();
    let ca = |file, common_name, key| {
        openssl.issue(Certificate { file, common_name, key, ..Certificate::default() });
    };
    ca("root", "root", Key::Curve("P-256"));
    ca("namesake", "root", Key::Curve("P-256"));
    ca("rsa-root", "rsa-root", Key::Rsa(2048));
    ca("small-root", "small-root", Key::Rsa(1024));
    ca("stranger", "stranger", Key::Curve("P-256"));
    let always = Certificate::default().validity;
    let (expired, early) = (["200101000000Z", "200201000000Z"], ["450101000000Z", "480101000000Z"]);
    let make = |file, signer, extensions, validity, signature: &[&str]| {
        openssl.issue(Certificate {
            file,
            common_name: file,
            signer: Some(signer),
            extensions,
            validity,
            signature,
            ..Certificate::default()
        });
    };
    make("old-ca", "root", CA, expired, &[]);
    make("no-ca", "root", SERVER, always, &[]);
    let for_clients = SERVER.replace("serverAuth", "clientAuth");
    let critical = format!("{SERVER}1.3.6.1.4.1.32473.9=critical,ASN1:UTF8String:odd\n");
    let table = [
        ("expired", "root", SERVER, expired, &[][..], None, "its certificate expired on 2020-0"),
        ("early", "root", SERVER, early, &[], None, "is not valid before 20"),
        (
            "sha1",
            "rsa-root",
            SERVER,
            always,
            &["-md", "sha1"],
            None,
            "its certificate is signed with SHA-1 and RSA",
        ),
        (
            "small",
            "small-root",
            SERVER,
            always,
            &[],
            None,
            "the CA \"small-root\", whose certificate has an RSA key of 1024",
        ),
        (
            "below-old",
            "old-ca",
            SERVER,
            always,
            &[],
            Some("old-ca"),
            "the CA \"old-ca\", whose certificate expired on 2020",
        ),
        (
            "below-server",
            "no-ca",
            SERVER,
            always,
            &[],
            Some("no-ca"),
            "the CA \"no-ca\", whose certificate may not sign",
        ),
        ("for-clients", "root", &for_clients, always, &[], None, "is not meant for servers"),
        ("critical", "root", &critical, always, &[], None, "a critical extension that is not known here"),
        ("authority", "root", CA, always, &[], None, "its certificate is a CA's own"),
        ("strange", "stranger", SERVER, always, &[], None, "its certificate is not signed by the CA in"),
        ("twin", "namesake", SERVER, always, &[], None, "the name of the one that did, and another key"),
    ];
    let cas: String =
        ["root", "rsa-root", "small-root"].map(|ca| openssl.read(&format!("{ca}.pem"))).concat();
    fs::write(openssl.path("cas.pem"), cas).expect("a writable folder");
    for (file, signer, extensions, validity, signature, above, words) in table {
        make(file, signer, extensions, validity, signature);
        let above = above.map(|file: &str| openssl.read(&format!("{file}.pem"))).unwrap_or_default();
        let chain = openssl.read(&format!("{file}.pem")) + &above;
        let address = server(&chain, &openssl.read(&format!("{file}-key.pem")));
        let mut jobctl = jobctl_to(&worker, &address, &["list"]);
        let answer = Answer::of(jobctl.env("JOBCTL_CA", openssl.path("cas.pem"))).with_code(1);
        let start = format!("jobctl: cannot trust the worker at {address}: its certificate ");
        assert!(answer.stderr.starts_with(&start) && answer.stderr.contains(words), "{file}: {answer:#?}");
    }
}

#[test]
fn a_worker_whose_certificate_is_revoked_is_not_trusted() {
    let pki = Arc::new(Pki::new());
    let worker = Worker::builder().pki(&pki).start();
    let list = pki.dir().join("clients-crl.pem");
    fs::copy(pki.crl(), &list).expect("a writable folder");
    let list = list.to_str().expect("UTF-8").to_owned();
    let with_list = |list: &str| jobctl_as(&worker, "alice", &["--crl", list, "list"]);
    with_list(&list).with_code(0);
    // In the clients' list alone: the worker does not look at it for its own.
    let mut certs = Command::new(jobworker_tests::binaries::binary("jobworker"));
    certs.args(["certs", "revoke", "server", "--dir"]).arg(pki.dir());
    let said = Answer::of(&mut certs).with_code(0).stdout;
    for words in
        ["give it to every client of that worker (jobctl --crl", "workers don't look at it for their own"]
    {
        assert!(said.contains(words), "{said}");
    }
    with_list(&list).with_code(0);
    fs::copy(pki.crl(), &list).expect("a writable folder");
    let revoked = [format!("its certificate is revoked (--crl {list})")];
    with_list(&list).with_code(1).saying(&["cannot trust the worker at", &revoked[0]]);
    jobctl_as(&worker, "alice", &["list"]).with_code(0);
    // From the environment and from a context, too.
    Answer::of(worker.jobctl_as("alice", &["list"]).env("JOBCTL_CRL", &list))
        .with_code(1)
        .saying(&["is revoked"]);
    let config = pki.dir().join("config.toml");
    let Identity { cert, key } = pki.identity("alice");
    let (ca, cert, key) = (pki.ca(), cert.display().to_string(), key.display().to_string());
    let text = format!(
        "[contexts.here]\naddress = '{}'\nca = '{}'\ncert = '{cert}'\nkey = '{key}'\ncrl = 'clients-crl.pem'\n",
        worker.address,
        ca.display()
    );
    fs::write(&config, text).expect("a writable folder");
    let mut jobctl = worker.jobctl_as("alice", &["--context", "here", "list"]);
    for variable in ["JOBCTL_ADDRESS", "JOBCTL_CA", "JOBCTL_CERT", "JOBCTL_KEY"] {
        jobctl.env_remove(variable);
    }
    Answer::of(jobctl.env("JOBCTL_CONFIG", &config)).with_code(1).saying(&["is revoked (--crl"]);

    // A list that does not tell: nobody is trusted.
    let openssl = Openssl::new();
    openssl.issue(Certificate { file: "other", common_name: "other", ..Certificate::default() });
    openssl.issue(Certificate { file: "twin", common_name: "test CA", ..Certificate::default() });
    let path = openssl.path("crl.pem");
    let given = path.to_str().expect("UTF-8");
    let later = "480101000000Z";
    fs::write(&path, openssl.list("other", later)).expect("a writable folder");
    with_list(given)
        .with_code(1)
        .saying(&["can't be checked for revocation: --crl", "has no list of the CA that signed it"]);
    fs::write(&path, openssl.list("twin", later)).expect("a writable folder");
    with_list(given)
        .with_code(1)
        .saying(&["can't be checked for revocation", "another CA's of the same name"]);
    // An own one beside it is found.
    let own = fs::read_to_string(&list).expect("a list");
    fs::write(&path, openssl.list("twin", later) + &own).expect("a writable folder");
    with_list(given).with_code(1).saying(&["is revoked"]);
    let ended =
        crate::certs_support::list_until(&pki, time::OffsetDateTime::now_utc() - time::Duration::days(1));
    fs::write(&path, ended).expect("a writable folder");
    with_list(given)
        .with_code(1)
        .saying(&["can't be checked for revocation: the list in --crl", "expired on 20"]);
}
