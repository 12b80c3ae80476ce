//! The writes that go through cgroups-rs, and the only place that knows that crate.
//!
//! Of cgroups-rs 0.5.1 only single setters of single controllers are used, each on a group that already exists, and
//! each read back by the caller. Its `CgroupBuilder`, `Cgroup::new` and `apply` are not used: they write
//! `subtree_control` of every ancestor and drop errors. What it lacks (`memory.swap.max`, `memory.oom.group`,
//! `cgroup.subtree_control`, every event and statistic of v2) is in [`crate::interface`].

use std::error::Error as _;
use std::fmt::Display;
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use cgroups_rs::fs::blkio::BlkIoController;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::error::{Error, ErrorKind};
use cgroups_rs::fs::freezer::FreezerController;
use cgroups_rs::fs::memory::{MemController, SetMemory};
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, Hierarchy, MaxValue, Subsystem};

use nix::errno::Errno;

use crate::{CpuLimit, CpuWeight, Disk, GroupError, InterfaceError, IoRates, MemorySize, PidsLimit};

/// One existing group, as cgroups-rs sees it.
#[derive(Debug, Clone)]
pub(crate) struct Knobs {
    group: PathBuf,
}

impl Knobs {
    pub(crate) fn of(group: &Path) -> Knobs {
        Knobs { group: group.to_path_buf() }
    }

    pub(crate) fn set_memory_max(&self, size: MemorySize) -> Result<(), InterfaceError> {
        let max = Some(max_value(size.bytes()));
        self.checked(
            "memory.max",
            size.bytes(),
            self.memory().set_mem(SetMemory { max, ..SetMemory::default() }),
        )
    }

    pub(crate) fn set_memory_high(&self, size: MemorySize) -> Result<(), InterfaceError> {
        let high = Some(max_value(size.bytes()));
        self.checked(
            "memory.high",
            size.bytes(),
            self.memory().set_mem(SetMemory { high, ..SetMemory::default() }),
        )
    }

    pub(crate) fn set_cpu_max(&self, limit: CpuLimit) -> Result<(), InterfaceError> {
        let quota_usec = limit.quota_usec().cast_signed();
        let set = self.cpu().set_cfs_quota_and_period(Some(quota_usec), Some(limit.period_usec()));
        self.checked("cpu.max", format_args!("{} {}", limit.quota_usec(), limit.period_usec()), set)
    }

    pub(crate) fn set_cpu_weight(&self, weight: CpuWeight) -> Result<(), InterfaceError> {
        self.checked("cpu.weight", weight, self.cpu().set_shares(u64::from(weight.get())))
    }

    pub(crate) fn set_pids_max(&self, limit: PidsLimit) -> Result<(), InterfaceError> {
        let pids = PidController::new(self.group.clone(), PathBuf::new(), true);
        self.checked("pids.max", limit, pids.set_pid_max(max_value(u64::from(limit.get()))))
    }

    /// Writes one rate after the other; the kernel keeps those it is not told about.
    pub(crate) fn set_io_max(&self, disk: &Disk, rates: &IoRates) -> Result<(), InterfaceError> {
        let io = BlkIoController::new(self.group.clone(), PathBuf::new(), true);
        let (major, minor) = (u64::from(disk.major), u64::from(disk.minor));
        let checked = |key, rate: NonZeroU64, set| {
            self.checked("io.max", format_args!("{major}:{minor} {key}={rate}"), set)
        };
        if let Some(rate) = rates.rbps() {
            checked("rbps", rate, io.throttle_read_bps_for_device(major, minor, rate.get()))?;
        }
        if let Some(rate) = rates.wbps() {
            checked("wbps", rate, io.throttle_write_bps_for_device(major, minor, rate.get()))?;
        }
        if let Some(rate) = rates.riops() {
            checked("riops", rate, io.throttle_read_iops_for_device(major, minor, rate.get()))?;
        }
        if let Some(rate) = rates.wiops() {
            checked("wiops", rate, io.throttle_write_iops_for_device(major, minor, rate.get()))?;
        }
        Ok(())
    }

    pub(crate) fn freeze(&self) -> Result<(), InterfaceError> {
        self.checked("cgroup.freeze", 1, self.freezer().freeze())
    }

    pub(crate) fn thaw(&self) -> Result<(), InterfaceError> {
        self.checked("cgroup.freeze", 0, self.freezer().thaw())
    }

    pub(crate) fn kill(&self) -> Result<(), GroupError> {
        let killed = Cgroup::load(Box::new(self.clone()), "").kill();
        // Its word for a missing cgroup.kill: an old kernel, or no group at all.
        if killed.as_ref().is_err_and(|error| *error.kind() == ErrorKind::InvalidOperation) {
            return Err(if self.group.exists() {
                GroupError::NoKill { path: self.group.join("cgroup.kill") }
            } else {
                InterfaceError::io("kill", &self.group, io::Error::from_raw_os_error(Errno::ENOENT as i32))
                    .into()
            });
        }
        Ok(self.checked("cgroup.kill", 1, killed)?)
    }

    fn cpu(&self) -> CpuController {
        CpuController::new(self.group.clone(), PathBuf::new(), true)
    }

    fn memory(&self) -> MemController {
        MemController::new(self.group.clone(), PathBuf::new(), true)
    }

    fn freezer(&self) -> FreezerController {
        FreezerController::new(self.group.clone(), PathBuf::new(), true)
    }

    /// Its errors say neither the path nor, in words, the reason: they become ours.
    fn checked(&self, file: &str, value: impl Display, set: Result<(), Error>) -> Result<(), InterfaceError> {
        set.map_err(|error| {
            let errno = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
            InterfaceError::Write {
                path: self.group.join(file),
                value: value.to_string(),
                reason: errno
                    .map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error),
            }
        })
    }
}

/// A value as `memory.max` and the like take it; our types stay below the sign bit.
fn max_value(number: u64) -> MaxValue {
    MaxValue::Value(number.cast_signed())
}

/// The group itself is the root, so that the crate's own idea of a root (`/sys/fs/cgroup`) never comes in.
impl Hierarchy for Knobs {
    fn subsystems(&self) -> Vec<Subsystem> {
        Vec::new()
    }

    fn root(&self) -> PathBuf {
        self.group.clone()
    }

    fn root_control_group(&self) -> Cgroup {
        Cgroup::load(Box::new(self.clone()), "")
    }

    fn parent_control_group(&self, _path: &str) -> Cgroup {
        self.root_control_group()
    }

    fn v2(&self) -> bool {
        true
    }
}
