//! Many jobs and clients come and go, and nothing stays but the jobs' folders.

use jobworker_tests::client::{everything, output, run, shell, spec, start};
use jobworker_tests::wait::{until, until_equal};
use jobworker_tests::{Client, Worker, census};

use crate::support::Held;

const CLIENTS: usize = 10;
const JOBS_EACH: usize = 20;

async fn use_it(mut client: Client, number: usize) {
    for round in 0..JOBS_EACH {
        let script = format!("echo {number}.{round}; exit {}", round % 3);
        let job = run(&mut client, shell(&script)).await.expect("no error");
        let found = output(&mut client, everything(&job.id)).await.expect("no error");
        assert_eq!(found.stdout, format!("{number}.{round}\n").into_bytes());
        let ended = job.outcome.expect("an outcome").ended;
        let code = i32::try_from(round % 3).expect("small");
        assert_eq!(ended, Some(jobworker_tests::api::outcome::Ended::ExitCode(code)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_jobs_by_ten_clients_leave_nothing() {
    let worker = Worker::start();
    run(&mut worker.admin().await, spec(&["true"])).await.expect("a first job, so that everything is warm");
    until_equal("it is gone", &0, || census::descendants(worker.spawner_pid()).len());
    let before = Held::by(&worker);
    let mut users = Vec::new();
    for number in 0..CLIENTS {
        users.push(tokio::spawn(use_it(worker.admin().await, number)));
    }
    for user in users {
        user.await.expect("every job went well");
    }
    assert_eq!(
        census::job_folders(&worker.jobs_dir()).len(),
        CLIENTS * JOBS_EACH + 1,
        "finished jobs keep their folders"
    );
    // Threads that waited for a disk stay for some seconds, in case there is more to do.
    until(&format!("no more is held than before, {before:?}"), || {
        let now = Held::by(&worker);
        now.is_no_more_than(&before).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_that_vanish_leave_nothing() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let job = start(&mut admin, shell("echo up; exec sleep 300")).await.expect("a job").id;
    let before = Held::by(&worker);
    let mut followers = Vec::new();
    for _ in 0..60 {
        let mut client = worker.user().await;
        let mut stream = client.stream(everything(&job)).await.expect("the output").into_inner();
        stream.message().await.expect("no error").expect("the first line");
        followers.push((client, stream));
    }
    assert!(
        census::descriptors(worker.pid()) >= before.worker_descriptors + 60,
        "each has its own connection"
    );
    drop(followers);
    until(&format!("no more is held than before, {before:?}"), || {
        Held::by(&worker).is_no_more_than(&before).then_some(())
    });
}
