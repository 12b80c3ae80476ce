//! One client's lists at the cost of others: whoever asks for very many has a cap, and everybody else has a turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jobworker_tests::Worker;
use jobworker_tests::api::ListRequest;
use jobworker_tests::client::{run, spec};
use jobworker_tests::scale::folders;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{details, raise_open_files};

const ENDED_JOBS: usize = 2000;
const CONNECTIONS: usize = 24;
const CALLS_EACH: usize = 120;

/// How many of one client's lists may be made while another waits for one: some more than have their turn before it,
/// because answers are counted where they arrive; but far from all that are underway.
const AT_MOST_BETWEEN: usize = CONNECTIONS * CALLS_EACH / 5;

fn page() -> ListRequest {
    ListRequest { page_size: Some(1), ..ListRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_lists_all_the_time_keeps_nobody_waiting() {
    raise_open_files();
    let first = Worker::start();
    let model = run(&mut first.admin().await, spec(&["true"])).await.expect("a job").id;
    let (pki, state) = (Arc::clone(&first.pki), Arc::clone(first.state()));
    folders::copies(&first.jobs_dir().join(model), ENDED_JOBS).expect("copies of it");
    drop(first);
    let worker = Worker::builder().pki(&pki).state(&state).start();
    let (made, refused, is_over) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut calls = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let user = worker.user().await;
        for _ in 0..CALLS_EACH {
            let (mut user, is_over) = (user.clone(), Arc::clone(&is_over));
            let (made, refused) = (Arc::clone(&made), Arc::clone(&refused));
            calls.spawn(async move {
                while !is_over.load(Ordering::Acquire) {
                    match user.list(page()).await {
                        Ok(_) => drop(made.fetch_add(1, Ordering::AcqRel)),
                        Err(status) => {
                            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                            assert_eq!(details(&status).0, "CAP_REACHED");
                            let info = status.get_details_error_info().expect("checked above");
                            assert_eq!(info.metadata["cap"], "max-lists-per-client");
                            refused.fetch_add(1, Ordering::AcqRel);
                            // As clients do that are told to come back.
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
            });
        }
    }
    // The attack is on.
    let mut admin = worker.admin().await;
    let mut between = Vec::new();
    for _ in 0..5 {
        let before = made.load(Ordering::Acquire);
        let list =
            timeout(Duration::from_secs(30), admin.list(page())).await.expect("a turn within half a minute");
        assert_eq!(list.expect("a page").into_inner().jobs.len(), 1);
        between.push(made.load(Ordering::Acquire) - before);
    }
    is_over.store(true, Ordering::Release);
    calls.abort_all();
    assert!(between.iter().all(|lists| *lists <= AT_MOST_BETWEEN), "of the other's: {between:?}");
    assert!(refused.load(Ordering::Acquire) > 0, "2,880 lists at a time are more than anybody needs");
}
