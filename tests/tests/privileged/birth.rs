//! The job's first instruction runs inside its group, and its limits are in force by then.

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, Limits};
use jobworker_tests::client::{limited, shell};

use crate::jobs::{assert_ended, finish};
use crate::setup::Setup;

/// `read` is part of the shell: nothing but the main process itself looks.
const LOOK: &str = r#"
IFS= read -r line </proc/self/cgroup; echo "$line"
cd "/sys/fs/cgroup${line#0::}"
for file in cgroup.procs cpu.max cpu.weight memory.max memory.high memory.swap.max memory.oom.group pids.max io.max; do
    if [ -e $file ]; then IFS= read -r line <$file; echo "$file: $line"; fi
done
echo "me: $$"
"#;

#[tokio::test]
async fn the_first_instruction_is_under_the_limits() {
    let setup = Setup::new().await;
    let limits = Limits {
        cpu: "1.5".to_owned(),
        cpu_weight: "250".to_owned(),
        memory: "64MiB".to_owned(),
        memory_high: "48MiB".to_owned(),
        io: vec!["/dev/vdb:10M".to_owned()],
        pids: "17".to_owned(),
        ..Limits::default()
    };
    let (job, seen) = finish(&mut setup.worker.admin().await, limited(shell(LOOK), limits)).await;
    assert_ended(&job, Cause::Exited, Ended::ExitCode(0));

    let group = setup.subtree.path().join("jobs").join(&job.id);
    assert_eq!(job.cgroup, group.to_str().expect("UTF-8"));
    let (mut lines, me) = (seen.lines().collect::<Vec<_>>(), seen.lines().last().expect("lines"));
    let me = me.strip_prefix("me: ").expect("the shell's pid");
    // Only there where the kernel has swap built in.
    lines.retain(|line| *line != "memory.swap.max: 0");
    let disk = std::fs::read_to_string("/sys/class/block/vdb/dev").expect("the VM's data disk");
    let expected = [
        format!("0::{}", job.cgroup.strip_prefix("/sys/fs/cgroup").expect("below the mount")),
        format!("cgroup.procs: {me}"),
        "cpu.max: 150000 100000".to_owned(),
        "cpu.weight: 250".to_owned(),
        format!("memory.max: {}", 64 << 20),
        format!("memory.high: {}", 48 << 20),
        "memory.oom.group: 1".to_owned(),
        "pids.max: 17".to_owned(),
        format!("io.max: {} rbps=10000000 wbps=10000000 riops=max wiops=max", disk.trim()),
        format!("me: {me}"),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn what_was_read_back_is_what_status_tells() {
    let setup = Setup::new().await;
    let limits = Limits {
        memory: "500M".to_owned(),
        swap: "0".to_owned(),
        cpu: "20%".to_owned(),
        ..Limits::default()
    };
    let (job, _) = finish(&mut setup.worker.admin().await, limited(shell(":"), limits)).await;
    let in_force = job.limits_in_force.expect("limits");
    // The kernel counts memory in pages.
    assert_eq!(in_force.memory_max_bytes, Some(500_000_000 / 4096 * 4096));
    assert_eq!((in_force.cpu_quota_usec, in_force.cpu_period_usec), (Some(20_000), Some(100_000)));
    assert_eq!((in_force.pids_max, in_force.memory_high_bytes), (None, None));
}
