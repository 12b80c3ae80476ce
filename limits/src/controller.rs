//! The cgroup v2 controllers that limits need.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A cgroup v2 controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Controller {
    /// CPU time: `cpu.max`, `cpu.weight`.
    Cpu,
    /// Block IO: `io.max`.
    Io,
    /// Memory and swap: `memory.max`, `memory.high`, `memory.swap.max`.
    Memory,
    /// Number of processes and threads: `pids.max`.
    Pids,
}

impl Controller {
    /// All of them, in the order in which they are enabled.
    pub const ALL: [Controller; 4] = [Controller::Cpu, Controller::Io, Controller::Memory, Controller::Pids];

    /// The kernel's name for it, as in `cgroup.controllers`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Io => "io",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
        }
    }

    /// Its name on a cgroup v1 hierarchy, as in `/proc/PID/cgroup`.
    pub(crate) fn v1_name(self) -> &'static str {
        match self {
            Controller::Io => "blkio",
            other => other.name(),
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
