//! How many jobs of one owner run at a time under a policy: exactly so many, whatever happens at the same moment.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jobworker_tests::api::{ListRequest, RemoveRequest, StartRequest, StopRequest};
use jobworker_tests::client::{spec, start, wait};
use jobworker_tests::pki::{role_extension, role_value};
use jobworker_tests::policy::PolicyFile;
use jobworker_tests::wait::{PATIENCE, until_equal};
use jobworker_tests::{Client, Worker};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::policy::worker;
use crate::policy_start::{sleeping, under};

fn is_one_too_many(refused: &Status) -> bool {
    let cap = refused.get_details_error_info().and_then(|info| info.metadata.get("cap").cloned());
    assert_eq!((refused.code(), cap.as_deref()), (Code::ResourceExhausted, Some("running")), "{refused}");
    assert!(refused.message().contains("bob has 2 jobs that have not ended"), "{refused}");
    true
}

async fn expect_full(client: &mut Client) {
    assert!(is_one_too_many(&start(client, sleeping()).await.expect_err("one too many")));
}

async fn stop(client: &mut Client, job: &str) {
    let stop = StopRequest { job: job.to_owned(), grace_msec: Some(0), ..StopRequest::default() };
    client.stop(stop).await.expect("one's own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_jobs_at_a_time_are_never_three() {
    let file = under("running = 2");
    let first = worker(&file);
    let bob = first.user().await;
    let starts = (0..24).map(|_| {
        let mut bob = bob.clone();
        async move { start(&mut bob, sleeping()).await }
    });
    let (started, refused): (Vec<_>, Vec<_>) = join_all(starts).await.into_iter().partition(Result::is_ok);
    let started: Vec<_> = started.into_iter().map(|job| job.expect("started").id).collect();
    assert_eq!(started.len(), 2);
    assert!(refused.into_iter().all(|refused| is_one_too_many(&refused.expect_err("refused"))));
    let denied = || first.audit().iter().filter(|line| line["decision"] == "denied").count();
    until_equal("an audit line for each", &22, denied);
    let rule =
        first.audit().into_iter().find(|line| line["decision"] == "denied").expect("a line")["rule"].clone();
    assert!(rule.as_str().is_some_and(|rule| rule.ends_with("roles.user.jobs.running = 2")), "{rule}");

    let carol = first.pki.client("carol", "user", &[]);
    start(&mut first.client(&carol).await, sleeping()).await.expect("another's jobs do not count");
    // Another worker counts what it finds.
    let worker = Worker::builder().pki(&first.pki).state(first.state());
    let worker = worker.args(&["--policy", file.path().to_str().expect("UTF-8")]);
    let worker = match first.cgroup() {
        Some(cgroup) => worker.cgroup(cgroup),
        None => worker,
    };
    let worker = worker.start();
    let mut bob = worker.user().await;
    expect_full(&mut bob).await;
    stop(&mut bob, &started[0]).await;
    let third = start(&mut bob, sleeping()).await.expect("a place is free").id;
    expect_full(&mut bob).await;
    let again = StartRequest { id: third, spec: Some(sleeping()) };
    bob.start(again).await.expect("the same job again is not one more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_used_again_counts_again() {
    let file = under("running = 2\n[roles.free]\nall = \"own\"");
    let worker = worker(&file);
    let free = worker.pki.odd_client("free", |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "bob");
        params.custom_extensions.push(role_extension(&role_value("free")));
    });
    let (mut bob, mut free) = (worker.user().await, worker.client(&free).await);
    let id = "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f".to_owned();
    let with_id = |spec| StartRequest { id: id.clone(), spec: Some(spec) };
    bob.start(with_id(spec(&["true"]))).await.expect("a job");
    wait(&mut bob, &id).await.expect("it ends");
    // Counted once as one that has ended.
    start(&mut bob, sleeping()).await.expect("the first");
    bob.remove(RemoveRequest { job: id.clone() }).await.expect("it has ended");
    free.start(with_id(sleeping())).await.expect("the second, of the same owner in a role that counts none");
    expect_full(&mut bob).await;
}

/// A renewed certificate has another serial number and another fingerprint; the person is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_frees_no_place_whatever_makes_an_owner() {
    for ownership in ["serial", "fingerprint", "name"] {
        let file = PolicyFile::new(&format!(
            "ownership = {ownership:?}\n[roles.user]\nall = \"own\"\n[roles.user.jobs]\nrunning = 2\n[roles.admin]\nall = \"any\""
        ));
        let worker = worker(&file);
        let mut bob = worker.user().await;
        start(&mut bob, sleeping()).await.expect("the first");
        let next = worker.pki.odd_client("bob-next", |params| {
            params.distinguished_name.push(rcgen::DnType::CommonName, "bob");
            params.custom_extensions.push(role_extension(&role_value("user")));
        });
        let mut next = worker.client(&next).await;
        start(&mut next, sleeping()).await.expect("the second");
        expect_full(&mut next).await;
        expect_full(&mut bob).await;
        let carol = worker.pki.client("carol", "user", &[]);
        start(&mut worker.client(&carol).await, sleeping()).await.expect("another's jobs do not count");
    }
}

/// Where ownership is by OS user and nobody's certificate names one, each client still has places of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_a_persons_where_os_users_make_owners() {
    let text = "ownership = \"os_user\"\n[roles.user]\nstart = \"own\"\n[roles.user.jobs]\nrunning = 2\n[roles.admin]\nall = \"any\"";
    let worker = worker(&PolicyFile::new(text));
    let (mut bob, carol) = (worker.user().await, worker.pki.client("carol", "user", &[]));
    for _ in 0..2 {
        start(&mut worker.client(&carol).await, sleeping()).await.expect("carol's");
        start(&mut bob, sleeping()).await.expect("bob's");
    }
    expect_full(&mut bob).await;
}

/// Stops all jobs of a client, once there are so many.
async fn stop_all(client: &mut Client, count: usize) {
    let began = Instant::now();
    let jobs = loop {
        let list = client.list(ListRequest::default()).await.expect("a list").into_inner();
        if list.jobs.len() == count {
            break list.jobs;
        }
        assert!(began.elapsed() < PATIENCE, "still {} jobs", list.jobs.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    for job in jobs {
        stop(client, &job.id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_gives_up_a_start_neither_frees_its_place_nor_loses_it() {
    const PLACES: usize = 10;
    let file = under(&format!("running = {PLACES}"));
    let worker = worker(&file);
    for round in 0..40 {
        // Of its own connection: who gives up too many calls of one is disconnected.
        let mut bob = worker.user().await;
        let call = tokio::spawn(async move { start(&mut bob, sleeping()).await });
        // How far it has got by now is left to chance.
        tokio::time::sleep(Duration::from_micros(250 * (round % 16))).await;
        call.abort();
    }
    let fill = async |bob: &mut Client| {
        let starts = (0..2 * PLACES).map(|_| {
            let mut bob = bob.clone();
            async move {
                let started = start(&mut bob, sleeping()).await.map_err(|refused| refused.code());
                assert!(matches!(started, Ok(_) | Err(Code::ResourceExhausted)), "{started:?}");
                started.is_ok()
            }
        });
        join_all(starts).await.into_iter().filter(|started| *started).count()
    };
    let mut bob = worker.user().await;
    fill(&mut bob).await;
    // Those that were given up may still be on their way.
    assert_eq!(fill(&mut bob).await, 0, "all places are taken");
    stop_all(&mut bob, PLACES).await;
    assert_eq!(fill(&mut bob).await, PLACES, "and all are free again");
}
