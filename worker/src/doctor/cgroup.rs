//! The cgroup mode: whether the controllers are in cgroup v2, where alone jobs can have them.

use std::fs;

use super::finding::Finding;

/// How the host has its controllers.
#[derive(Debug, PartialEq, Eq)]
enum Mode {
    /// cgroup v2 alone, or with v1 hierarchies that hold none of the controllers that jobs need.
    Unified,
    /// Both, these controllers being in v1.
    Hybrid(Vec<String>),
    /// v1 only.
    Legacy,
    /// No cgroup file system is mounted.
    Nothing,
}

/// What jobs need, by the names of cgroup v1.
const NEEDED: [&str; 4] = ["cpu", "blkio", "memory", "pids"];

const REMEDY: &str = "boot with the kernel parameter systemd.unified_cgroup_hierarchy=1 (systemd) or \
                      cgroup_no_v1=all (any init)";

pub(super) fn check() -> Vec<Finding> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    vec![judge(&mode(&read("/proc/self/mounts"), &read("/proc/self/cgroup")))]
}

fn judge(mode: &Mode) -> Finding {
    let subject = "cgroup mode";
    match mode {
        Mode::Unified => Finding::ok(subject, "v2"),
        Mode::Hybrid(controllers) => {
            let held = controllers.join(", ");
            let text = format!("hybrid: cgroup v1 has {held}, and limits that need them are refused");
            Finding::warn(subject, text, REMEDY)
        }
        Mode::Legacy => Finding::fail(subject, "v1 only: jobs run without groups and limits", REMEDY),
        Mode::Nothing => Finding::fail(
            subject,
            "no cgroup file system is mounted: jobs run without groups and limits",
            "mount -t cgroup2 none /sys/fs/cgroup; in a container, give it a cgroup namespace of its own",
        ),
    }
}

/// From `/proc/PID/mounts` and `/proc/PID/cgroup`.
fn mode(mounts: &str, groups: &str) -> Mode {
    let is_mounted = |kind| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    let on_v1 = |name: &&str| {
        let mut hierarchies = groups.lines().filter_map(|line| line.split(':').nth(1));
        hierarchies.any(|controllers| controllers.split(',').any(|controller| controller == *name))
    };
    let held: Vec<_> = NEEDED.into_iter().filter(on_v1).map(str::to_owned).collect();
    match (is_mounted("cgroup2"), held.is_empty()) {
        (true, true) => Mode::Unified,
        (true, false) => Mode::Hybrid(held),
        (false, _) if is_mounted("cgroup") => Mode::Legacy,
        (false, _) => Mode::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";

    #[test]
    fn the_mode_is_told_by_mounts_and_groups() {
        assert_eq!(mode(V2, "0::/user.slice\n"), Mode::Unified);
        let with_systemd = "2:name=systemd:/x\n1:freezer:/\n0::/x\n";
        assert_eq!(mode(V2, with_systemd), Mode::Unified);
        let hybrid = "9:memory:/x\n5:cpu,cpuacct:/\n3:cpuset:/\n0::/x\n";
        assert_eq!(mode(V2, hybrid), Mode::Hybrid(vec!["cpu".to_owned(), "memory".to_owned()]));
        let v1 = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        assert_eq!(mode(v1, "9:memory:/x\n"), Mode::Legacy);
        assert_eq!(mode("proc /proc proc rw 0 0\n", "0::/\n"), Mode::Nothing);
    }
}
