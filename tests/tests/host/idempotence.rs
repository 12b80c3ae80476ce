//! What can be asked twice: a Start with the client's own id is one job, executed once; every Stop of a job gets the same
//! answer.

use std::fs;

use jobworker_tests::Worker;
use jobworker_tests::api::{StartRequest, StopRequest};
use jobworker_tests::client::{shell, start, wait};
use tonic::Code;

use crate::support::{details, jobctl};

const ID: &str = "0b5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11";

fn request(script: &str) -> StartRequest {
    StartRequest { id: ID.to_owned(), spec: Some(shell(script)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_start_again_is_the_same_job() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trace = folder.path().join("trace");
    let script = format!("echo executed >> {}", trace.display());
    let first = admin.start(request(&script)).await.expect("a job").into_inner().job.expect("a job");
    assert_eq!(first.id, ID);
    let again = admin.start(request(&script)).await.expect("the same").into_inner().job.expect("a job");
    assert_eq!((again.id.as_str(), again.created_unix_usec), (ID, first.created_unix_usec));
    wait(&mut admin, ID).await.expect("it ends");
    let late =
        admin.start(request(&script)).await.expect("after its end, too").into_inner().job.expect("a job");
    assert!(late.outcome.is_some(), "it is the finished one");
    assert_eq!(fs::read_to_string(&trace).expect("written by the job"), "executed\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_with_another_specification_is_refused() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    admin.start(request("exit 5")).await.expect("a job");
    let refused = admin.start(request("exit 6")).await.expect_err("another job");
    assert_eq!(
        (refused.code(), details(&refused).0.as_str()),
        (Code::AlreadyExists, "JOB_EXISTS"),
        "{refused}"
    );
    assert!(refused.message().contains(ID), "{refused}");
    jobctl(&worker, &["start", "--id", ID, "--", "true"]).with_code(1).saying(&[ID]);
    jobctl(&worker, &["wait", ID]).with_code(5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_clients_with_one_id_start_one_job() {
    let worker = Worker::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trace = folder.path().join("trace");
    let script = format!("echo executed >> {}; sleep 0.2", trace.display());
    let mut starts = Vec::new();
    for _ in 0..10 {
        let (mut client, request) = (worker.admin().await, request(&script));
        starts.push(tokio::spawn(async move { client.start(request).await }));
    }
    for start in starts {
        let answer = start.await.expect("no panic").expect("every client gets the job");
        assert_eq!(answer.into_inner().job.expect("a job").id, ID);
    }
    wait(&mut worker.admin().await, ID).await.expect("it ends");
    assert_eq!(fs::read_to_string(&trace).expect("written by the job"), "executed\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_clients_that_stop_a_job_at_once_get_the_same_answer() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let script = "trap 'sleep 0.3; exit 7' TERM; while :; do sleep 0.05; done";
    let job = start(&mut admin, shell(script)).await.expect("a job").id;
    let mut stops = Vec::new();
    for _ in 0..20 {
        let (mut client, job) = (worker.admin().await, job.clone());
        let stop = StopRequest { job, ..StopRequest::default() };
        stops.push(tokio::spawn(async move { client.stop(stop).await }));
    }
    let ended = wait(&mut admin, &job).await.expect("the end");
    for stop in stops {
        let answer = stop.await.expect("no panic").expect("no error").into_inner().job.expect("a job");
        assert_eq!((&answer.outcome, answer.finished_unix_usec), (&ended.outcome, ended.finished_unix_usec));
    }
    let late = StopRequest { job, ..StopRequest::default() };
    let late = admin.stop(late).await.expect("no error after the end").into_inner().job.expect("a job");
    assert_eq!(late.outcome, ended.outcome);
}
