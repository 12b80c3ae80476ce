//! Before any request: handshakes, certificates, caps.

use std::num::NonZeroUsize;
use std::time::Duration;

use jobworker_proto::v1::ListRequest;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tonic::Code;

use crate::audit::{self, only_line};
use crate::pki::{Identity, Pki};
use crate::worker::{TLS13, Worker};

async fn refused(worker: &Worker, identity: Option<&Identity>, alert: &str, reason: &str) {
    let (said, address) = worker.alert(identity, TLS13).await;
    assert!(said.contains(alert), "the client hears {alert}, not {said:?}");
    let line = only_line(address).await;
    assert_eq!(
        (line["decision"].as_str(), line["action"].as_str()),
        (Some("denied"), Some("connect")),
        "{line}"
    );
    assert!(line["reason"].as_str().unwrap().contains(reason), "{line}");
    // Whom it names nobody vouches for.
    assert_eq!(line.get("client"), None, "{line}");
    let claims = ["claimed_client", "claimed_serial", "claimed_fingerprint"].map(|key| line.get(key));
    match identity {
        Some(identity) => {
            assert_eq!(claims.map(|claim| claim.unwrap().as_str().unwrap()), identity.says(), "{line}");
        }
        None => assert_eq!(claims, [None; 3], "{line}"),
    }
}

#[tokio::test]
async fn nobody_gets_in_without_a_good_certificate() {
    let pki = Pki::new();
    pki.client("carol", "admin");
    pki.revoke("carol");
    let worker = Worker::start(pki).await;
    let pki = &worker.pki;
    refused(&worker, None, "CertificateRequired", "no client certificate was presented").await;
    let other = Pki::new();
    refused(&worker, Some(&other.identity("alice")), "DecryptError", "not signed by a CA of --ca").await;
    let expired = pki.odd("expired", |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
    });
    refused(&worker, Some(&expired), "CertificateExpired", "expired on 2020-02-01T00:00:00Z").await;
    let early = pki.odd("early", |params| params.not_before = date_time_ymd(2900, 1, 1));
    refused(&worker, Some(&early), "CertificateExpired", "not valid before 2900-01-01").await;
    let server =
        pki.odd("usage", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    refused(&worker, Some(&server), "UnsupportedCertificate", "lacks clientAuth").await;
    refused(&worker, Some(&pki.identity("carol")), "CertificateRevoked", "revoked").await;
    let (alice, bob) = (pki.identity("alice"), pki.identity("bob"));
    let thief = Identity { cert: alice.cert, key: bob.key };
    refused(&worker, Some(&thief), "DecryptError", "has not got the private key").await;
    // And with a good one it works.
    worker.admin().await.api.list(ListRequest::default()).await.unwrap();
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let worker = Worker::start(Pki::new()).await;
    let alice = worker.pki.identity("alice");
    let (said, address) = worker.alert(Some(&alice), &[&rustls::version::TLS12]).await;
    assert!(said.contains("ProtocolVersion"), "{said}");
    assert!(only_line(address).await["reason"].as_str().unwrap().starts_with("no TLS 1.3 in common"));
}

#[tokio::test]
async fn what_does_not_speak_tls_is_refused() {
    use tokio::io::AsyncWriteExt;
    let worker = Worker::start(Pki::new()).await;
    let mut tcp = worker.tcp().await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let line = only_line(tcp.local_addr().unwrap()).await;
    assert!(line["reason"].as_str().unwrap().contains("does not speak TLS"), "{line}");
}

/// Two common names: rcgen keeps one of each type, and takes the second one's type for another.
fn twice_named(params: &mut CertificateParams) {
    params.distinguished_name.push(DnType::CommonName, "eve");
    params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "mallory");
}

#[tokio::test]
async fn a_certificate_that_names_nobody_is_refused_on_each_call_with_the_reason() {
    let worker = Worker::start(Pki::new()).await;
    let named = |name: &str| {
        let name = name.to_owned();
        move |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, name)
    };
    type Edit = Box<dyn FnOnce(&mut CertificateParams)>;
    let table: [(&str, Edit, &str); 5] = [
        ("nobody", Box::new(|params| params.distinguished_name = DistinguishedName::new()), "names nobody"),
        ("two", Box::new(twice_named), "more than one common name"),
        ("control", Box::new(named("a\nb")), "common name is not 1 to 256 bytes"),
        ("long", Box::new(named(&"x".repeat(257))), "common name is not 1 to 256 bytes"),
        (
            "uri",
            Box::new(|params| {
                let uri = format!("spiffe://{}", "x".repeat(256));
                params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
            }),
            "first URI name is not 1 to 256 bytes",
        ),
    ];
    for (file, edit, words) in table {
        let odd = worker.pki.odd(file, edit);
        let mut client = worker.client(&odd).await;
        // The connection stays: each call has the same answer, and a line of its own.
        for call in 1..=2 {
            let status = client.api.list(ListRequest::default()).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{file}: {status:?}");
            assert!(status.message().contains(words), "{file}: {status:?}");
            let lines = audit::lines(client.address);
            assert_eq!(lines.len(), call, "{file}: {lines:#?}");
            let line = &lines[call - 1];
            assert_eq!((line["decision"].as_str(), line["event"].as_str()), (Some("denied"), None), "{line}");
            assert!(line["reason"].as_str().unwrap().contains(words), "{line}");
            assert_eq!(line["client"], "", "{line}");
            let [serial, fingerprint] = odd.numbers();
            assert_eq!(
                (line["serial"].as_str(), line["fingerprint"].as_str()),
                (Some(&*serial), Some(&*fingerprint))
            );
        }
        // Whichever service is asked.
        let mut health = tonic_health::pb::health_client::HealthClient::new(client.channel.clone());
        let status = health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{file}: {status:?}");
    }
}

#[tokio::test]
async fn the_connection_is_what_was_promised() {
    let worker = Worker::start(Pki::new()).await;
    let mut stream = worker.tls(Some(&worker.pki.identity("alice")), TLS13).await.unwrap();
    // The worker's first frame, and with it anything that would come of session tickets.
    assert!(stream.read(&mut [0; 64]).await.unwrap() > 0);
    let tls = stream.get_mut().1;
    assert_eq!(tls.alpn_protocol(), Some(&b"h2"[..]));
    // The worker's choice, not that of the client, which likes ChaCha20 best.
    assert_eq!(tls.negotiated_cipher_suite().unwrap().suite(), rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
    assert_eq!(tls.tls13_tickets_received(), 0);
}

#[tokio::test]
async fn a_stalled_handshake_holds_up_nobody_and_times_out() {
    let worker = Worker::with(Pki::new(), |options| {
        options.handshake_timeout = Some(Duration::from_millis(500));
    })
    .await;
    let mut stalled = worker.tcp().await.unwrap();
    worker.admin().await.api.list(ListRequest::default()).await.unwrap();
    let end =
        timeout(Duration::from_secs(10), stalled.read(&mut [0; 64])).await.expect("the worker gives up");
    assert!(matches!(end, Ok(0) | Err(_)));
    let line = only_line(stalled.local_addr().unwrap()).await;
    assert_eq!(line["reason"], "the TLS handshake took longer than 500ms");
}

#[tokio::test]
async fn too_many_handshakes_cost_the_oldest_its_place() {
    let worker = Worker::with(Pki::new(), |options| {
        options.max_handshakes = NonZeroUsize::new(2);
        options.handshake_timeout = Some(Duration::from_secs(60));
    })
    .await;
    let mut oldest = worker.tcp().await.unwrap();
    let mut newer = worker.tcp().await.unwrap();
    worker.admin().await.api.list(ListRequest::default()).await.unwrap();
    let end = timeout(Duration::from_secs(10), oldest.read(&mut [0; 64])).await.expect("it is dropped");
    assert!(matches!(end, Ok(0) | Err(_)));
    let line = only_line(oldest.local_addr().unwrap()).await;
    assert!(
        line["reason"].as_str().unwrap().starts_with("dropped in the middle of the TLS handshake"),
        "{line}"
    );
    assert!(timeout(Duration::from_millis(100), newer.read(&mut [0; 64])).await.is_err(), "it waits on");
}

#[tokio::test]
async fn connections_have_a_cap_and_give_their_place_back() {
    let worker = Worker::with(Pki::new(), |options| options.max_connections = NonZeroUsize::new(1)).await;
    let mut first = worker.admin().await;
    first.api.list(ListRequest::default()).await.unwrap();
    let mut second = worker.tcp().await.unwrap();
    assert!(matches!(second.read(&mut [0; 64]).await, Ok(0) | Err(_)));
    let line = only_line(second.local_addr().unwrap()).await;
    assert_eq!(line["reason"], "there are 1 connections already (--max-connections)");
    drop(first);
    let alice = worker.pki.identity("alice");
    let retried = async {
        // Until the worker has seen the first one's end.
        while worker.tls(Some(&alice), TLS13).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), retried).await.expect("there is a place again");
}

#[tokio::test]
async fn a_certificate_that_expires_ends_the_calls_of_its_connection() {
    let worker = Worker::start(Pki::new()).await;
    let soon = time::OffsetDateTime::now_utc() + time::Duration::seconds(3);
    let short = worker.pki.odd("short", |params| params.not_after = soon);
    let mut client = worker.client(&short).await;
    client.api.list(ListRequest::default()).await.unwrap();
    let status = loop {
        match client.api.list(ListRequest::default()).await {
            Ok(_) => {
                assert!(
                    time::OffsetDateTime::now_utc() < soon + time::Duration::seconds(10),
                    "never refused"
                );
            }
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().starts_with("certificate of short expired on "), "{status:?}");
    let lines = audit::lines(client.address);
    let denied: Vec<_> = lines.iter().filter(|line| line["decision"] == "denied").collect();
    let reason = |line: &serde_json::Value| {
        line["reason"].as_str().is_some_and(|reason| reason.starts_with("certificate of short expired on "))
    };
    assert!(denied.len() == 1 && reason(denied[0]), "{lines:#?}");
}
