//! Each shipped policy's truth table, over real mutual TLS. `ceilings` and `os-user` need controllers and other OS
//! users for theirs: they are among the `privileged` tests.

use std::fs;

use jobworker_tests::api::{EnvVar, JobSpec, ListRequest, StatusRequest};
use jobworker_tests::client::{spec, start};
use jobworker_tests::pki::{Identity, role_extension, role_value};
use jobworker_tests::policy::{PolicyFile, Subject, TruthTable, shipped};
use jobworker_tests::{Pki, Worker};
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::support::details;

/// A worker under a policy.
pub(crate) fn worker(file: &PolicyFile) -> Worker {
    Worker::builder().renewing().args(&["--policy", file.path().to_str().expect("a UTF-8 path")]).start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_admins_do_everything_and_users_look() {
    // The same with the file and without any.
    let file = PolicyFile::new(shipped::DEFAULT);
    for worker in [worker(&file), Worker::builder().renewing().start()] {
        let (alice, bob) = (worker.pki.identity("alice"), worker.pki.identity("bob"));
        let (carol, eve) =
            (worker.pki.client("carol", "admin", &[]), worker.pki.client("eve", "operator", &[]));
        let mut table = TruthTable::of(&worker);
        table.row("admin", &alice, "own", Subject::Of(&alice)).await;
        table.row("admin", &alice, "foreign", Subject::Of(&carol)).await;
        table.row("admin", &alice, "none", Subject::Nothing).await;
        table.row("user", &bob, "foreign", Subject::Of(&alice)).await;
        table.row("user", &bob, "none", Subject::Nothing).await;
        table.row("operator", &eve, "foreign", Subject::Of(&alice)).await;
        table.row("operator", &eve, "none", Subject::Nothing).await;
        table.expect(
            "client    job      start  list  status  stream  wait  signal  stop  remove  renew
             admin     own      yes    yes   yes     yes     yes   yes     yes   yes     yes
             admin     foreign  yes    yes   yes     yes     yes   yes     yes   yes     yes
             admin     none     yes    yes   gone    gone    gone  gone    gone  gone    yes
             user      foreign  no     yes   yes     yes     yes   no      no    no      yes
             user      none     no     yes   gone    gone    gone  no      no    no      yes
             operator  foreign  role   role  role    role    role  role    role  role    role
             operator  none     role   role  role    role    role  role    role  role    role",
        );
    }
}

/// The same person with the next certificate.
fn renewed(pki: &Pki, name: &str) -> Identity {
    let old = pki.identity(name);
    let kept = pki.identity(&format!("{name}-before"));
    fs::rename(&old.cert, &kept.cert).expect("a certificate");
    fs::rename(&old.key, &kept.key).expect("a key");
    pki.odd_client(name, |params| params.custom_extensions.push(role_extension(&role_value("user"))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_everyone_starts_and_stops_and_streams_their_own() {
    for (ownership, renewed_row) in [
        ("name", "renewed  own      yes    yes   yes     yes     yes   yes     yes   yes     yes"),
        ("serial", "renewed  own      yes    yes   yes     no      yes   no      no    no     yes"),
        ("fingerprint", "renewed  own      yes    yes   yes     no      yes   no      no    no     yes"),
    ] {
        let text = shipped::OWNER.replace("ownership = \"name\"", &format!("ownership = {ownership:?}"));
        let worker = worker(&PolicyFile::new(&text));
        let (alice, bob) = (worker.pki.identity("alice"), worker.pki.identity("bob"));
        let next = renewed(&worker.pki, "bob");
        let before = worker.pki.identity("bob-before");
        assert_eq!(next.cert, bob.cert);
        let mut table = TruthTable::of(&worker);
        table.row("user", &before, "own", Subject::Of(&before)).await;
        table.row("user", &before, "foreign", Subject::Of(&alice)).await;
        table.row("user", &before, "none", Subject::Nothing).await;
        table.row("admin", &alice, "own", Subject::Of(&alice)).await;
        table.row("admin", &alice, "foreign", Subject::Of(&before)).await;
        table.row("renewed", &next, "own", Subject::Of(&before)).await;
        table.expect(&format!(
            "client   job      start  list  status  stream  wait  signal  stop  remove  renew
             user     own      yes    yes   yes     yes     yes   yes     yes   yes     yes
             user     foreign  yes    yes   yes     no      yes   no      no    no      yes
             user     none     yes    yes   gone    gone    gone  gone    gone  gone    yes
             admin    own      yes    yes   yes     yes     yes   yes     yes   yes     yes
             admin    foreign  yes    yes   yes     no      yes   no      no    no      yes
             {renewed_row}",
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolated_users_have_only_their_own() {
    let worker = worker(&PolicyFile::new(shipped::ISOLATED));
    let (alice, bob) = (worker.pki.identity("alice"), worker.pki.identity("bob"));
    let carol = worker.pki.client("carol", "user", &[]);
    let mut table = TruthTable::of(&worker);
    table.row("user", &bob, "own", Subject::Of(&bob)).await;
    table.row("user", &bob, "foreign", Subject::Of(&carol)).await;
    table.row("user", &bob, "admin's", Subject::Of(&alice)).await;
    table.row("user", &bob, "none", Subject::Nothing).await;
    table.row("admin", &alice, "own", Subject::Of(&alice)).await;
    table.row("admin", &alice, "foreign", Subject::Of(&bob)).await;
    table.row("admin", &alice, "none", Subject::Nothing).await;
    table.expect(
        "client  job      start  list    status  stream  wait  signal  stop  remove  renew
         user    own      yes    yes     yes     yes     yes   yes     yes   yes     yes
         user    foreign  yes    hidden  no      no      no    no      no    no      yes
         user    admin's  yes    hidden  no      no      no    no      no    no      yes
         user    none     yes    yes     gone    gone    gone  gone    gone  gone    yes
         admin   own      yes    yes     yes     yes     yes   yes     yes   yes     yes
         admin   foreign  yes    yes     yes     yes     yes   yes     yes   yes     yes
         admin   none     yes    yes     gone    gone    gone  gone    gone  gone    yes",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolated_users_learn_nothing_of_others_by_beginnings() {
    let worker = worker(&PolicyFile::new(shipped::ISOLATED));
    let (mut alice, mut bob) = (worker.admin().await, worker.user().await);
    let with_id =
        |id: &str| jobworker_tests::api::StartRequest { id: id.to_owned(), spec: Some(spec(&["true"])) };
    let (mine, others, alone) = (
        "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f",
        "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e70",
        "a0000000-0000-4000-8000-000000000000",
    );
    bob.start(with_id(mine)).await.expect("bob's");
    for id in [others, alone] {
        alice.start(with_id(id)).await.expect("alice's");
    }
    let ask = |job: &str| StatusRequest { job: job.to_owned() };
    let found = bob.status(ask("3f2b")).await.expect("unique among his own").into_inner();
    assert_eq!(found.job.expect("a job").id, mine);
    for beginning in ["a", &alone[..35]] {
        let absent = bob.status(ask(beginning)).await.expect_err(beginning);
        assert_eq!(absent.code(), Code::NotFound, "as if there were none");
    }
    let refused = bob.status(ask(others)).await.expect_err("another's");
    assert_eq!((refused.code(), details(&refused).0.as_str()), (Code::PermissionDenied, "DENIED"));
    assert!(!refused.message().contains("alice"), "nor whose it is: {refused}");
    let ambiguous = alice.status(ask("3f2b")).await.expect_err("two");
    assert_eq!(ambiguous.code(), Code::InvalidArgument);
    let list = bob.list(ListRequest { page_size: Some(1), ..ListRequest::default() }).await.expect("a list");
    let list = list.into_inner();
    assert_eq!((list.jobs.len(), list.next_page_token.as_str()), (1, ""), "nor that there is more");
    let taken = bob.start(with_id(others)).await.expect_err("an id that is taken");
    assert_eq!(taken.code(), Code::AlreadyExists);
}

fn fingerprint(identity: &Identity) -> String {
    let pem = fs::read_to_string(&identity.cert).expect("a certificate");
    let der = rustls_der(&pem);
    Sha256::digest(&der).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn rustls_der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate").to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fingerprint_roles_are_lists_of_certificates() {
    let pki = std::sync::Arc::new(Pki::new());
    // What the extension says does not matter.
    let [full, log, both] =
        [("full", "user"), ("log", "admin"), ("both", "x")].map(|(name, role)| pki.client(name, role, &[]));
    let neither = pki.identity("alice");
    let list = |members: &[&Identity]| {
        format!("fingerprints = {:?}", members.iter().map(|of| fingerprint(of)).collect::<Vec<_>>())
    };
    let text = shipped::FINGERPRINT.replacen("fingerprints = []", &list(&[&full, &both]), 1);
    let text = text.replacen("fingerprints = []", &list(&[&log, &both]), 1);
    let file = PolicyFile::new(&text);
    let worker = Worker::builder()
        .pki(&pki)
        .renewing()
        .args(&["--policy", file.path().to_str().expect("UTF-8")])
        .start();
    let mut table = TruthTable::of(&worker);
    for (name, client) in [("full", &full), ("log", &log), ("both", &both), ("neither", &neither)] {
        table.row(name, client, "foreign", Subject::Of(if name == "full" { &both } else { &full })).await;
        table.row(name, client, "none", Subject::Nothing).await;
    }
    table.row("full", &full, "own", Subject::Of(&full)).await;
    table.expect(
        "client   job      start  list  status  stream  wait  signal  stop  remove  renew
         full     foreign  yes    yes   yes     yes     yes   yes     yes   yes     no
         full     none     yes    yes   gone    gone    gone  gone    gone  gone    no
         log      foreign  no     yes   yes     no      yes   no      no    no      no
         log      none     no     yes   gone    no      gone  no      no    no      no
         both     foreign  yes    yes   yes     yes     yes   yes     yes   yes     no
         both     none     yes    yes   gone    gone    gone  gone    gone  gone    no
         neither  foreign  role   role  role    role    role  role    role  role    role
         neither  none     role   role  role    role    role  role    role  role    role
         full     own      yes    yes   yes     yes     yes   yes     yes   yes     no",
    );
    let refused = start(&mut worker.client(&neither).await, spec(&["true"])).await.expect_err("in neither");
    assert!(refused.message().contains("no role lists its SHA-256 fingerprint"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_may_be_lists_of_uri_names() {
    let text = "identify = \"uri\"\n[roles.ops]\nuris = [\"spiffe://example.org/ops\"]\nall = \"any\"\n\
                [roles.watch]\nuris = [\"spiffe://example.org/watch\"]\nlist = \"any\"\nstatus = \"any\"";
    let worker = worker(&PolicyFile::new(text));
    let named = |name: &str, uris: &[&str]| worker.pki.client(name, "admin", uris);
    // A name of one's own, and then that of a group.
    let ops = named("ann", &["spiffe://example.org/ann", "spiffe://example.org/ops"]);
    let watch = named("wes", &["spiffe://example.org/watch"]);
    let below = named("eve", &["spiffe://example.org/ops/eve"]);
    let mut table = TruthTable::of(&worker);
    table.row("ops", &ops, "own", Subject::Of(&ops)).await;
    table.row("watch", &watch, "foreign", Subject::Of(&ops)).await;
    table.row("below", &below, "foreign", Subject::Of(&ops)).await;
    table.expect(
        "client  job      start  list  status  stream  wait  signal  stop  remove  renew
         ops     own      yes    yes   yes     yes     yes   yes     yes   yes     yes
         watch   foreign  no     yes   yes     no      no    no      no    no      yes
         below   foreign  role   role  role    role    role  role    role  role    role",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_is_only_its_owners_to_see_whatever_makes_an_owner() {
    let text = shipped::OWNER.replace("ownership = \"name\"", "ownership = \"serial\"");
    let worker = worker(&PolicyFile::new(&text));
    let next = renewed(&worker.pki, "bob");
    let mut bob = worker.client(&worker.pki.identity("bob-before")).await;
    let env = vec![EnvVar { key: "TOKEN".to_owned(), value: b"hunter2".to_vec() }];
    let job = start(&mut bob, JobSpec { env, ..spec(&["true"]) }).await.expect("a user may").id;
    let mut namesake = worker.client(&next).await;
    for (client, expected) in [(&mut bob, 1), (&mut namesake, 0)] {
        let seen =
            client.status(StatusRequest { job: job.clone() }).await.expect("anyone may look").into_inner();
        assert_eq!(seen.job.and_then(|job| job.spec).expect("a spec").env.len(), expected);
        let seen = client.list(ListRequest::default()).await.expect("anyone may list").into_inner();
        assert_eq!(seen.jobs[0].spec.as_ref().expect("a spec").env.len(), expected);
    }
}
