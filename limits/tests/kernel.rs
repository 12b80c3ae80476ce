//! Limits that a real kernel enforces. Needs root and cgroup v2 with the cpu, io, memory and pids controllers, and in
//! `JOBWORKER_TEST_DISK_PATH` a folder on a file system on a partition of a disk. What is missing fails the test.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Subtree, eventually, read, start};
use jobworker_limits::{Base, Group, GroupError, Limits, resolve_disk};
use nix::sys::stat::{major, minor};

const LONG: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

/// Hands controllers down to the groups below, as a service manager does for a delegated subtree.
fn hand_down(group: &Path, controllers: &str) {
    let enabled = fs::write(group.join("cgroup.subtree_control"), controllers);
    enabled.unwrap_or_else(|error| panic!("these tests need {controllers} in {}: {error}", group.display()));
}

/// A subtree with all controllers, and a base in it.
fn prepare() -> (Subtree, Base) {
    let subtree = Subtree::new();
    hand_down(subtree.path().parent().expect("a parent"), "+cpu +io +memory +pids");
    let base = Base::prepare(subtree.path()).expect("prepare");
    assert!(base.unavailable().is_empty(), "{:?}", base.unavailable());
    (subtree, base)
}

fn limits(json: &str) -> Limits {
    serde_json::from_str(json).expect(json)
}

fn job(base: &Base, json: &str) -> Group {
    base.create_group("job", &limits(json), &disk_path()).expect(json)
}

fn disk_path() -> PathBuf {
    std::env::var_os("JOBWORKER_TEST_DISK_PATH")
        .expect("JOBWORKER_TEST_DISK_PATH: a folder on a disk's partition")
        .into()
}

#[test]
fn every_limit_is_in_force_as_asked() {
    let (_subtree, base) = prepare();
    let group = job(
        &base,
        r#"{"cpu":"1.5","cpu_weight":"300","memory":"500M","memory_high":"400MiB","pids":"64","io":["rbps=10M,wiops=100"]}"#,
    );
    let in_force = group.limits_in_force().expect("limits");
    assert_eq!((in_force.cpu_quota_usec, in_force.cpu_period_usec), (Some(150_000), Some(100_000)));
    assert_eq!((in_force.cpu_weight, in_force.pids_max), (Some(300), Some(64)));
    // 500 000 000 is no multiple of a page.
    assert_eq!(in_force.memory_max_bytes, Some(500_000_000 / 4096 * 4096));
    assert_eq!(in_force.memory_high_bytes, Some(400 * MIB));
    assert_eq!(read(group.path(), "memory.oom.group"), "1");
    if group.path().join("memory.swap.max").exists() {
        assert_eq!(in_force.swap_max_bytes, Some(0));
    }
    let [io] = in_force.io.as_slice() else { panic!("{:?}", in_force.io) };
    assert_eq!((io.rbps, io.wbps, io.riops, io.wiops), (Some(10_000_000), None, None, Some(100)));
    group.remove().expect("remove");
}

#[test]
fn a_swap_limit_of_its_own_is_kept_or_refused() {
    let (_subtree, base) = prepare();
    match base.create_group("job", &limits(r#"{"memory":"64MiB","swap":"1MiB"}"#), Path::new("/")) {
        Ok(group) => assert_eq!(group.limits_in_force().expect("limits").swap_max_bytes, Some(MIB)),
        Err(GroupError::NoSwapAccounting { .. }) => {
            assert!(base.leftover_groups().expect("list").is_empty());
            base.create_group("job", &limits(r#"{"memory":"64MiB","swap":"0"}"#), Path::new("/"))
                .expect("no swap");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_hog_takes_its_whole_group_down_and_is_counted() {
    let (_subtree, base) = prepare();
    let group = job(&base, r#"{"memory":"32MiB"}"#);
    let mut child =
        start(group.path(), "sleep 1000 & dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1000");
    assert!(group.wait_empty(LONG).expect("wait"), "the hog lives");
    child.wait().expect("reap");
    let oom = group.oom().expect("oom");
    assert!(oom.oom >= 1 && oom.oom_kill >= 2 && oom.oom_group_kill == 1, "{oom:?}");
    let usage = group.usage().expect("usage");
    assert_eq!(usage.oom_kills, Some(oom.oom_kill));
    assert!(usage.memory_peak_bytes.is_some_and(|peak| (16 * MIB..=32 * MIB).contains(&peak)), "{usage:?}");
}

#[test]
fn a_kill_is_not_taken_for_out_of_memory() {
    let (_subtree, base) = prepare();
    let group = job(&base, r#"{"memory":"64MiB"}"#);
    start(group.path(), "kill -9 $$").wait().expect("reap");
    assert!(group.wait_empty(LONG).expect("wait"));
    assert_eq!(group.oom().expect("oom").oom_kill, 0);
}

#[test]
fn a_cpu_limit_holds_for_all_processes_together() {
    let (_subtree, base) = prepare();
    let group = job(&base, r#"{"cpu":"0.5"}"#);
    let mut child = start(group.path(), "while :; do :; done & while :; do :; done");
    let cpu_usec = || group.usage().expect("usage").cpu_usec.expect("cpu time");
    let (before, began) = (cpu_usec(), Instant::now());
    assert!(!group.wait_empty(Duration::from_secs(4)).expect("wait"), "spinning does not end");
    let used = Duration::from_micros(cpu_usec() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    assert!((0.45..0.55).contains(&used), "used {used} CPUs");
    let usage = group.usage().expect("usage");
    assert!(usage.cpu_throttled_usec > Some(0) && usage.cpu_throttled_periods > Some(0), "{usage:?}");
    group.kill().expect("kill");
    child.wait().expect("reap");
}

#[test]
fn a_pids_limit_holds_and_refusals_are_counted() {
    let (_subtree, base) = prepare();
    let group = job(&base, r#"{"pids":"8"}"#);
    let mut child = start(group.path(), "while :; do sleep 1000 & done 2>/dev/null");
    eventually("a fork is refused", || group.usage().expect("usage").pids_denied > Some(0));
    assert!(group.process_count().expect("count") <= 8);
    group.kill().expect("kill");
    assert!(group.wait_empty(LONG).expect("wait"));
    child.wait().expect("reap");
}

#[test]
fn a_path_and_a_partition_are_resolved_to_the_whole_disk() {
    let (_subtree, base) = prepare();
    let path = disk_path();
    let partition = fs::metadata(&path).expect("the disk's path").dev();
    let number = format!("{}:{}", major(partition), minor(partition));
    let disk = resolve_disk(&path).expect("resolve");
    assert_ne!(disk.device(), number, "{} must be on a partition", path.display());
    for target in [path.display().to_string(), number, disk.node(), disk.device()] {
        let group = job(&base, &format!(r#"{{"io":["{target}:1MiB"]}}"#));
        let io = group.limits_in_force().expect("limits").io;
        let [io] = io.as_slice() else { panic!("{target}: {io:?}") };
        assert_eq!((&io.device, &io.device_name), (&disk.device(), &disk.node()), "{target}");
        assert_eq!((io.rbps, io.wbps, io.riops, io.wiops), (Some(MIB), Some(MIB), None, None), "{target}");
        group.remove().expect("remove");
    }
}

#[test]
fn an_io_limit_holds_for_writes_that_reach_the_disk() {
    let (_subtree, base) = prepare();
    let group = job(&base, r#"{"io":["wbps=1MiB"]}"#);
    let file = disk_path().join("io-limit-test");
    let began = Instant::now();
    let script = format!("dd if=/dev/zero of={} bs=64k count=48 conv=fsync 2>/dev/null", file.display());
    let status = start(group.path(), &script).wait().expect("reap");
    let took = began.elapsed().as_secs_f64();
    fs::remove_file(file).expect("remove");
    assert!(status.success(), "{status}");
    assert!((2.5..6.0).contains(&took), "3 MiB at 1 MiB/s took {took} s");
    let io = group.usage().expect("usage").io;
    let written: u64 = io.iter().map(|disk| disk.written_bytes).sum();
    assert!(written >= 3 * MIB, "{io:?}");
}

#[test]
fn two_io_limits_for_one_disk_are_refused() {
    let (_subtree, base) = prepare();
    let both = format!(r#"{{"io":["1M","{}:rbps=2M"]}}"#, disk_path().display());
    let error = base.create_group("job", &limits(&both), &disk_path()).unwrap_err();
    assert!(matches!(error, GroupError::SameDisk { .. }), "{error}");
    assert!(base.leftover_groups().expect("list").is_empty());
}

#[test]
fn only_the_missing_controller_is_refused() {
    let (subtree, _base) = prepare();
    let inner = subtree.path().join("inner");
    fs::create_dir(&inner).expect("create");
    hand_down(&inner, "+cpu +pids");
    let base = Base::prepare(&create(&inner, "base")).expect("prepare");
    let error =
        base.create_group("job", &limits(r#"{"memory":"64MiB"}"#), Path::new("/")).unwrap_err().to_string();
    let above = format!("the group above, {}, does not hand it down", inner.display());
    assert!(
        error.starts_with("the memory controller is not available in ") && error.contains(&above),
        "{error}"
    );
    assert!(base.leftover_groups().expect("list").is_empty());
    job(&base, r#"{"cpu":"1","pids":"8"}"#);
}

fn create(parent: &Path, name: &str) -> PathBuf {
    let group = parent.join(name);
    fs::create_dir(&group).expect("create");
    group
}

#[test]
fn a_process_in_the_base_is_named_as_what_is_in_the_way() {
    let subtree = Subtree::new();
    hand_down(subtree.path().parent().expect("a parent"), "+cpu +io +memory +pids");
    let mut squatter = start(subtree.path(), "exec sleep 1000");
    let base = Base::prepare(subtree.path()).expect("prepare");
    let remedy = format!("move the processes {} out of {}", squatter.id(), subtree.path().display());
    let error =
        base.create_group("job", &limits(r#"{"memory":"64MiB"}"#), Path::new("/")).unwrap_err().to_string();
    assert!(error.contains(&remedy), "{error}");
    squatter.kill().expect("kill");
    squatter.wait().expect("reap");
    let base = Base::prepare(subtree.path()).expect("prepare");
    assert!(base.unavailable().is_empty(), "{:?}", base.unavailable());
}

#[test]
fn a_limit_that_cannot_be_written_leaves_no_group() {
    let (_subtree, base) = prepare();
    // Taken away behind the base's back, so that the write is what fails.
    hand_down(&base.jobs(), "-memory");
    let error =
        base.create_group("job", &limits(r#"{"pids":"8","memory":"64MiB"}"#), Path::new("/")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("cannot write \"67108864\" to ") && text.contains("jobs/job/memory.max: "),
        "{text}"
    );
    assert!(base.leftover_groups().expect("list").is_empty());
}
