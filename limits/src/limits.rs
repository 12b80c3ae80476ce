//! All limits of one job.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Controller, CpuLimit, CpuWeight, IoLimit, MemorySize, PidsLimit, SwapLimit};

/// The limits asked for a job; what is not given is not limited.
///
/// In serde a field that is not limited is left out, and an unknown field is an error: a limit that the reader
/// does not know must refuse the job, not be dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// CPU time per wall-clock time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuLimit>,
    /// Share of CPU time while CPUs are contended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<CpuWeight>,
    /// Memory beyond which the job is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySize>,
    /// Memory beyond which the job is slowed down and its pages reclaimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_high: Option<MemorySize>,
    /// Swap; none where `memory` is limited and this is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapLimit>,
    /// Processes and threads at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<PidsLimit>,
    /// IO rates, at most one entry per disk.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io: Vec<IoLimit>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.controllers().is_empty()
    }

    /// The controllers that these limits need.
    #[must_use]
    pub fn controllers(&self) -> BTreeSet<Controller> {
        let needed = [
            (Controller::Cpu, self.cpu.is_some() || self.cpu_weight.is_some()),
            (Controller::Io, !self.io.is_empty()),
            (Controller::Memory, self.memory.is_some() || self.memory_high.is_some() || self.swap.is_some()),
            (Controller::Pids, self.pids.is_some()),
        ];
        needed.into_iter().filter_map(|(controller, needed)| needed.then_some(controller)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_only_what_is_limited_and_comes_back() {
        let json = r#"{"cpu":"1.5","memory":"512MiB","io":["/data:10MB"]}"#;
        let limits: Limits = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&limits).unwrap(), json);
        assert_eq!(serde_json::to_string(&Limits::default()).unwrap(), "{}");
        let controllers: Vec<_> = limits.controllers().into_iter().collect();
        assert_eq!(controllers, [Controller::Cpu, Controller::Io, Controller::Memory]);
        assert!(Limits::default().is_empty());
    }

    #[test]
    fn json_with_a_wrong_or_unknown_limit_is_refused() {
        let error = serde_json::from_str::<Limits>(r#"{"memory":"1.5G B"}"#).unwrap_err().to_string();
        assert!(error.contains("\"1.5G B\" is not a memory size"), "{error}");
        let error = serde_json::from_str::<Limits>(r#"{"hugepages":"2"}"#).unwrap_err().to_string();
        assert!(error.contains("hugepages"), "{error}");
    }
}
