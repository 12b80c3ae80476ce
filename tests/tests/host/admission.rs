//! Who gets in: a certificate that does not verify never reaches a handler. The worker answers with a TLS alert, jobctl
//! turns it into words, nothing is executed, and the audit log has one line for each attempt.

use std::fs;
use std::sync::Arc;

use jobworker_tests::client::{self, refusal, start};
use jobworker_tests::pki::{Identity, role_extension, role_value};
use jobworker_tests::wait::{until, until_equal};
use jobworker_tests::{Pki, Worker};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::AlertDescription;
use rustls::version::{TLS12, TLS13};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::{Answer, Belongings, jobctl_as};

/// An admin by role, so that only what `edit` does to the certificate can keep it out.
fn odd_admin(pki: &Pki, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Identity {
    pki.odd_client(name, |params| {
        params.custom_extensions.push(role_extension(&role_value("admin")));
        edit(params);
    })
}

/// Tries the certificate `name` with the raw client and with jobctl.
async fn expect_refused(worker: &Worker, name: &str, alert: AlertDescription, words: &[&str]) {
    let before = worker.audit().len();
    let identity = worker.pki.identity(name);
    let heard = refusal(&worker.address, &worker.pki.ca(), Some(&identity), &[&TLS13]).await;
    assert_eq!(heard, alert, "{name}");
    until_equal("one audit line for the raw client", &(before + 1), || worker.audit().len());
    jobctl_as(worker, name, &["start", "--", "true"])
        .with_code(1)
        .saying(&["unauthenticated: "])
        .saying(words);
    until_equal("one audit line for jobctl", &(before + 2), || worker.audit().len());
    assert_eq!(Belongings::of(worker), Belongings::none(), "{name}");
}

/// That no line more than `expected` comes is known as soon as one for a later call is there.
async fn expect_audit_lines(worker: &Worker, expected: usize) {
    let mut admin = worker.admin().await;
    admin.list(jobworker_tests::api::ListRequest::default()).await.expect("an admin may list");
    let last = until("the audit line of the list", || {
        let lines = worker.audit();
        lines.iter().position(|line| line.to_string().contains("\"list\""))
    });
    assert_eq!(last, expected, "{:#?}", worker.audit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_do_not_verify_are_refused_in_words() {
    let worker = Worker::start();
    odd_admin(&worker.pki, "expired", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 15);
    });
    odd_admin(&worker.pki, "early", |params| params.not_before = date_time_ymd(2090, 3, 2));
    odd_admin(&worker.pki, "purpose", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let expired = ["certificate expired on 2020-02-1", "(expired)"];
    expect_refused(&worker, "expired", AlertDescription::CertificateExpired, &expired).await;
    let early = ["certificate not valid before 2090-03-0"];
    expect_refused(&worker, "early", AlertDescription::CertificateExpired, &early).await;
    let purpose = ["not meant for clients"];
    expect_refused(&worker, "purpose", AlertDescription::UnsupportedCertificate, &purpose).await;
    // The worker's own certificate, stolen from its host.
    expect_refused(&worker, "server", AlertDescription::UnsupportedCertificate, &purpose).await;
    expect_audit_lines(&worker, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_ca_is_refused_whatever_that_calls_itself() {
    let worker = Worker::start();
    let namesake = Pki::new();
    let (other, eve) = (namesake.client("eve", "admin", &[]), worker.pki.identity("eve"));
    fs::copy(&other.cert, &eve.cert).expect("a writable folder");
    fs::copy(&other.key, &eve.key).expect("a writable folder");
    expect_refused(&worker, "eve", AlertDescription::DecryptError, &["(eve)", "not signed by a CA"]).await;

    let own = odd_admin(&worker.pki, "mallory", |_| {});
    let key = KeyPair::from_pem(&fs::read_to_string(&own.key).expect("a key")).expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "mallory");
    params.custom_extensions.push(role_extension(&role_value("admin")));
    fs::write(&own.cert, params.self_signed(&key).expect("a signature").pem()).expect("a writable folder");
    let words = ["not signed by a CA that the worker knows", "CN=mallory"];
    expect_refused(&worker, "mallory", AlertDescription::UnknownCA, &words).await;
    expect_audit_lines(&worker, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_certificate_is_refused() {
    let pki = Arc::new(Pki::new());
    pki.client("mallory", "admin", &[]);
    pki.revoke("mallory");
    let worker = Worker::builder().pki(&pki).start();
    let words = ["certificate revoked", "(mallory)"];
    expect_refused(&worker, "mallory", AlertDescription::CertificateRevoked, &words).await;
    expect_audit_lines(&worker, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_in_without_a_certificate_or_with_tls_1_2() {
    let worker = Worker::start();
    let (ca, alice) = (worker.pki.ca(), worker.pki.identity("alice"));
    let none = refusal(&worker.address, &ca, None, &[&TLS13]).await;
    assert_eq!(none, AlertDescription::CertificateRequired);
    let old = refusal(&worker.address, &ca, Some(&alice), &[&TLS12]).await;
    assert_eq!(old, AlertDescription::ProtocolVersion);
    expect_audit_lines(&worker, 2).await;
    let mut jobctl = worker.jobctl_as("alice", &["list"]);
    jobctl.env_remove("JOBCTL_CERT").env("HOME", "/nonexistent").env_remove("JOBCTL_CONFIG");
    Answer::of(&mut jobctl).with_code(1).saying(&["no --cert", "--cert FILE"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_trust_the_worker_says_why() {
    let (worker, other) = (Worker::start(), Pki::new());
    let mut jobctl = worker.jobctl_as("alice", &["list"]);
    jobctl.env("JOBCTL_CA", other.ca());
    let answer = Answer::of(&mut jobctl).with_code(1);
    answer.saying(&["cannot trust the worker at 127.0.0.1", "not signed by the CA in"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_answer_only_over_mutual_tls() {
    let worker = Worker::start();
    let (ca, alice) = (worker.pki.ca(), worker.pki.identity("alice"));
    let channel = client::channel(&worker.address, &ca, Some(&alice), &[&TLS13]).await.expect("a channel");
    let check = HealthCheckRequest { service: "jobworker.v1.JobWorker".to_owned() };
    let health = HealthClient::new(channel.clone()).check(check.clone()).await.expect("health answers");
    assert_eq!(health.into_inner().status().as_str_name(), "SERVING");
    let services = reflected_services(channel).await;
    assert!(services.iter().any(|name| name == "jobworker.v1.JobWorker"), "{services:?}");

    let stranger = client::channel(&worker.address, &ca, None, &[&TLS13]).await;
    let Ok(stranger) = stranger else { return };
    HealthClient::new(stranger.clone()).check(check).await.expect_err("no health without a certificate");
    let request = list_services();
    ServerReflectionClient::new(stranger)
        .server_reflection_info(request)
        .await
        .expect_err("no reflection either");
}

async fn reflected_services(channel: tonic::transport::Channel) -> Vec<String> {
    let request = list_services();
    let answer =
        ServerReflectionClient::new(channel).server_reflection_info(request).await.expect("an answer");
    let message = answer.into_inner().message().await.expect("a message").expect("one at least");
    match message.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|one| one.name).collect()
        }
        other => panic!("not a list of services: {other:?}"),
    }
}

fn list_services() -> tonic::Request<impl futures_util::Stream<Item = ServerReflectionRequest>> {
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    tonic::Request::new(futures_util::stream::iter([list]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_client_leaves_the_others_alone() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    refusal(&worker.address, &worker.pki.ca(), None, &[&TLS13]).await;
    start(&mut admin, client::spec(&["true"])).await.expect("the admin's connection lives on");
}
