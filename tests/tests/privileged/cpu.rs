//! CPU quota and weight, measured. Nothing runs beside these.

use std::time::Duration;

use jobworker_tests::Client;
use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, Job, JobSpec, Limits};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{limited, run, shell, spec};

use crate::jobs::{assert_ended, start_until, status, stop};
use crate::setup::Setup;

#[tokio::test]
async fn half_a_cpu_is_half_a_cpu_for_two_threads() {
    let setup = Setup::alone().await;
    let actor = binary("actor");
    let spin = spec(&[actor.to_str().expect("a UTF-8 path"), "spin", "5", "2"]);
    let limits = Limits { cpu: "0.5".to_owned(), ..Limits::default() };
    let job = run(&mut setup.worker.admin().await, limited(spin, limits)).await.expect("the job runs");
    assert_ended(&job, Cause::Exited, Ended::ExitCode(0));
    let usage = job.usage.expect("evidence");
    let cpu_usec = usage.cpu_usec.expect("CPU time");
    println!("half a CPU for 5 s: {cpu_usec} µs");
    assert!((2_375_000..=2_625_000).contains(&cpu_usec), "not within 5 % of 2.5 s: {usage:?}");
    assert!(usage.cpu_throttled_periods > Some(30) && usage.cpu_throttled_usec > Some(0), "{usage:?}");
    let parts = usage.cpu_user_usec.unwrap_or(0) + usage.cpu_system_usec.unwrap_or(0);
    assert!(parts.abs_diff(cpu_usec) < 10, "user and system time are not the whole: {usage:?}");
    let in_force = job.limits_in_force.expect("limits");
    assert_eq!((in_force.cpu_quota_usec, in_force.cpu_period_usec), (Some(50_000), Some(100_000)));
}

#[tokio::test]
async fn weights_share_one_cpu() {
    const WINDOW: Duration = Duration::from_secs(6);
    let setup = Setup::alone().await;
    let mut client = setup.worker.admin().await;
    let light = start_until(&mut client, spinning("100"), "spinning").await;
    let heavy = start_until(&mut client, spinning("300"), "spinning").await;
    let before = (cpu_usec(&mut client, &light).await, cpu_usec(&mut client, &heavy).await);
    tokio::time::sleep(WINDOW).await;
    let after = (cpu_usec(&mut client, &light).await, cpu_usec(&mut client, &heavy).await);
    for job in [&light, &heavy] {
        stop(&mut client, &job.id, Some(0)).await;
    }
    let (light, heavy) = (after.0 - before.0, after.1 - before.1);
    let ratio = f64::from(heavy) / f64::from(light);
    println!("weights 100 and 300 share 1 : {ratio:.3}");
    assert!((2.7..=3.3).contains(&ratio), "{light} µs and {heavy} µs: 1 : {ratio:.2}");
    assert!(light + heavy > 5_000_000, "both together did not fill the CPU: {light} µs and {heavy} µs");
}

/// On the first CPU alone.
fn spinning(weight: &str) -> JobSpec {
    let limits = Limits { cpu_weight: weight.to_owned(), ..Limits::default() };
    limited(shell("taskset -p 1 $$ >/dev/null; echo spinning; while :; do :; done"), limits)
}

async fn cpu_usec(client: &mut Client, job: &Job) -> u32 {
    let usage = status(client, &job.id).await.usage.expect("usage");
    u32::try_from(usage.cpu_usec.expect("CPU time")).expect("a test is shorter than an hour")
}
