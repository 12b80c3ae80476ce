//! Jobs whose processes leave their group, or whose group is gone: they end all the same, and it is said.

use std::time::Duration;

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, Job, JobSpec};
use jobworker_tests::client::{shell, start, wait};
use jobworker_tests::{Client, census};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::timeout;

use crate::jobs::{assert_ended, assert_gone, finish, members, outcome, start_until, status, stop};
use crate::kills::shim_of;
use crate::setup::Setup;

/// Far above any grace period here. A job that never ends must not hold up the run.
const SOON: Duration = Duration::from_secs(20);

/// The root of the hierarchy: any group that is not the job's will do.
const MOVE: &str = "echo $$ >/sys/fs/cgroup/cgroup.procs";

async fn stopped(client: &mut Client, job: &Job, grace: u64) -> Job {
    timeout(SOON, stop(client, &job.id, Some(grace))).await.expect("a stop comes to an end")
}

async fn ended(client: &mut Client, job: &Job) -> Job {
    timeout(SOON, wait(client, &job.id)).await.expect("the job comes to an end").expect("no error")
}

/// The processes with one of these command lines.
fn commands(names: &[&str]) -> Vec<u32> {
    names.iter().flat_map(|name| census::processes_with(name)).collect()
}

#[tokio::test]
async fn a_main_process_outside_its_group_is_stopped_killed_and_timed_out() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let polite = format!("sleep 1030 & {MOVE}; echo planted; exec sleep 1031");
    let job = start_until(&mut client, shell(&polite), "planted").await;
    let left = members(&job);
    assert!(left.len() == 1 && !left.contains(&job.pid.expect("a main process")), "{left:?}");
    let now = status(&mut client, &job.id).await;
    assert!(now.main_outside_group && now.pid == job.pid && now.process.is_some(), "{now:#?}");
    let shown = setup.worker.jobctl(&["status", &job.id]).stdout;
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("main process is outside its group: limits do not hold"), "{shown}");
    let job = stopped(&mut client, &job, 10_000).await;
    assert_ended(&job, Cause::Stopped, Ended::Signal(15));
    assert_eq!((job.escaped_processes, job.main_outside_group), (Some(1), false));
    assert_gone(&job, &left);

    let stubborn = format!("trap '' TERM; sleep 1032 & {MOVE}; echo planted; exec sleep 1033");
    for grace in [1_000, 0] {
        let job = start_until(&mut client, shell(&stubborn), "planted").await;
        let job = stopped(&mut client, &job, grace).await;
        assert_ended(&job, Cause::Stopped, Ended::Signal(9));
        assert_gone(&job, &commands(&["sleep 1032", "sleep 1033"]));
    }

    let spec = JobSpec { timeout_msec: Some(300), ..shell(&polite) };
    let job = start(&mut client, spec).await.expect("the job starts");
    let job = ended(&mut client, &job).await;
    assert_ended(&job, Cause::TimedOut, Ended::Signal(15));
    assert_gone(&job, &commands(&["sleep 1030", "sleep 1031"]));

    // By itself, too.
    let (job, _) = finish(&mut client, shell(&format!("sleep 1034 & {MOVE}; exit 4"))).await;
    assert_ended(&job, Cause::Exited, Ended::ExitCode(4));
    assert_gone(&job, &commands(&["sleep 1034"]));
    assert_eq!(job.escaped_processes, Some(1));
    let (job, _) = finish(&mut client, shell("setsid sleep 1034 & exit 4")).await;
    assert_eq!(job.escaped_processes, Some(0), "none left its group");
}

#[tokio::test]
async fn what_a_job_moves_out_of_its_group_ends_with_it_generation_by_generation() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    // As `su` under pam_systemd: a process outside, and its child, both deaf.
    let su = format!(r#"trap "" TERM; {MOVE}; sh -c "sleep 1035; :" ; :"#);
    let plant = format!("sh -c '{su}' & setsid sh -c '{MOVE}; exec sleep 1036' & ");
    let until = r#"until [ "$(ps -o args | grep -c '^sleep 103[56]$')" = 2 ]; do sleep 0.05; done; "#;
    let tree = ["sleep 1035", "sleep 1036"];

    let script = format!("{plant} {until} echo planted; exec sleep 1037");
    let job = start_until(&mut client, shell(&script), "planted").await;
    assert!(commands(&tree).len() >= 2, "both run");
    assert!(!status(&mut client, &job.id).await.main_outside_group);
    let job = stopped(&mut client, &job, 1_000).await;
    assert_ended(&job, Cause::Stopped, Ended::Signal(15));
    assert_gone(&job, &commands(&tree));
    assert_eq!(job.escaped_processes, Some(4), "two shells and two that sleep");

    let (job, _) =
        timeout(SOON, finish(&mut client, shell(&format!("{plant} {until} exit 3")))).await.expect("it ends");
    assert_ended(&job, Cause::Exited, Ended::ExitCode(3));
    assert_gone(&job, &commands(&tree));
}

#[tokio::test]
async fn a_main_process_outside_its_group_ends_also_when_its_shim_is_killed() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let script = format!(r#"trap "" TERM; {MOVE}; sleep 1043 & echo planted; while :; do sleep 1044; done"#);
    let job = start_until(&mut client, shell(&script), "planted").await;
    kill(Pid::from_raw(i32::try_from(shim_of(&setup, &job)).expect("a pid")), Signal::SIGKILL)
        .expect("it runs");
    let lost = ended(&mut client, &job).await;
    assert_eq!(outcome(&lost).cause(), Cause::Lost);
    assert!(outcome(&lost).reason.contains("its main process had left its group"), "{lost:#?}");
    assert_eq!(lost.ran_usec, None, "nobody knows");
    assert_gone(&lost, &commands(&["sleep 1043", "sleep 1044"]));
}

#[tokio::test]
async fn a_job_that_removes_its_own_group_ends() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let leave = format!(
        "own=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); {MOVE}; until rmdir $own; do :; done; "
    );
    let job =
        start_until(&mut client, shell(&format!("{leave} echo planted; exec sleep 1038")), "planted").await;
    let now = status(&mut client, &job.id).await;
    assert!(now.main_outside_group && now.pid == job.pid, "{now:#?}");
    let job = stopped(&mut client, &job, 10_000).await;
    assert_ended(&job, Cause::Stopped, Ended::Signal(15));
    assert_gone(&job, &commands(&["sleep 1038"]));
    assert_eq!(job.escaped_processes, Some(1));
    let job = start_until(
        &mut client,
        shell(&format!("{leave} trap '' TERM; echo planted; exec sleep 1039")),
        "planted",
    )
    .await;
    let job = stopped(&mut client, &job, 500).await;
    assert_ended(&job, Cause::Stopped, Ended::Signal(9));
    assert_gone(&job, &commands(&["sleep 1039"]));
    let (job, _) =
        timeout(SOON, finish(&mut client, shell(&format!("{leave} exit 5")))).await.expect("it ends");
    assert_ended(&job, Cause::Exited, Ended::ExitCode(5));
}
