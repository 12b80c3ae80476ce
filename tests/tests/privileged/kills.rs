//! `kill -9` of each of our own processes.

use futures_util::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, Job, JobState};
use jobworker_tests::client::{everything, output, shell, wait};
use jobworker_tests::wait::{until, until_equal};
use jobworker_tests::{Client, census};

use crate::jobs::{
    assert_ended, assert_gone, finish, members, outcome, start_until, status, stop, until_written,
};
use crate::setup::Setup;

/// Writes a line each tenth of a second; ends when told to.
const COUNT: &str =
    "i=0; trap 'echo last; exit 5' HUP; while :; do echo line $i; i=$((i+1)); sleep 0.1; done";

fn kill_9(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("it runs");
}

pub(crate) fn shim_of(setup: &Setup, job: &Job) -> u32 {
    let path = setup.worker.jobs_dir().join(&job.id).join("state.json");
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path).expect("state.json")).expect("JSON");
    u32::try_from(state["shim_pid"].as_u64().expect("a pid")).expect("a pid")
}

/// Ends a counting job, and checks that no line is missing and none came twice.
async fn assert_complete(client: &mut Client, job: &Job) {
    let main = job.pid.expect("a main process");
    kill(Pid::from_raw(i32::try_from(main).expect("a pid")), Signal::SIGHUP).expect("it runs");
    let ended = wait(client, &job.id).await.expect("the job ends");
    assert_ended(&ended, Cause::Exited, Ended::ExitCode(5));
    let output = output(client, everything(&job.id)).await.expect("the output is there");
    assert_eq!((output.merged.len() as u64, output.gap_bytes), (ended.output_bytes, 0));
    let text = String::from_utf8(output.merged).expect("text");
    let mut lines = text.lines().collect::<Vec<_>>();
    assert_eq!(lines.pop(), Some("last"));
    let expected = (0..lines.len()).map(|number| format!("line {number}")).collect::<Vec<_>>();
    assert_eq!(lines, expected);
    assert_gone(&ended, &[main]);
}

#[tokio::test]
async fn of_a_shim_costs_its_own_job_and_no_other() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let other = start_until(&mut client, shell(COUNT), "line 1").await;
    let job =
        start_until(&mut client, shell("setsid sleep 1012 & echo planted; exec sleep 1013"), "planted").await;
    let tree = members(&job);
    kill_9(shim_of(&setup, &job));

    let lost = wait(&mut client, &job.id).await.expect("the job is finished");
    assert_eq!((outcome(&lost).cause(), outcome(&lost).ended), (Cause::Lost, None), "{lost:#?}");
    assert!(outcome(&lost).reason.contains("signal 9"), "{lost:#?}");
    assert_gone(&lost, &tree);
    // A stop of it is no error, and its output can still be read.
    assert_eq!(stop(&mut client, &job.id, None).await, lost);
    let output = output(&mut client, everything(&job.id)).await.expect("the output is there");
    assert_eq!((output.stdout.as_slice(), output.end), (&b"planted\n"[..], Some(lost)));
    assert_complete(&mut client, &other).await;
}

#[tokio::test]
async fn of_the_worker_costs_nothing() {
    let mut setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let before = start_until(&mut client, shell(COUNT), "line 3").await;
    let (ended, _) = finish(&mut client, shell("exit 4")).await;
    setup.worker.signal(Signal::SIGKILL);
    setup.worker.ended();
    // It writes on while no worker is there.
    let written = setup.worker.jobs_dir().join(&before.id).join("output");
    let length = || std::fs::metadata(&written).expect("output").len();
    let at_kill = length();
    until("the job writes on", || (length() > at_kill + 20).then_some(()));

    setup.replace_worker();
    let mut client = setup.worker.admin().await;
    let after = status(&mut client, &before.id).await;
    assert_eq!(after.state(), JobState::Running);
    assert_eq!((after.pid, &after.spec, &after.owner), (before.pid, &before.spec, &before.owner));
    assert_eq!((after.started_unix_usec, after.processes.is_some()), (before.started_unix_usec, true));
    assert_eq!(status(&mut client, &ended.id).await, ended);
    assert_complete(&mut client, &after).await;
}

#[tokio::test]
async fn of_the_spawner_costs_nothing() {
    let mut setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let first = start_until(&mut client, shell(COUNT), "line 1").await;
    let second = start_until(&mut client, shell(COUNT), "line 1").await;
    let spawner = setup.worker.spawner_pid();
    kill_9(spawner);
    until("the spawner is gone", || census::status_line(spawner, "State").is_none().then_some(()));
    until_written(&mut client, &first.id, "line 10").await;
    assert_complete(&mut client, &first).await;

    // The next job finds a new spawner, which leaves the old one's alone.
    let (third, _) = finish(&mut client, shell("exit 6")).await;
    assert_ended(&third, Cause::Exited, Ended::ExitCode(6));
    assert_eq!(status(&mut client, &second.id).await.state(), JobState::Running);
    setup.replace_worker();
    assert_complete(&mut setup.worker.admin().await, &second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_spawner_is_not_noticed_by_those_who_start_jobs() {
    let setup = Setup::new().await;
    let clients = join_all((0..5).map(|_| setup.worker.admin())).await;
    let spawner = setup.worker.spawner_pid();
    kill_9(spawner);
    // The worker may not have heard of it yet.
    let dead = || census::status_line(spawner, "State").is_none_or(|state| state.starts_with('Z'));
    until("the spawner is dead", || dead().then_some(()));
    join_all(clients.into_iter().map(async |mut client| finish(&mut client, shell(":")).await)).await;
    let state = setup.worker.state().path().to_str().expect("UTF-8");
    until_equal("the worker and one spawner", &2, || {
        census::processes_with(state)
            .into_iter()
            .filter(|pid| !census::has_name(*pid, "jobworker-spare"))
            .count()
    });
}

#[tokio::test]
async fn of_everything_at_once_is_told_as_lost_afterwards() {
    let mut setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let job = start_until(&mut client, shell("echo planted; exec sleep 1014"), "planted").await;
    let tree = members(&job);
    let (spawner, shim) = (setup.worker.spawner_pid(), shim_of(&setup, &job));
    setup.worker.signal(Signal::SIGKILL);
    setup.worker.ended();
    kill_9(spawner);
    kill_9(shim);
    until("both are gone", || {
        [spawner, shim].iter().all(|pid| census::status_line(*pid, "State").is_none()).then_some(())
    });
    assert!(
        !tree.is_empty() && census::status_line(tree[0], "State").is_some(),
        "nobody is left to end the job"
    );

    setup.replace_worker();
    let mut client = setup.worker.admin().await;
    let lost = wait(&mut client, &job.id).await.expect("the job is finished");
    assert_eq!(outcome(&lost).cause(), Cause::Lost);
    assert!(!outcome(&lost).reason.is_empty());
    assert_gone(&lost, &tree);
}

#[tokio::test]
async fn of_a_shim_is_told_also_by_a_spawner_that_did_not_start_it() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let job = start_until(&mut client, shell("echo planted; exec sleep 1015"), "planted").await;
    let tree = members(&job);
    kill_9(setup.worker.spawner_pid());
    // Served by a new one, which has seen what the old one left, and not by way of the worker's own limits.
    let (next, _) = finish(&mut client, shell("exit $(( $(ulimit -Sn) == 1024 ? 6 : 1 ))")).await;
    assert_ended(&next, Cause::Exited, Ended::ExitCode(6));
    kill_9(shim_of(&setup, &job));
    let lost = wait(&mut client, &job.id).await.expect("the job is finished");
    assert_eq!(outcome(&lost).cause(), Cause::Lost);
    assert_gone(&lost, &tree);
}

/// A job whose worker, spawner and shim were killed at one stroke, and its processes.
async fn abandoned(setup: &mut Setup, script: &str) -> (Job, Vec<u32>) {
    let mut client = setup.worker.admin().await;
    let job = start_until(&mut client, shell(script), "planted").await;
    let tree = members(&job);
    let (spawner, shim) = (setup.worker.spawner_pid(), shim_of(setup, &job));
    setup.worker.signal(Signal::SIGKILL);
    setup.worker.ended();
    [spawner, shim].into_iter().for_each(kill_9);
    until("both are gone", || {
        [spawner, shim].iter().all(|pid| census::status_line(*pid, "State").is_none()).then_some(())
    });
    (job, tree)
}

/// The line of the log with all these words in it; it comes once.
fn told(setup: &Setup, words: &[&str]) {
    let log = setup.worker.log();
    let lines = log.iter().filter(|line| words.iter().all(|word| line.contains(word)));
    assert_eq!(lines.count(), 1, "{words:?} in {log:#?}");
}

#[tokio::test]
async fn a_group_without_a_folder_is_told_and_ended() {
    let mut setup = Setup::new().await;
    let (job, tree) = abandoned(&mut setup, "setsid sleep 1016 & echo planted; exec sleep 1017").await;
    assert!(!tree.is_empty() && setup.subtree.jobs().len() == 1);
    std::fs::remove_dir_all(setup.worker.jobs_dir().join(&job.id)).expect("root may");
    setup.replace_worker();
    until("the group is gone", || setup.subtree.jobs().is_empty().then_some(()));
    assert_gone(&job, &tree);
    told(&setup, &[&job.id, "without a job's folder"]);
}

#[tokio::test]
async fn a_folder_without_a_group_is_told_as_lost() {
    let mut setup = Setup::new().await;
    let (job, tree) = abandoned(&mut setup, "echo planted; exec sleep 1018").await;
    std::fs::write(format!("{}/cgroup.kill", job.cgroup), "1").expect("root may");
    until("the group can be removed", || std::fs::remove_dir(&job.cgroup).ok());
    setup.replace_worker();
    let mut client = setup.worker.admin().await;
    let lost = wait(&mut client, &job.id).await.expect("the job is finished");
    assert_eq!(outcome(&lost).cause(), Cause::Lost);
    assert_gone(&lost, &tree);
    told(&setup, &[&job.id, "a job is lost"]);
}

#[tokio::test]
async fn a_folder_that_is_set_aside_leaves_no_process_and_no_group() {
    let mut setup = Setup::new().await;
    let (job, tree) = abandoned(&mut setup, "setsid sleep 1019 & echo planted; exec sleep 1020").await;
    let jobs = setup.worker.jobs_dir();
    std::fs::write(jobs.join(&job.id).join("state.json"), "").expect("root may");
    setup.replace_worker();
    until("the group is gone", || setup.subtree.jobs().is_empty().then_some(()));
    assert_gone(&job, &tree);
    let aside = format!(".unreadable.{}.1", job.id);
    let kept = until("it is set aside", || std::fs::read(jobs.join(&aside).join("output")).ok());
    assert_eq!(kept, b"planted\n");
    told(&setup, &[&aside, "is set aside"]);
}

#[tokio::test]
async fn a_group_whose_shim_lives_is_left_to_it() {
    let mut setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let job = start_until(&mut client, shell("echo planted; exec sleep 1021"), "planted").await;
    let folder = setup.worker.jobs_dir().join(&job.id);
    let elsewhere = setup.worker.state().path().join("elsewhere");
    std::fs::rename(&folder, &elsewhere).expect("root may");
    kill_9(setup.worker.spawner_pid());
    let line = [job.id.as_str(), "it is left alone"];
    until("a new spawner has seen it", || {
        setup.worker.log().iter().any(|log| line.iter().all(|word| log.contains(word))).then_some(())
    });
    let main = job.pid.expect("a main process");
    assert!(census::status_line(main, "State").is_some(), "it lives on");
    std::fs::rename(&elsewhere, &folder).expect("root may");
    setup.replace_worker();
    stop(&mut setup.worker.admin().await, &job.id, None).await;
}

#[tokio::test]
async fn of_a_shim_is_told_by_the_successor_of_its_spawner_though_nobody_starts_a_job() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let job =
        start_until(&mut client, shell("setsid sleep 1022 & echo planted; exec sleep 1023"), "planted").await;
    let tree = members(&job);
    let (spawner, shim) = (setup.worker.spawner_pid(), shim_of(&setup, &job));
    kill(Pid::from_raw(i32::try_from(spawner).expect("a pid")), Signal::SIGSTOP).expect("it runs");
    kill_9(shim);
    kill_9(spawner);
    let lost = wait(&mut client, &job.id).await.expect("the job is finished");
    assert_eq!(outcome(&lost).cause(), Cause::Lost);
    assert!(outcome(&lost).reason.contains("was gone when the spawner started"), "{lost:#?}");
    assert_gone(&lost, &tree);
}
