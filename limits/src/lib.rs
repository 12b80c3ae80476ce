//! cgroup v2 for jobworker: limits as validated values, and one group per job that holds them.
//!
//! - Values, each with a text form that parses back: [`CpuLimit`], [`CpuWeight`], [`MemorySize`], [`SwapLimit`],
//!   [`PidsLimit`], [`IoLimit`]; together, [`Limits`]. Beside them [`OutputLimit`], which no group holds.
//! - [`resolve_disk`]: which whole disk an IO limit's path, partition or device stands for.
//! - [`Base`]: the delegated subtree, found and prepared; it creates a group with its limits, before any process.
//! - [`Loan`]: a base for a moment only, put back as it was.
//! - [`SignalNumber`]: what can be sent to the processes of a group.
//! - [`Group`]: one job's group: kill, freeze, signal, wait until empty, usage, events, remove.
//!
//! Everything blocks and nothing is done in the background. Writes go through cgroups-rs where that crate is sound
//! (see the `knob` module) and every limit is read back from the kernel's file: a limit that is not in force is an
//! error. The kernel's description of all interface files:
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>.

mod base;
mod controller;
mod cpu;
mod disk;
mod enforce;
mod error;
mod events;
mod find;
mod group;
mod in_force;
mod interface;
mod io;
mod knob;
mod limits;
mod loan;
mod members;
mod memory;
mod output;
mod pids;
mod pressure;
mod sense;
mod signal;
mod text;
mod usage;

pub use base::{Base, enter_leaf};
pub use controller::Controller;
pub use cpu::{CpuLimit, CpuWeight};
pub use disk::{Disk, DiskError, resolve_disk};
pub use enforce::{IoPlan, resolve_io};
pub use error::{BaseError, GroupError};
pub use events::EventsFile;
pub use group::Group;
pub use in_force::{IoLimitInForce, LimitsInForce};
pub use interface::InterfaceError;
pub use io::{AboveCeiling, IoLimit, IoRates};
pub use limits::Limits;
pub use loan::Loan;
pub use memory::{MemorySize, SwapLimit};
pub use output::OutputLimit;
pub use pids::PidsLimit;
pub use pressure::{Pressure, Stalled};
pub use sense::HostSize;
pub use signal::{NotASignal, SignalNumber};
pub use text::ParseError;
pub use usage::{IoUsage, OomEvents, Usage};
