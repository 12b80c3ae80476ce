//! The list of jobs, however much they were given: nobody's arguments make it fail for everybody.

use jobworker_tests::Worker;
use jobworker_tests::api::{Job, ListRequest};
use jobworker_tests::client::{run, spec};
use tonic::Code;

use crate::support::{details, jobctl};

/// Bytes of one argument, nearly as many as execve(2) takes.
const ARG_BYTES: usize = 120_000;
/// Nearly a megabyte of them.
const ARGS: usize = 8;
/// Together more than `jobctl` takes in one answer, which is 16 MiB.
const JOBS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_megabytes_of_arguments_are_no_obstacle() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let long = "x".repeat(ARG_BYTES);
    let command = [&["true"][..], &[long.as_str(); ARGS]].concat();
    let mut ids = Vec::new();
    for _ in 0..JOBS {
        ids.push(run(&mut admin, spec(&command)).await.expect("a job").id);
    }
    ids.push(run(&mut admin, spec(&["true", "short"])).await.expect("a job").id);

    // As clients do that know of no pages.
    let all = admin.list(ListRequest::default()).await.expect("a list").into_inner();
    assert_eq!((ids_of(&all.jobs), all.next_page_token.as_str()), (ids.clone(), ""), "oldest first");
    let first = &all.jobs[0];
    let args = &first.spec.as_ref().expect("a specification").args;
    let shown: usize = args.iter().map(Vec::len).sum();
    assert!(args[0].iter().all(|byte| *byte == b'x') && shown > 1000, "its beginning: {shown} bytes");
    assert_eq!(first.left_out_bytes, (ARGS * ARG_BYTES - shown) as u64);
    assert_eq!(all.jobs[JOBS].left_out_bytes, 0);

    let (mut paged, mut request) = (Vec::new(), ListRequest { page_size: Some(4), ..ListRequest::default() });
    loop {
        let page = admin.list(request.clone()).await.expect("a page").into_inner();
        assert!(page.jobs.len() <= 4);
        paged.extend(page.jobs);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(ids_of(&paged), ids);

    let table = jobctl(&worker, &["list"]).with_code(0).stdout;
    assert_eq!(table.lines().count(), ids.len() + 1, "and a header");
    assert!(table.lines().nth(1).is_some_and(|line| line.ends_with('…')), "cut, and it shows");
    let status = jobctl(&worker, &["status", &ids[0], "--output", "json"]).with_code(0).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["args"].as_array().map(Vec::len), Some(ARGS), "status tells all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_there_can_not_be_is_refused() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let none = ListRequest { page_size: Some(0), ..ListRequest::default() };
    let invented = ListRequest { page_token: "the next one, please".to_owned(), ..ListRequest::default() };
    for (request, field) in [(none, "page_size"), (invented, "page_token")] {
        let refused = admin.list(request).await.expect_err(field);
        assert_eq!((refused.code(), details(&refused).1), (Code::InvalidArgument, vec![field.to_owned()]));
    }
}

fn ids_of(jobs: &[Job]) -> Vec<String> {
    jobs.iter().map(|job| job.id.clone()).collect()
}
