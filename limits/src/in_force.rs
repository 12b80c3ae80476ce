//! The limits that are in force, as the kernel's files say.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::InterfaceError;
use crate::disk::node_of;
use crate::interface::{DeviceLine, read_optional};

/// Limits in force; `None` where there is no limit or the controller is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsInForce {
    /// CPU time per period (`cpu.max`).
    pub cpu_quota_usec: Option<u64>,
    /// The period of that quota.
    pub cpu_period_usec: Option<u64>,
    /// Share under contention, 1 to 10000 (`cpu.weight`; 100 where nothing else was asked for).
    pub cpu_weight: Option<u64>,
    /// `memory.max`.
    pub memory_max_bytes: Option<u64>,
    /// `memory.high`.
    pub memory_high_bytes: Option<u64>,
    /// `memory.swap.max`.
    pub swap_max_bytes: Option<u64>,
    /// `pids.max`.
    pub pids_max: Option<u64>,
    /// `io.max`, one entry per limited disk.
    pub io: Vec<IoLimitInForce>,
}

/// The IO limits in force for one disk, per second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoLimitInForce {
    /// The whole disk's number, like `254:0`.
    pub device: String,
    /// Its node, like `/dev/vda`; empty where it is not known.
    pub device_name: String,
    /// Bytes read.
    pub rbps: Option<u64>,
    /// Bytes written.
    pub wbps: Option<u64>,
    /// Read operations.
    pub riops: Option<u64>,
    /// Write operations.
    pub wiops: Option<u64>,
}

impl LimitsInForce {
    pub(crate) fn read(group: &Path) -> Result<LimitsInForce, InterfaceError> {
        let cpu = quota_and_period(&group.join("cpu.max"))?;
        Ok(LimitsInForce {
            cpu_quota_usec: cpu.map(|(quota_usec, _)| quota_usec),
            cpu_period_usec: cpu.map(|(_, period_usec)| period_usec),
            cpu_weight: number_or_max(&group.join("cpu.weight"))?,
            memory_max_bytes: number_or_max(&group.join("memory.max"))?,
            memory_high_bytes: number_or_max(&group.join("memory.high"))?,
            swap_max_bytes: number_or_max(&group.join("memory.swap.max"))?,
            pids_max: number_or_max(&group.join("pids.max"))?,
            io: io_limits(&read_optional(&group.join("io.max"))?.unwrap_or_default()),
        })
    }
}

fn number_or_max(path: &Path) -> Result<Option<u64>, InterfaceError> {
    match read_optional(path)?.as_deref() {
        None | Some("max") => Ok(None),
        Some(text) => Ok(Some(number(text, path, text)?)),
    }
}

/// `cpu.max` is `QUOTA PERIOD`, with `max` as the quota where there is none.
fn quota_and_period(path: &Path) -> Result<Option<(u64, u64)>, InterfaceError> {
    let Some(text) = read_optional(path)? else { return Ok(None) };
    match text.split_once(' ') {
        Some(("max", _)) => Ok(None),
        Some((quota, period)) => Ok(Some((number(quota, path, &text)?, number(period, path, &text)?))),
        None => Err(InterfaceError::Malformed { path: path.to_path_buf(), text }),
    }
}

fn number(digits: &str, path: &Path, text: &str) -> Result<u64, InterfaceError> {
    let malformed = |_| InterfaceError::Malformed { path: path.to_path_buf(), text: text.to_owned() };
    digits.parse().map_err(malformed)
}

fn io_limits(text: &str) -> Vec<IoLimitInForce> {
    let limit = |line: DeviceLine<'_>| IoLimitInForce {
        device: line.device.to_owned(),
        device_name: node_of(line.device),
        rbps: line.get("rbps"),
        wbps: line.get("wbps"),
        riops: line.get("riops"),
        wiops: line.get("wiops"),
    };
    DeviceLine::all(text).map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        let group = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cpu.max", "150000 100000\n"),
            ("cpu.weight", "100\n"),
            ("memory.max", "536870912\n"),
            ("memory.high", "max\n"),
            ("io.max", "999:7 rbps=1048576 wbps=max riops=max wiops=100\n"),
        ] {
            fs::write(group.path().join(file), text).unwrap();
        }
        let limits = LimitsInForce::read(group.path()).unwrap();
        let disk = IoLimitInForce {
            device: "999:7".into(),
            rbps: Some(1_048_576),
            wiops: Some(100),
            ..IoLimitInForce::default()
        };
        let expected = LimitsInForce {
            cpu_quota_usec: Some(150_000),
            cpu_period_usec: Some(100_000),
            cpu_weight: Some(100),
            memory_max_bytes: Some(536_870_912),
            io: vec![disk],
            ..LimitsInForce::default()
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn a_file_of_another_format_is_an_error_that_names_it() {
        let group = tempfile::tempdir().unwrap();
        fs::write(group.path().join("memory.max"), "plenty\n").unwrap();
        let error = LimitsInForce::read(group.path()).unwrap_err().to_string();
        assert!(error.ends_with("memory.max says \"plenty\", which is not the documented format"), "{error}");
    }
}
