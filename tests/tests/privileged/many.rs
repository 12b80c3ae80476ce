//! Many jobs at once leave nothing behind.

use std::collections::BTreeSet;
use std::path::PathBuf;

use futures_util::future::join_all;
use jobworker_tests::Client;
use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, ListRequest};
use jobworker_tests::census::{descendants, descriptors, threads};
use jobworker_tests::client::{run, spec};
use jobworker_tests::wait::until_equal;

use crate::jobs::{assert_ended, finish};
use crate::setup::Setup;

const CLIENTS: usize = 20;
const JOBS_EACH: usize = 25;

/// What must be as it was.
#[derive(Debug, PartialEq)]
struct Census {
    groups: BTreeSet<PathBuf>,
    shims_and_jobs: Vec<u32>,
    worker_descriptors: usize,
    worker_threads: usize,
    spawner_descriptors: usize,
    spawner_threads: usize,
}

fn census(setup: &Setup) -> Census {
    let (worker, spawner) = (setup.worker.pid(), setup.worker.spawner_pid());
    Census {
        groups: setup.subtree.jobs(),
        shims_and_jobs: descendants(spawner),
        worker_descriptors: descriptors(worker),
        worker_threads: threads(worker),
        spawner_descriptors: descriptors(spawner),
        spawner_threads: threads(spawner),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_jobs_by_twenty_clients_leave_nothing_behind() {
    let setup = Setup::new().await;
    let before = census(&setup);
    // One whose output is followed, for what is made when it is first needed.
    finish(&mut setup.worker.admin().await, spec(&["true"])).await;
    until_equal("after one job", &before, || census(&setup));

    let clients = join_all((0..CLIENTS).map(|_| setup.worker.admin())).await;
    join_all(clients.into_iter().map(run_some)).await;
    let list = setup.worker.admin().await.list(ListRequest {}).await.expect("the list").into_inner();
    assert_eq!(list.jobs.len(), CLIENTS * JOBS_EACH + 1);
    let errors: Vec<_> = setup.worker.log().into_iter().filter(|line| is_trouble(line)).collect();
    assert_eq!(errors, [""; 0]);
    // The runtime's idle threads go after ten seconds.
    until_equal("after all jobs", &before, || census(&setup));
}

async fn run_some(mut client: Client) {
    for _ in 0..JOBS_EACH {
        let job = run(&mut client, spec(&["true"])).await.expect("no error");
        assert_ended(&job, Cause::Exited, Ended::ExitCode(0));
    }
}

/// Warnings and errors; what the jobs' users run as is none of it.
fn is_trouble(line: &str) -> bool {
    (line.contains("WARN") || line.contains("ERROR")) && !line.contains("jobs run as")
}
