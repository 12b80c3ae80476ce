//! The files of certificates, key and lists change while the worker runs: a new set comes into force whole or not at all,
//! and who has done nothing notices nothing.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jobworker_certs::{Days, Existing, Folder, Holder, KeyKind, ServerRequest};
use jobworker_tests::api::{JobState, ListRequest, StatusRequest};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{self, everything, output, shell, start, wait};
use jobworker_tests::pki::Identity;
use jobworker_tests::wait::{PATIENCE, until};
use jobworker_tests::worker::clean;
use jobworker_tests::{Client, Pki, Worker};
use nix::sys::signal::Signal;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{AlertDescription, ClientConfig};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::certs_support::{
    Counter, KEPT, READ, Tree, as_client, as_server, list_until, replace, told, until_told,
};
use crate::support::{Answer, Held, Running, expect_no_more_held, jobctl_as, raise_open_files};

const RELOADS: usize = 50;

/// Another server's certificate of the same CA, with its key; PEM.
fn another_server(pki: &Pki) -> (String, String) {
    let request = ServerRequest {
        hosts: vec!["localhost".parse().expect("a host"), "127.0.0.1".parse().expect("a host")],
        key: KeyKind::P256,
        days: Days::YEAR,
    };
    let issued = crate::certs_support::authority(pki).issue_server(&request).expect("a certificate");
    (issued.certificate_pem, issued.key_pem)
}

/// What goes on while files are replaced.
struct Load {
    done: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn new() -> Self {
        Self { done: Arc::default(), calls: Arc::default(), tasks: Vec::new() }
    }

    /// Does something again and again.
    fn with<F: Future<Output = ()> + Send>(&mut self, again: impl Fn() -> F + Send + Sync + 'static) {
        let (done, calls) = (Arc::clone(&self.done), Arc::clone(&self.calls));
        self.tasks.push(tokio::spawn(async move {
            while !done.load(Ordering::Acquire) {
                again().await;
                calls.fetch_add(1, Ordering::Release);
            }
        }));
    }

    /// Every call went well; how many.
    async fn end(self) -> usize {
        self.done.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.expect("no call failed");
        }
        self.calls.load(Ordering::Acquire)
    }
}

/// A job with a line of output, looked at and read.
async fn use_it(mut client: Client) {
    let job = start(&mut client, shell("echo $((6 * 7))")).await.expect("started").id;
    let status = client.status(StatusRequest { job: job.clone() }).await.expect("its status").into_inner();
    assert_eq!(status.job.expect("a job").id, job);
    assert_eq!(output(&mut client, everything(&job)).await.expect("its output").merged, b"42\n");
    wait(&mut client, &job).await.expect("its end");
}

async fn jobctl_lists(worker: &Worker) {
    let mut jobctl = worker.jobctl_as("bob", &["list"]);
    let answer = tokio::task::spawn_blocking(move || Answer::of(&mut jobctl)).await.expect("no panic");
    answer.with_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_reloads_under_load_fail_no_call_and_lose_no_byte() {
    let worker = Arc::new(Worker::start());
    let (pki, other) = (Arc::clone(&worker.pki), Pki::new());
    use_it(worker.admin().await).await;
    let before = Held::by(&worker);
    let counter = Counter::start(&mut worker.admin().await).await;
    let readers = [counter.read(worker.admin().await), counter.read(worker.user().await)];
    let mut load = Load::new();
    for _ in 0..3 {
        let client = worker.admin().await;
        load.with(move || use_it(client.clone()));
    }
    let fresh = Arc::clone(&worker);
    load.with(move || {
        let worker = Arc::clone(&fresh);
        async move { jobctl_lists(&worker).await }
    });
    let ca = fs::read_to_string(pki.ca()).expect("a CA");
    let both = ca.clone() + &fs::read_to_string(other.ca()).expect("a CA");
    let server = pki.server();
    for round in 0..RELOADS {
        let read = told(&worker, READ);
        replace(&pki.ca(), if round % 2 == 0 { &both } else { &ca });
        let (certificate, key) = another_server(&pki);
        replace(&server.cert, certificate);
        replace(&server.key, key);
        let next_update = OffsetDateTime::now_utc() + Duration::from_secs(86_400 * (100 + round as u64));
        replace(&pki.crl(), list_until(&pki, next_update));
        worker.signal(Signal::SIGHUP);
        until("they were read again", || (told(&worker, READ) > read).then_some(()));
    }
    let calls = load.end().await;
    counter.end();
    for reader in readers {
        assert_eq!(reader.await.expect("every byte").state(), JobState::Finished);
    }
    eprintln!("measured: {RELOADS} reloads, {calls} rounds of calls meanwhile, none failed");
    assert!(calls > RELOADS, "{calls} rounds of calls are no load");
    assert_eq!(
        told(&worker, KEPT),
        0,
        "certificate and key that changed one after the other were told as an error"
    );
    expect_no_more_held(&worker, &before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_used_change_nothing_and_are_told_once() {
    let worker = Worker::start();
    let pki = &worker.pki;
    let good = fs::read(pki.crl()).expect("a list");
    replace(&pki.crl(), "not a list");
    until_told(&worker, KEPT, 1);
    let complaint = "crl.pem: it has no section";
    assert_eq!(told(&worker, complaint), 1, "the file and what is wrong");
    jobctl_as(&worker, "alice", &["list"]).with_code(0);
    // The same again, after a change that somebody else makes.
    replace(&pki.dir().join("ca.pem"), fs::read(pki.ca()).expect("a CA"));
    worker.signal(Signal::SIGHUP);
    until_told(&worker, KEPT, 2);
    let expired = list_until(pki, OffsetDateTime::now_utc() - Duration::from_secs(86_400));
    replace(&pki.crl(), expired);
    until_told(&worker, "crl.pem: it expired on", 1);
    fs::remove_file(pki.crl()).expect("a file");
    until_told(&worker, "crl.pem: No such file", 1);
    jobctl_as(&worker, "alice", &["list"]).with_code(0);
    replace(&pki.crl(), good);
    until_told(&worker, "are as they were", 1);
    // The first of the lists in force was never another one.
    assert_eq!(told(&worker, READ), 0);
    pki.revoke("bob");
    until_told(&worker, READ, 1);
    jobctl_as(&worker, "bob", &["list"]).with_code(1).saying(&["certificate revoked"]);
}

/// The certificate that the worker shows now.
async fn shown(worker: &Worker) -> Vec<u8> {
    let config: ClientConfig = client::tls(&worker.pki.ca(), Some(&worker.pki.identity("alice")), &[&TLS13]);
    let tcp = TcpStream::connect(&worker.address).await.expect("it listens");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("a handshake");
    stream.get_ref().1.peer_certificates().expect("its certificate")[0].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_and_its_key_change_one_after_the_other() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let (before, server) = (shown(&worker).await, worker.pki.server());
    let (certificate, key) = another_server(&worker.pki);
    replace(&server.cert, certificate);
    // What is tested is a time: longer than a change takes to settle (0.1 s), and much shorter than the worker's patience
    // (1 s).
    tokio::time::sleep(Duration::from_millis(200)).await;
    replace(&server.key, key);
    jobctl_as(&worker, "alice", &["list"]).with_code(0);
    until_told(&worker, READ, 1);
    assert_eq!(told(&worker, KEPT), 0, "{:#?}", worker.log());
    assert_ne!(shown(&worker).await, before, "handshakes are by the new one");
    admin.list(ListRequest::default()).await.expect("the connection lives on");
    // And where the other one never comes.
    let (certificate, _) = another_server(&worker.pki);
    replace(&server.cert, certificate);
    until_told(&worker, "it is not the key of the certificate", 1);
    until_told(&worker, KEPT, 1);
    jobctl_as(&worker, "alice", &["list"]).with_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_and_servers_may_have_different_cas() {
    let (clients, servers) = (Arc::new(Pki::new()), Pki::new());
    fs::copy(servers.server().cert, clients.server().cert).expect("a writable folder");
    fs::copy(servers.server().key, clients.server().key).expect("a writable folder");
    let worker = Worker::builder().pki(&clients).start();
    let mut alice = worker.jobctl_as("alice", &["run", "--", "echo", "served"]);
    let answer = Answer::of(alice.env("JOBCTL_CA", servers.ca())).with_code(0);
    assert_eq!(answer.stdout, "served\n");
    jobctl_as(&worker, "alice", &["list"]).with_code(1).saying(&["cannot trust the worker"]);
    // A client of the servers' CA is nobody here.
    let mut stranger = worker.jobctl_as("alice", &["list"]);
    let theirs = servers.identity("alice");
    stranger.env("JOBCTL_CA", servers.ca()).env("JOBCTL_CERT", theirs.cert).env("JOBCTL_KEY", theirs.key);
    Answer::of(&mut stranger).with_code(1).saying(&["unauthenticated", "not signed by a CA"]);
}

/// The certificate that a server shows that is none of ours, to whoever connects.
async fn impostor(identity: &Identity) -> String {
    use rustls::ServerConfig;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = vec![CertificateDer::from_pem_file(&identity.cert).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("suites")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a key that fits");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = acceptor.accept(tcp).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_certificate_cannot_serve_and_a_servers_cannot_call() {
    let worker = Worker::start();
    let pki = &worker.pki;
    let words = ["it is not meant for servers: its extended key usage lacks serverAuth"];
    // At start.
    let alice = pki.identity("alice");
    let mut second = Command::new(binary("jobworker"));
    clean(&mut second);
    let state = tempfile::tempdir().expect("a temporary folder");
    second.args(["serve", "--listen", "127.0.0.1:0", "--state-dir"]).arg(state.path());
    second.arg("--ca").arg(pki.ca()).arg("--cert").arg(&alice.cert).arg("--key").arg(&alice.key);
    second.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut second = Running::start(second);
    assert_ne!(second.ended().code(), Some(0));
    second.wait_for_stderr(words[0]);
    // At a reload.
    let server = pki.server();
    let own = fs::read(&server.cert).expect("a certificate");
    let own_key = fs::read(&server.key).expect("a key");
    replace(&server.cert, fs::read(&alice.cert).expect("a certificate"));
    replace(&server.key, fs::read(&alice.key).expect("a key"));
    until_told(&worker, words[0], 1);
    until_told(&worker, KEPT, 1);
    jobctl_as(&worker, "bob", &["list"]).with_code(0);
    replace(&server.cert, own);
    replace(&server.key, own_key);
    until_told(&worker, "are as they were", 1);
    // Somebody else's server, with a client's certificate that names this host.
    let named = pki.odd_client("named", |params| {
        as_server(params);
        params.extended_key_usages.clear();
        as_client(params, "admin");
    });
    let mut jobctl = worker.jobctl_as("alice", &["list"]);
    jobctl.env("JOBCTL_ADDRESS", impostor(&named).await);
    let refused = tokio::task::spawn_blocking(move || Answer::of(&mut jobctl)).await.expect("no panic");
    refused.with_code(1).saying(&["cannot trust the worker", "not meant for servers"]);
    let alert = client::refusal(&worker.address, &pki.ca(), Some(&server), &[&TLS13]).await;
    assert_eq!(alert, AlertDescription::UnsupportedCertificate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_with_a_ca_in_between_work_on_both_sides() {
    let (pki, tree) = (Arc::new(Pki::new()), Tree::new());
    replace(&pki.ca(), &tree.root_pem);
    tree.issue(pki.dir(), "server", as_server);
    tree.issue(pki.dir(), "carol", |params| as_client(params, "admin"));
    replace(&pki.crl(), tree.lists(false));
    let worker = Worker::builder().pki(&pki).start();
    let answer = jobctl_as(&worker, "carol", &["run", "--", "echo", "served"]).with_code(0);
    assert_eq!(answer.stdout, "served\n");
    let mut carol = worker.client(&pki.identity("carol")).await;
    carol.list(ListRequest::default()).await.expect("the whole chain is sent");
    // The one in between is revoked by the root.
    let job = start(&mut carol, shell("echo up; exec sleep 300")).await.expect("a job").id;
    let waiting = tokio::spawn(async move { wait(&mut carol, &job).await });
    until("the wait is under way", || {
        worker.audit().iter().any(|line| line["action"] == "wait").then_some(())
    });
    replace(&pki.crl(), tree.lists(true));
    let cut = timeout(PATIENCE, waiting).await.expect("it ends").expect("no panic").expect_err("cut off");
    assert_eq!(cut.message(), "certificate of carol was revoked");
}

#[test]
fn what_ends_soon_is_told_at_start_and_at_a_reload() {
    let pki = Arc::new(Pki::new());
    replace(&pki.crl(), list_until(&pki, OffsetDateTime::now_utc() + time::Duration::hours(36)));
    let worker = Worker::builder().pki(&pki).start();
    until_told(&worker, "(test CA) ends in 1 day, on ", 1);
    assert_eq!(told(&worker, "the worker's certificate"), 0, "{:#?}", worker.log());
    let request = ServerRequest {
        hosts: vec!["localhost".parse().expect("a host")],
        key: KeyKind::P256,
        days: "20".parse().expect("days"),
    };
    let folder = Folder::at(pki.dir());
    folder.issue(&Holder::Server, Existing::Replace, |ca| ca.issue_server(&request)).expect("a certificate");
    until_told(&worker, READ, 1);
    until_told(&worker, "the worker's certificate", 1);
    until_told(&worker, "(jobworker server) ends in ", 1);
    until_told(&worker, "(test CA) ends in 1 day, on ", 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_connections_are_verified_again_without_holding_anybody_up() {
    const CONNECTIONS: usize = 1000;
    raise_open_files();
    let worker = Arc::new(Worker::start());
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        let identity = worker.pki.odd_client("many", |params| {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, number.to_string());
            as_client(params, "user");
        });
        let mut client = worker.client(&identity).await;
        client.list(ListRequest::default()).await.expect("its first call");
        clients.push(client);
    }
    let (mut bob, mut alice) = (worker.user().await, worker.admin().await);
    let job = start(&mut alice, shell("echo up; exec sleep 300")).await.expect("a job").id;
    let waiting = tokio::spawn(async move { (wait(&mut bob, &job).await, Instant::now()) });
    let is_waiting = |line: &serde_json::Value| line["action"] == "wait";
    until("the wait is under way", || worker.audit().iter().any(is_waiting).then_some(()));
    let began = Instant::now();
    worker.pki.revoke("bob");
    let mut slowest = Duration::ZERO;
    while !waiting.is_finished() {
        let asked = Instant::now();
        alice.list(ListRequest::default()).await.expect("the admin goes on");
        slowest = slowest.max(asked.elapsed());
        assert!(began.elapsed() < PATIENCE, "bob is not cut off");
    }
    let (answer, at) = waiting.await.expect("no panic");
    assert_eq!(answer.expect_err("cut off").message(), "certificate of bob was revoked");
    until_told(&worker, "cut off: ", 1);
    eprintln!(
        "measured: among {CONNECTIONS} chains the revoked one was cut off after {:?}; the slowest call of another took {slowest:?}",
        at.duration_since(began)
    );
    for client in &mut clients {
        client.list(ListRequest::default()).await.expect("nobody else is cut off");
    }
}
