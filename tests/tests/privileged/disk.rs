//! IO limits: which disk they are for, and that they hold.

use std::time::Duration;

use jobworker_tests::Client;
use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, IoLimitInForce, Limits};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{limited, shell, spec, start};

use crate::jobs::{assert_ended, finish, status, stop};
use crate::measure::assert_within;
use crate::setup::Setup;

const BYTES: u64 = 8_000_000;

fn io(limit: &str) -> Limits {
    Limits { io: vec![limit.to_owned()], ..Limits::default() }
}

async fn writes_take_eight_seconds(how: &str) {
    let setup = Setup::alone().await;
    let mut client = setup.worker.admin().await;
    let what = format!("seconds for 8 MB at 1 MB/s, {how}");
    assert_within(&what, 7.2..=8.8, async || write(&mut client, how).await).await;
}

/// Writes 8 MB at 1 MB/s. The time is the writer's own, its start-up not included.
async fn write(client: &mut Client, how: &str) -> f64 {
    let (actor, file) = (binary("actor"), format!("/data/{how}"));
    let write = spec(&[actor.to_str().expect("a UTF-8 path"), "write", how, &file, &BYTES.to_string()]);
    let (job, written) = finish(client, limited(write, io("/data:1M"))).await;
    std::fs::remove_file(&file).expect("the file was written");
    assert_ended(&job, Cause::Exited, Ended::ExitCode(0));
    let usage = job.usage.expect("evidence").io;
    let disk =
        usage.iter().find(|usage| usage.device_name == "/dev/vdb").unwrap_or_else(|| panic!("{usage:?}"));
    assert!(disk.written_bytes >= BYTES && disk.writes > 0, "{disk:?}");
    Duration::from_millis(written.trim().parse().expect("milliseconds")).as_secs_f64()
}

#[tokio::test]
async fn direct_writes_keep_to_the_limit() {
    writes_take_eight_seconds("direct").await;
}

#[tokio::test]
async fn buffered_writes_keep_to_the_limit() {
    writes_take_eight_seconds("buffered").await;
}

#[tokio::test]
async fn a_path_a_partition_and_a_disk_all_mean_the_whole_disk() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    std::fs::create_dir_all("/data/sub").expect("a writable /data");
    let number = std::fs::read_to_string("/sys/class/block/vdb/dev").expect("the VM's data disk");
    for target in ["/data", "/data/sub", "/dev/vdb1", "/dev/vdb", number.trim()] {
        let limits = io(&format!("{target}:rbps=2M,wbps=1MiB,riops=300,wiops=40"));
        let job = start(&mut client, limited(shell("sleep 300"), limits)).await.expect(target);
        let expected = IoLimitInForce {
            device: number.trim().to_owned(),
            device_name: "/dev/vdb".to_owned(),
            rbps: Some(2_000_000),
            wbps: Some(1 << 20),
            riops: Some(300),
            wiops: Some(40),
        };
        let running = status(&mut client, &job.id).await;
        let ended = stop(&mut client, &job.id, Some(0)).await;
        for job in [running, ended] {
            assert_eq!(job.limits_in_force.expect("limits").io, std::slice::from_ref(&expected), "{target}");
        }
    }
}

#[tokio::test]
async fn without_a_target_the_disk_is_that_of_the_working_directory() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let mut spec = limited(shell("pwd"), io("wbps=5M"));
    spec.workdir = b"/data".to_vec();
    let (job, written) = finish(&mut client, spec).await;
    assert_eq!(written, "/data\n");
    let [limit] = job.limits_in_force.expect("limits").io.try_into().expect("one disk");
    let IoLimitInForce { device_name, rbps, wbps, riops, wiops, .. } = limit;
    assert_eq!(device_name, "/dev/vdb");
    assert_eq!((rbps, wbps, riops, wiops), (None, Some(5_000_000), None, None));
}
