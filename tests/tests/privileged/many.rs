//! Many jobs at once leave nothing behind.

use futures_util::future::join_all;
use jobworker_tests::Client;
use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, ListRequest};
use jobworker_tests::census::{descendants, descriptors, job_folders, threads};
use jobworker_tests::client::{run, spec};
use jobworker_tests::wait::until_equal;

use crate::jobs::{assert_ended, finish};
use crate::setup::Setup;

const CLIENTS: usize = 20;
const JOBS_EACH: usize = 25;

/// What there must be no more of afterwards.
fn census(setup: &Setup) -> [(&'static str, usize); 6] {
    let (worker, spawner) = (setup.worker.pid(), setup.worker.spawner_pid());
    [
        ("groups", setup.subtree.jobs().len()),
        ("shims and jobs", descendants(spawner).len()),
        ("the worker's descriptors", descriptors(worker)),
        ("the worker's threads", threads(worker)),
        ("the spawner's descriptors", descriptors(spawner)),
        ("the spawner's threads", threads(spawner)),
    ]
}

/// Waits until there is no more of anything: the runtime's idle threads go after ten seconds.
fn until_no_more(setup: &Setup, before: &[(&'static str, usize); 6]) {
    until_equal("more than before", &Vec::new(), || {
        let now = census(setup).into_iter().zip(before);
        now.filter(|((_, now), (_, before))| now > before).map(|(now, _)| now).collect()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_jobs_by_twenty_clients_leave_nothing_behind() {
    let setup = Setup::new().await;
    let before = census(&setup);
    // One whose output is followed, for what is made when it is first needed.
    finish(&mut setup.worker.admin().await, spec(&["true"])).await;
    until_no_more(&setup, &before);

    let clients = join_all((0..CLIENTS).map(|_| setup.worker.admin())).await;
    join_all(clients.into_iter().map(run_some)).await;
    let list = setup.worker.admin().await.list(ListRequest::default()).await.expect("the list").into_inner();
    assert_eq!(list.jobs.len(), CLIENTS * JOBS_EACH + 1);
    assert_eq!(job_folders(&setup.worker.jobs_dir()).len(), list.jobs.len());
    let errors: Vec<_> = setup.worker.log().into_iter().filter(|line| is_trouble(line)).collect();
    assert_eq!(errors, [""; 0]);
    until_no_more(&setup, &before);
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
