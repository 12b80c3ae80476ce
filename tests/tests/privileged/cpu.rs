//! CPU quota and weight, measured. Nothing runs beside these.

use std::time::Duration;

use jobworker_tests::Client;
use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, Job, JobSpec, Limits};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{limited, run, shell, spec};

use crate::jobs::{assert_ended, start_until, status, stop};
use crate::measure::assert_within;
use crate::setup::Setup;

#[tokio::test]
async fn half_a_cpu_is_half_a_cpu_for_two_threads() {
    let setup = Setup::alone().await;
    let mut client = setup.worker.admin().await;
    let what = "CPU seconds of 5 s of spinning under a limit of 0.5";
    assert_within(what, 2.375..=2.625, async || spin_under_half_a_cpu(&mut client).await).await;
}

async fn spin_under_half_a_cpu(client: &mut Client) -> f64 {
    let actor = binary("actor");
    let spin = spec(&[actor.to_str().expect("a UTF-8 path"), "spin", "5", "2"]);
    let limits = Limits { cpu: "0.5".to_owned(), ..Limits::default() };
    let job = run(client, limited(spin, limits)).await.expect("the job runs");
    assert_ended(&job, Cause::Exited, Ended::ExitCode(0));
    let usage = job.usage.expect("evidence");
    assert!(usage.cpu_throttled_periods > Some(30) && usage.cpu_throttled_usec > Some(0), "{usage:?}");
    let cpu_usec = usage.cpu_usec.expect("CPU time");
    let parts = usage.cpu_user_usec.unwrap_or(0) + usage.cpu_system_usec.unwrap_or(0);
    assert!(parts.abs_diff(cpu_usec) < 10, "user and system time are not the whole: {usage:?}");
    let in_force = job.limits_in_force.expect("limits");
    assert_eq!((in_force.cpu_quota_usec, in_force.cpu_period_usec), (Some(50_000), Some(100_000)));
    Duration::from_micros(cpu_usec).as_secs_f64()
}

#[tokio::test]
async fn weights_share_one_cpu() {
    let setup = Setup::alone().await;
    let mut client = setup.worker.admin().await;
    let light = start_until(&mut client, spinning("100"), "spinning").await;
    let heavy = start_until(&mut client, spinning("300"), "spinning").await;
    let what = "CPU time of weight 300 by that of weight 100";
    assert_within(what, 2.7..=3.3, async || ratio(&mut client, &light, &heavy).await).await;
    for job in [&light, &heavy] {
        stop(&mut client, &job.id, Some(0)).await;
    }
}

/// On the first CPU alone.
fn spinning(weight: &str) -> JobSpec {
    let limits = Limits { cpu_weight: weight.to_owned(), ..Limits::default() };
    limited(shell("taskset -p 1 $$ >/dev/null; echo spinning; while :; do :; done"), limits)
}

async fn ratio(client: &mut Client, light: &Job, heavy: &Job) -> f64 {
    const WINDOW: Duration = Duration::from_secs(6);
    let before = (cpu_seconds(client, light).await, cpu_seconds(client, heavy).await);
    tokio::time::sleep(WINDOW).await;
    let after = (cpu_seconds(client, light).await, cpu_seconds(client, heavy).await);
    let (light, heavy) = (after.0 - before.0, after.1 - before.1);
    assert!(light + heavy > 5.0, "both together did not fill the CPU: {light:.3} s and {heavy:.3} s");
    heavy / light
}

async fn cpu_seconds(client: &mut Client, job: &Job) -> f64 {
    let usage = status(client, &job.id).await.usage.expect("usage");
    Duration::from_micros(usage.cpu_usec.expect("CPU time")).as_secs_f64()
}
