//! Writes limits to a group and reads each back: what is not in force is an error.

use std::num::NonZeroU64;
use std::path::Path;

use crate::interface::{DeviceLine, confirm, read, write};
use crate::knob::Knobs;
use crate::{Disk, GroupError, InterfaceError, IoLimit, IoRates, Limits, MemorySize, SwapLimit};

/// IO limits with their disks resolved, no disk twice: what [`resolve_io`] makes.
pub type IoPlan = Vec<(Disk, IoRates)>;

/// Finds the disks of IO limits, before anything is created: with the rights of the calling process, which decide what its
/// answer tells of the paths. `default` stands for a path that is not given.
///
/// # Errors
/// When a disk cannot be found, or two limits are for the same one.
pub fn resolve_io(limits: &[IoLimit], default: &Path) -> Result<IoPlan, GroupError> {
    let mut plan = IoPlan::new();
    for limit in limits {
        let disk = limit.disk(default)?;
        if let Some((_, first)) = plan.iter().find(|(known, _)| *known == disk) {
            return Err(GroupError::SameDisk { first: *first, second: limit.rates(), disk });
        }
        plan.push((disk, limit.rates()));
    }
    Ok(plan)
}

/// Puts limits in force in an existing group.
pub(crate) fn enforce(group: &Path, limits: &Limits, io: &IoPlan) -> Result<(), GroupError> {
    let knobs = Knobs::of(group);
    enforce_memory(group, &knobs, limits)?;
    if let Some(limit) = limits.cpu {
        knobs.set_cpu_max(limit)?;
        let expected = format!("{} {}", limit.quota_usec(), limit.period_usec());
        confirm(&group.join("cpu.max"), &expected, &expected)?;
    }
    if let Some(weight) = limits.cpu_weight {
        knobs.set_cpu_weight(weight)?;
        confirm(&group.join("cpu.weight"), &weight.to_string(), &weight.to_string())?;
    }
    if let Some(pids) = limits.pids {
        knobs.set_pids_max(pids)?;
        confirm(&group.join("pids.max"), &pids.to_string(), &pids.to_string())?;
    }
    for (disk, rates) in io {
        enforce_io(group, &knobs, disk, rates).map_err(|reason| GroupError::IoRefused {
            disk: disk.clone(),
            rates: *rates,
            reason: Box::new(reason),
        })?;
    }
    Ok(())
}

fn enforce_memory(group: &Path, knobs: &Knobs, limits: &Limits) -> Result<(), GroupError> {
    if let Some(size) = limits.memory_high {
        knobs.set_memory_high(size)?;
        confirm(&group.join("memory.high"), &size.bytes().to_string(), &whole_pages(size.bytes()))?;
    }
    if let Some(size) = limits.memory {
        knobs.set_memory_max(size)?;
        confirm(&group.join("memory.max"), &size.bytes().to_string(), &whole_pages(size.bytes()))?;
    }
    // All of a job or nothing: what is left of a half-killed one is of no use. Also without a limit of its own, when
    // an ancestor's or the host's memory is short; only where there is a memory controller.
    let oom_group = group.join("memory.oom.group");
    if oom_group.exists() {
        write(&oom_group, "1")?;
        confirm(&oom_group, "1", "1")?;
    }
    match limits.swap.or(limits.memory.map(|_| SwapLimit::NONE)) {
        Some(swap) => enforce_swap(group, swap),
        None => Ok(()),
    }
}

/// A kernel built or booted without swap accounting has no such file; there "no swap" needs no limit.
fn enforce_swap(group: &Path, swap: SwapLimit) -> Result<(), GroupError> {
    let path = group.join("memory.swap.max");
    if !path.exists() {
        return if swap == SwapLimit::NONE {
            Ok(())
        } else {
            Err(GroupError::NoSwapAccounting { limit: swap, path })
        };
    }
    let bytes = swap.bytes().to_string();
    write(&path, &bytes)?;
    Ok(confirm(&path, &bytes, &whole_pages(swap.bytes()))?)
}

/// The kernel counts memory in pages and rounds down.
fn whole_pages(bytes: u64) -> String {
    let page_bytes = MemorySize::page_bytes();
    (bytes / page_bytes * page_bytes).to_string()
}

fn enforce_io(group: &Path, knobs: &Knobs, disk: &Disk, rates: &IoRates) -> Result<(), InterfaceError> {
    knobs.set_io_max(disk, rates)?;
    let path = group.join("io.max");
    let in_force = read(&path)?;
    let device = disk.device();
    let wanted =
        [("rbps", rates.rbps()), ("wbps", rates.wbps()), ("riops", rates.riops()), ("wiops", rates.wiops())];
    let line = DeviceLine::all(&in_force).find(|line| line.device == device);
    if line.is_some_and(|line| wanted.iter().all(|(key, rate)| line.get(key) == rate.map(NonZeroU64::get))) {
        return Ok(());
    }
    Err(InterfaceError::NotInForce { path, wrote: format!("{device} {rates}"), in_force })
}
