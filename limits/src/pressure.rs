//! Pressure stall information (PSI): for how long a group's processes stood still for want of something.
//! <https://docs.kernel.org/accounting/psi.html>

use std::path::Path;

use nix::errno::Errno;

use crate::InterfaceError;
use crate::interface::read_optional;

/// What a group was short of since it was made, sub-groups included; `None` where the kernel does not tell: before
/// Linux 4.20, with `psi=0`, or for what `cgroup.pressure` has switched off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Processors.
    pub cpu: Option<Stalled>,
    /// Memory: reclaim, swapping in, refaults.
    pub memory: Option<Stalled>,
    /// Disks.
    pub io: Option<Stalled>,
}

/// How long processes waited for one thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stalled {
    /// At least one waited.
    pub some_usec: u64,
    /// All that were not idle waited at the same time; for the CPU told by Linux 5.13 or newer.
    pub full_usec: Option<u64>,
}

impl Pressure {
    pub(crate) fn read(group: &Path) -> Result<Pressure, InterfaceError> {
        Ok(Pressure {
            cpu: stalled(&group.join("cpu.pressure"))?,
            memory: stalled(&group.join("memory.pressure"))?,
            io: stalled(&group.join("io.pressure"))?,
        })
    }
}

fn stalled(path: &Path) -> Result<Option<Stalled>, InterfaceError> {
    let text = match read_optional(path) {
        // The file is there, the accounting is switched off.
        Err(error) if is_switched_off(&error) => return Ok(None),
        text => text?,
    };
    let Some(text) = text else { return Ok(None) };
    match total(&text, "some") {
        Some(some_usec) => Ok(Some(Stalled { some_usec, full_usec: total(&text, "full") })),
        None => Err(InterfaceError::Malformed { path: path.to_path_buf(), text }),
    }
}

fn is_switched_off(error: &InterfaceError) -> bool {
    error.io_error().and_then(std::io::Error::raw_os_error) == Some(Errno::EOPNOTSUPP as i32)
}

/// Of a line like `some avg10=0.00 avg60=0.00 avg300=0.00 total=42`.
fn total(text: &str, which: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(' '))?;
    line.split(' ').find_map(|pair| pair.strip_prefix("total="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn totals_are_read_and_what_is_missing_is_none() {
        let group = tempfile::tempdir().unwrap();
        let full = "some avg10=0.31 avg60=0.05 avg300=0.01 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=77\n";
        fs::write(group.path().join("memory.pressure"), full).unwrap();
        fs::write(group.path().join("cpu.pressure"), full.lines().next().unwrap()).unwrap();
        let pressure = Pressure::read(group.path()).unwrap();
        assert_eq!(pressure.memory, Some(Stalled { some_usec: 1234, full_usec: Some(77) }));
        assert_eq!(pressure.cpu, Some(Stalled { some_usec: 1234, full_usec: None }));
        assert_eq!(pressure.io, None);
    }

    #[test]
    fn what_is_not_as_documented_is_an_error() {
        let group = tempfile::tempdir().unwrap();
        fs::write(group.path().join("io.pressure"), "some avg10=0.31 total=-1\n").unwrap();
        let error = Pressure::read(group.path()).unwrap_err().to_string();
        assert!(error.contains("io.pressure") && error.contains("total=-1"), "{error}");
    }
}
