//! How a job is: `state.json`, replaced by rename at every transition.
//!
//! ```text
//!            birth failed: folder removed, the caller of Start is told
//!               ▲
//!  (spec.json)  │  command executed        stop asked for, timeout
//!   starting ───┴──▶ running ─────────────────▶ stopping
//!      │                │  main process reaped     │  and the group empty, and the output at its end
//!      │                ▼                          ▼
//!      └──────────▶ finished ◀─────────────────────┘
//!    shim gone         cause: exited, signaled, stopped, timed-out, out-of-memory; lost when the shim died
//! ```
//!
//! `starting` is a folder without `state.json`. Nothing leaves `finished`.

use std::path::PathBuf;

use jobworker_limits::{LimitsInForce, Usage};
use serde::{Deserialize, Serialize};

/// What `state.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`super::spec::FORMAT_VERSION`] of the writer.
    pub version: u32,
    /// Where the job is in its life.
    pub phase: Phase,
    /// The main process, in the host's numbering. It may be gone.
    pub pid: i32,
    /// The shim beside it.
    pub shim_pid: i32,
    /// The host's `/proc/sys/kernel/random/boot_id` when the job was born.
    pub boot_id: String,
    /// The OS user that it runs as.
    pub user: String,
    /// Its group; none where the host gives no writable cgroup v2 subtree.
    pub cgroup: Option<PathBuf>,
    /// When its command was executed, in microseconds since the Unix epoch.
    pub started_unix_usec: u64,
    /// The host's CLOCK_BOOTTIME around the birth: a process of that number that was born then is the main process, and no
    /// clock that is set moves it. None in files of older builds.
    #[serde(default)]
    pub birth: Option<Birth>,
    /// The limits, as read back when they were written, and again at the end.
    pub limits_in_force: LimitsInForce,
    /// Real-time signals can be asked of its shim; false for a shim of a build that did not know them.
    #[serde(default)]
    pub real_time_signals: bool,
}

/// When a main process was born, in microseconds since the host's boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// Before it was there.
    pub began_boot_usec: u64,
    /// When it had executed its command.
    pub executed_boot_usec: u64,
}

/// A job's phases from birth on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The command has been executed.
    Running,
    /// Asked to end; the grace period runs.
    Stopping(StopReason),
    /// Ended, its group gone, its output complete.
    Finished(Box<Finished>),
}

/// Why a job is being ended before it ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Somebody asked.
    Requested {
        /// That client's name, as [`super::Owner::name`].
        by: String,
    },
    /// It ran as long as it was allowed to.
    TimedOut,
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// How it ended and why.
    pub outcome: Outcome,
    /// When, in microseconds since the Unix epoch.
    pub at_unix_usec: u64,
    /// How long it ran, in microseconds, by a clock that nobody sets. None in files of older builds, and where nobody knows.
    #[serde(default)]
    pub ran_usec: Option<u64>,
    /// Processes that were found outside the job's group at its end: there its limits did not hold, and its usage was not
    /// counted. None in files of older builds, and for a job without a group.
    #[serde(default)]
    pub escaped: Option<u64>,
    /// What it used, read from its group before that was removed.
    pub usage: Usage,
    /// Bytes of output that it wrote; none in files of version 1, and for a job that is lost.
    pub output_bytes: Option<u64>,
    /// Bytes of its output that could not be stored.
    pub output_lost_bytes: u64,
}

/// The verdict on a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The main process exited by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// The main process died of a signal that nobody here sent.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// Somebody stopped it.
    Stopped {
        /// That client's name.
        by: String,
        /// How the main process ended.
        ended: Ended,
    },
    /// It ran into its timeout.
    TimedOut {
        /// How the main process ended.
        ended: Ended,
    },
    /// The kernel's OOM killer ended it.
    OutOfMemory {
        /// Whether its own limit was reached, not one further up or the host's memory.
        own_limit: bool,
        /// How the main process ended.
        ended: Ended,
    },
    /// Its shim died, so nobody knows how it ended.
    Lost {
        /// What is known.
        reason: String,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl Outcome {
    /// How the main process ended, where that is known.
    pub fn ended(&self) -> Option<Ended> {
        match self {
            Self::Exited { code } => Some(Ended::Exited(*code)),
            Self::Signaled { signal } => Some(Ended::Signaled(*signal)),
            Self::Stopped { ended, .. } | Self::TimedOut { ended } | Self::OutOfMemory { ended, .. } => {
                Some(*ended)
            }
            Self::Lost { .. } => None,
        }
    }
}

impl State {
    /// How long it has run at a time of the host's CLOCK_BOOTTIME, in this boot. None where an older build started it.
    pub fn ran_usec(&self, now_boot_usec: u64) -> Option<u64> {
        self.birth.map(|birth| now_boot_usec.saturating_sub(birth.executed_boot_usec))
    }

    /// When it ended, by the CLOCK_BOOTTIME of the boot in which it was born, in microseconds. None where that is not known.
    pub fn ended_boot_usec(&self) -> Option<u64> {
        Some(self.birth?.executed_boot_usec.saturating_add(self.finished()?.ran_usec?))
    }

    /// The end of the job, once it has one.
    pub fn finished(&self) -> Option<&Finished> {
        match &self.phase {
            Phase::Finished(finished) => Some(finished),
            Phase::Running | Phase::Stopping(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::any;

    proptest! {
        #[test]
        fn a_state_reads_back_as_written(state in any::state()) {
            let json = serde_json::to_vec_pretty(&state).unwrap();
            prop_assert_eq!(serde_json::from_slice::<State>(&json).unwrap(), state);
        }

        /// A reader that comes while it is being written reads a part, and must not take it for the whole.
        #[test]
        fn a_part_of_a_state_is_none(state in any::state(), cut: prop::sample::Index) {
            let json = serde_json::to_vec(&state).unwrap();
            prop_assert!(serde_json::from_slice::<State>(&json[..cut.index(json.len())]).is_err());
        }
    }
}
