//! What clients that nobody here wrote rely on: deadlines, and the codes and words of what can't be answered.

use std::time::Duration;

use jobworker_tests::Worker;
use jobworker_tests::api::stream_request::From;
use jobworker_tests::api::{ListRequest, StreamRequest, WaitRequest};
use jobworker_tests::client::{self, everything, run, spec, start};
use jobworker_tests::raw::{Answer, Raw, message};
use jobworker_tests::wait::PATIENCE;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_client::ServerReflectionClient};
use tonic_types::StatusExt;

use crate::support::details;

const SERVICE: &str = "/jobworker.v1.JobWorker";

fn status(answer: Answer) -> Status {
    assert_eq!(answer.http, 200, "{answer:?}");
    answer.status.unwrap_or_else(|| panic!("no status: {:?}", answer.body))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_has_passed_is_always_told_as_one() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let job = start(&mut admin, spec(&["sleep", "300"])).await.expect("a job").id;
    let (wait, stream) = (message(&WaitRequest { job: job.clone() }), message(&everything(&job)));
    let mut raw = Raw::connect(&worker, "alice").await.expect("a connection");
    let mut codes = Vec::new();
    for number in 0..100u32 {
        for (method, body) in [("Wait", &wait), ("Stream", &stream)] {
            let after = format!("{}u", 1 + 300 * number);
            let (path, deadline) = (format!("{SERVICE}/{method}"), [("grpc-timeout", after.as_str())]);
            let call = raw.call(&path, &deadline, body.clone());
            let answer =
                timeout(PATIENCE, call).await.unwrap_or_else(|_| panic!("{method} outlives {after}"));
            let status = status(answer.expect("an answer"));
            if status.code() == Code::DeadlineExceeded {
                assert_eq!(details(&status).0, "DEADLINE_PASSED", "{status:?}");
            }
            codes.push(status.code());
        }
    }
    let others: Vec<_> = codes.iter().filter(|code| **code != Code::DeadlineExceeded).collect();
    assert!(others.is_empty(), "{} of {} otherwise: {others:?}", others.len(), codes.len());

    // The longest is none; and what is no timeout is told.
    let list = format!("{SERVICE}/List");
    for after in ["99999999H", "99999999S"] {
        let answer = raw.call(&list, &[("grpc-timeout", after)], message(&ListRequest::default())).await;
        assert_eq!(status(answer.expect("an answer")).code(), Code::Ok, "{after}");
    }
    for after in ["soon", "1", "123456789m", "-1S"] {
        let answer = raw.call(&list, &[("grpc-timeout", after)], message(&ListRequest::default())).await;
        let refused = status(answer.expect("an answer"));
        assert_eq!(refused.code(), Code::InvalidArgument, "{after}: {refused:?}");
        assert!(refused.message().contains(&format!("{after:?}")), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_call_is_told_in_words_and_details() {
    let worker = Worker::start();
    let mut raw = Raw::connect(&worker, "bob").await.expect("a connection");
    let list = message(&ListRequest::default());
    // Undecodable, shorter than it says, no flag of gRPC's, compressed and not saying how, nothing at all.
    let undecodable = jobworker_tests::http2::message(4, &[0xff; 4]);
    let bodies = [undecodable, vec![0, 0, 0, 0, 9, 1], vec![7, 0, 0, 0, 0], vec![1, 0, 0, 0, 0], Vec::new()];
    for (method, body) in
        ["Status", "Stream"].into_iter().flat_map(|method| bodies.each_ref().map(|body| (method, body)))
    {
        let answer = raw.call(&format!("{SERVICE}/{method}"), &[], body.clone()).await.expect("an answer");
        let refused = status(answer);
        let found = (refused.code(), details(&refused).0);
        assert_eq!(
            found,
            (Code::InvalidArgument, "MALFORMED_REQUEST".to_owned()),
            "{method} {body:?}: {refused:?}"
        );
        assert!(refused.message().contains("can't be decoded"), "{refused:?}");
    }
    let health = raw.call("/grpc.health.v1.Health/Check", &[], bodies[0].clone()).await.expect("an answer");
    assert_eq!(status(health).code(), Code::InvalidArgument);

    for path in [
        &format!("{SERVICE}/NoSuchMethod"),
        "/grpc.health.v1.Health/NoSuchMethod",
        "/no.such.Service/Method",
        "/",
    ] {
        let refused = status(raw.call(path, &[], list.clone()).await.expect("an answer"));
        let found = (refused.code(), details(&refused).0);
        assert_eq!(found, (Code::Unimplemented, "NO_SUCH_METHOD".to_owned()), "{path}: {refused:?}");
        assert!(refused.message().contains(path), "{refused:?}");
    }
    let packed = [("grpc-encoding", "gzip")];
    let refused =
        status(raw.call(&format!("{SERVICE}/List"), &packed, list.clone()).await.expect("an answer"));
    assert_eq!(
        (refused.code(), details(&refused).0.as_str()),
        (Code::Unimplemented, "MALFORMED_REQUEST"),
        "{refused:?}"
    );

    let filler = "x".repeat(20_000);
    let refused = raw.call(&format!("{SERVICE}/List"), &[("filler", &filler)], list.clone()).await;
    let refused = status(refused.expect("an answer"));
    assert_eq!(
        (refused.code(), details(&refused).0.as_str()),
        (Code::ResourceExhausted, "CAP_REACHED"),
        "{refused:?}"
    );
    assert_eq!(refused.get_details_error_info().expect("checked above").metadata["cap"], "metadata-bytes");
    // HTTP/2's own word for still more of it.
    let filler = "x".repeat(100_000);
    let refused = raw.call(&format!("{SERVICE}/List"), &[("filler", &filler)], list.clone()).await;
    assert_eq!(refused.expect("an answer").http, 431);
    assert_eq!(
        status(raw.call(&format!("{SERVICE}/List"), &[], list).await.expect("an answer")).code(),
        Code::Ok
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_that_no_output_can_have_is_out_of_range() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let running = start(&mut admin, spec(&["sleep", "300"])).await.expect("a job").id;
    let ended = run(&mut admin, spec(&["true"])).await.expect("a job").id;
    for (job, offset) in [(&running, 1 << 63), (&ended, 1 << 63), (&running, u64::MAX)] {
        let request = StreamRequest { from: Some(From::Offset(offset)), ..everything(job) };
        let refused =
            timeout(PATIENCE, admin.stream(request)).await.expect("no silence").expect_err("no output");
        assert_eq!(
            (refused.code(), details(&refused).1),
            (Code::OutOfRange, vec!["offset".to_owned()]),
            "{refused}"
        );
        assert!(refused.message().contains(&offset.to_string()), "{refused}");
    }
    // The last that a file can have, and every other extreme, is an answer.
    for from in [From::Offset((1 << 63) - 1), From::TailLines(u64::MAX), From::SinceUnixUsec(u64::MAX)] {
        let request = StreamRequest { from: Some(from), ..everything(&ended) };
        let found = client::output(&mut admin, request).await.expect("an end");
        assert!(found.end.is_some() && found.merged.is_empty(), "{from:?}");
    }
    let most = ListRequest { page_size: Some(u32::MAX), ..ListRequest::default() };
    assert_eq!(admin.list(most).await.expect("a page").into_inner().jobs.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_names_all_services_whichever_version_is_asked() {
    let worker = Worker::start();
    let identity = worker.pki.identity("bob");
    let ca = worker.pki.ca();
    let channel = client::channel(&worker.address, &ca, Some(&identity), rustls::ALL_VERSIONS);
    let channel = channel.await.expect("a connection");
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "jobworker.v1.JobWorker",
    ];
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let asked = futures_util::stream::iter([request]);
    let mut answers = ServerReflectionClient::new(channel.clone()).server_reflection_info(asked).await;
    let answer = answers.as_mut().expect("reflection").get_mut().message().await.expect("no error");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.expect("an answer").message_response
    else {
        panic!("no list of services");
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort_unstable();
    assert_eq!(names, expected);

    // The same messages under another name.
    let mut raw = Raw::connect(&worker, "bob").await.expect("a connection");
    let list = MessageRequest::ListServices(String::new());
    let request = message(&ServerReflectionRequest { host: String::new(), message_request: Some(list) });
    let path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
    let answer = timeout(Duration::from_secs(30), raw.call(path, &[], request)).await.expect("an end");
    let body = answer.expect("an answer").body;
    for name in expected {
        assert!(body.windows(name.len()).any(|bytes| bytes == name.as_bytes()), "{name}");
    }
}
