//! What a group has used, and how often it ran out of memory: the evidence for how a job ended.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::InterfaceError;
use crate::disk::node_of;
use crate::interface::{DeviceLine, FlatKeyed, read_optional};

/// Usage so far, sub-groups included; `None` where the kernel or a missing controller does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// CPU time; counted without the cpu controller, too.
    pub cpu_usec: Option<u64>,
    /// CPU time in user mode.
    pub cpu_user_usec: Option<u64>,
    /// CPU time in the kernel.
    pub cpu_system_usec: Option<u64>,
    /// How long the job stood still because its CPU quota was used up.
    pub cpu_throttled_usec: Option<u64>,
    /// In how many periods that was so.
    pub cpu_throttled_periods: Option<u64>,
    /// Memory in use.
    pub memory_current_bytes: Option<u64>,
    /// The most memory that was in use (Linux 5.19 or newer).
    pub memory_peak_bytes: Option<u64>,
    /// Processes killed by any out-of-memory killer.
    pub oom_kills: Option<u64>,
    /// The most processes and threads that there were (Linux 6.10 or newer).
    pub pids_peak: Option<u64>,
    /// How often a fork was refused because of the pids limit.
    pub pids_denied: Option<u64>,
    /// IO per disk, of disks that had any.
    pub io: Vec<IoUsage>,
}

/// IO on one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoUsage {
    /// The disk's number, like `254:0`.
    pub device: String,
    /// Its node, like `/dev/vda`; empty where it is not known.
    pub device_name: String,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

/// Out-of-memory events of the group itself (`memory.events.local`), not those of an ancestor's limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomEvents {
    /// How often the group's own limit left an allocation without memory.
    pub oom: u64,
    /// Processes of the group that were killed by any out-of-memory killer.
    pub oom_kill: u64,
    /// How often the whole group was killed at once (Linux 5.17 or newer).
    pub oom_group_kill: u64,
}

impl Usage {
    pub(crate) fn read(group: &Path) -> Result<Usage, InterfaceError> {
        let cpu = FlatKeyed::read(&group.join("cpu.stat"))?;
        let memory_events = FlatKeyed::read(&group.join("memory.events"))?;
        let pids_events = FlatKeyed::read(&group.join("pids.events"))?;
        Ok(Usage {
            cpu_usec: cpu.get("usage_usec"),
            cpu_user_usec: cpu.get("user_usec"),
            cpu_system_usec: cpu.get("system_usec"),
            cpu_throttled_usec: cpu.get("throttled_usec"),
            cpu_throttled_periods: cpu.get("nr_throttled"),
            memory_current_bytes: number(&group.join("memory.current"))?,
            memory_peak_bytes: number(&group.join("memory.peak"))?,
            oom_kills: memory_events.get("oom_kill"),
            pids_peak: number(&group.join("pids.peak"))?,
            pids_denied: pids_events.get("max"),
            io: io_usage(&read_optional(&group.join("io.stat"))?.unwrap_or_default()),
        })
    }
}

impl OomEvents {
    pub(crate) fn read(group: &Path) -> Result<OomEvents, InterfaceError> {
        let events = FlatKeyed::read(&group.join("memory.events.local"))?;
        let count = |key| events.get(key).unwrap_or(0);
        Ok(OomEvents {
            oom: count("oom"),
            oom_kill: count("oom_kill"),
            oom_group_kill: count("oom_group_kill"),
        })
    }
}

fn number(path: &Path) -> Result<Option<u64>, InterfaceError> {
    let malformed = |text: String| InterfaceError::Malformed { path: path.to_path_buf(), text };
    read_optional(path)?.map(|text| text.parse().map_err(|_| malformed(text))).transpose()
}

fn io_usage(text: &str) -> Vec<IoUsage> {
    let usage = |line: DeviceLine<'_>| {
        let count = |key| line.get(key).unwrap_or(0);
        let usage = IoUsage {
            device: line.device.to_owned(),
            device_name: String::new(),
            read_bytes: count("rbytes"),
            written_bytes: count("wbytes"),
            reads: count("rios"),
            writes: count("wios"),
        };
        let some = usage.read_bytes | usage.written_bytes | usage.reads | usage.writes != 0;
        some.then(|| IoUsage { device_name: node_of(line.device), ..usage })
    };
    DeviceLine::all(text).filter_map(usage).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        let group = tempfile::tempdir().unwrap();
        for (file, text) in [
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 9\n",
            ),
            ("memory.peak", "4096\n"),
            ("memory.events", "low 0\nhigh 0\nmax 5\noom 1\noom_kill 2\noom_group_kill 1\n"),
            ("memory.events.local", "low 0\nhigh 0\nmax 5\noom 1\noom_kill 2\n"),
            ("pids.events", "max 17\n"),
            (
                "io.stat",
                "999:0 rbytes=0 wbytes=0 rios=0 wios=0 dbytes=0 dios=0\n\
                 999:1 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n999:2 \n",
            ),
        ] {
            fs::write(group.path().join(file), text).unwrap();
        }
        let usage = Usage::read(group.path()).unwrap();
        assert_eq!(
            (usage.cpu_usec, usage.cpu_user_usec, usage.cpu_system_usec),
            (Some(30), Some(20), Some(10))
        );
        assert_eq!((usage.cpu_throttled_usec, usage.cpu_throttled_periods), (Some(9), Some(3)));
        assert_eq!((usage.memory_current_bytes, usage.memory_peak_bytes), (None, Some(4096)));
        assert_eq!((usage.oom_kills, usage.pids_denied, usage.pids_peak), (Some(2), Some(17), None));
        let disk = IoUsage {
            device: "999:1".into(),
            read_bytes: 1,
            written_bytes: 2,
            reads: 3,
            writes: 4,
            ..IoUsage::default()
        };
        assert_eq!(usage.io, [disk]);
        let oom = OomEvents { oom: 1, oom_kill: 2, oom_group_kill: 0 };
        assert_eq!(OomEvents::read(group.path()).unwrap(), oom);
    }
}
