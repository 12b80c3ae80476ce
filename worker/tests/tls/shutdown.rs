//! Going down: everybody is told, nothing hangs.

use std::time::{Duration, Instant};

use jobworker::serve::DRAIN_TIMEOUT;
use jobworker_proto::v1::{StreamRequest, WaitRequest};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::audit::{self, until};
use crate::pki::Pki;
use crate::worker::Worker;

fn is_shutting_down(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "SHUTTING_DOWN");
}

#[tokio::test]
async fn followers_and_waiters_are_told_and_the_worker_ends() {
    let worker = Worker::start(Pki::new()).await;
    let job = worker.running_job().to_string();
    let mut client = worker.admin().await;
    let request = StreamRequest { job: job.clone(), ..StreamRequest::default() };
    let mut stream = client.api.stream(request).await.unwrap().into_inner();
    let watched = HealthCheckRequest { service: String::new() };
    let _health = HealthClient::new(client.channel.clone()).watch(watched).await.unwrap();
    let mut waiter = client.api.clone();
    let wait = tokio::spawn(async move { waiter.wait(WaitRequest { job }).await });
    until("the wait has begun", || (audit::lines(client.address).len() == 2).then_some(())).await;

    let began = Instant::now();
    worker.shutdown.cancel();
    is_shutting_down(&stream.message().await.unwrap_err());
    is_shutting_down(&wait.await.unwrap().unwrap_err());
    timeout(Duration::from_secs(20), worker.server).await.expect("the worker ends").unwrap().unwrap();
    assert!(began.elapsed() < DRAIN_TIMEOUT, "nobody had to be waited for");
    TcpStream::connect(worker.address).await.expect_err("nobody listens any more");
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_not_waited_for() {
    let worker = Worker::start(Pki::new()).await;
    // Connected, and never a word of HTTP/2.
    let silent = worker.tls(Some(&worker.pki.identity("alice")), crate::worker::TLS13).await.unwrap();
    worker.shutdown.cancel();
    timeout(DRAIN_TIMEOUT * 3, worker.server).await.expect("the worker ends").unwrap().unwrap();
    drop(silent);
}
