//! Frames that cost a client nothing: a client that sends ever more of them loses its connection, the audit log says who it
//! was, the log does not grow with them, and everybody else is served.

use std::sync::Arc;

use jobworker_tests::Worker;
use jobworker_tests::client::{run, spec};
use jobworker_tests::http2::{ACK, END_HEADERS, Http2, call, frame, kind};
use jobworker_tests::wait::until;

use crate::support::Bystander;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_ends_its_connection_and_has_a_line_that_names_its_client() {
    let worker = Arc::new(Worker::start());
    run(&mut worker.admin().await, spec(&["true"])).await.expect("a first job");
    let bystander = Bystander::of(&worker);
    let a_stream = frame(kind::HEADERS, END_HEADERS, 1, &call("Status", &[]));
    let floods = [
        ("answers to pings", None, frame(kind::PING, ACK, 0, &[7; 8])),
        ("pings", None, frame(kind::PING, 0, 0, &[7; 8])),
        ("settings", None, frame(kind::SETTINGS, 0, 0, &[])),
        ("answers to settings", None, frame(kind::SETTINGS, ACK, 0, &[])),
        ("priorities", None, frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("windows", None, frame(kind::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("empty data", Some(&a_stream), frame(kind::DATA, 0, 1, &[])),
        ("unknown frames", None, frame(200, 0, 0, &[])),
    ];
    for (floods_before, (what, before, flood)) in floods.into_iter().enumerate() {
        let mut connection = Http2::begin(&worker, "bob").await.expect("a connection");
        if let Some(before) = before {
            connection.send(before).await;
        }
        let sent = connection.flood(&flood, 1_000_000).await;
        assert!(sent.is_some(), "a million {what} are taken");
        let told = || {
            let lines = worker.audit_of("connection");
            lines.into_iter().filter(|line| line["client"] == "bob" && line["decision"] == "denied").count()
        };
        until(&format!("the audit log tells of {what}"), || (told() == floods_before + 1).then_some(()));
        bystander.is_served().await;
    }
    bystander.end().await;
    let warnings: Vec<_> = worker.log().into_iter().filter(|line| line.contains("\"h2::")).collect();
    assert!(warnings.len() < 40, "{} lines of the library", warnings.len());
    assert!(warnings.iter().all(|line| line.contains("\"client\":\"bob\"")), "{warnings:#?}");
}

/// What the library itself ends a connection for names the client, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_taken_back_name_their_client() {
    let worker = Worker::start();
    let connection = Http2::begin(&worker, "bob").await.expect("a connection");
    let mut frames = Vec::new();
    for stream in (0..10_000u32).map(|number| 2 * number + 1) {
        frames.extend(frame(kind::HEADERS, END_HEADERS, stream, &call("List", &[])));
        frames.extend(frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let mut connection = connection;
    connection.send(&frames).await;
    drop(connection.ended().await);
    until("a line of the library with the client's name", || {
        let lines = worker.log();
        let of_library = lines.iter().find(|line| line.contains("\"h2::"))?;
        assert!(of_library.contains("\"client\":\"bob\""), "{of_library}");
        Some(())
    });
    until("the audit log has it", || {
        let lines = worker.audit_of("connection");
        lines.iter().any(|line| line["client"] == "bob").then_some(())
    });
}
