//! The errors of the subtree and of groups.

use std::path::PathBuf;

use crate::{Controller, Disk, DiskError, InterfaceError, IoRates};

/// Why the delegated subtree cannot be found or prepared.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// No cgroup v2 hierarchy holds this process.
    #[error(
        "no cgroup v2 hierarchy is mounted that shows this process's group ({group}): mount one \
         (mount -t cgroup2 none /sys/fs/cgroup) or give a group"
    )]
    NoHierarchy {
        /// The process's own group as `/proc/self/cgroup` has it.
        group: String,
    },
    /// The folder is not a cgroup v2 group.
    #[error("{} is not a cgroup v2 group: give a folder below a cgroup2 mount", path.display())]
    NotAGroup {
        /// The folder.
        path: PathBuf,
    },
    /// The subtree is not ours to write.
    #[error(
        "no permission to use the cgroup subtree {}: delegate it (systemd: Delegate=yes), give another group, \
         or run as root: {reason}",
        path.display()
    )]
    NotDelegated {
        /// The subtree.
        path: PathBuf,
        /// What was refused.
        reason: InterfaceError,
    },
    /// An interface file, or a group's folder.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
}

/// Why a group cannot be created, read or acted on.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The name is not that of a job's group.
    #[error("{name:?} is not a group's name: use 1 to 255 of A-Z a-z 0-9 and '-'")]
    Name {
        /// The name as given.
        name: String,
    },
    /// A limit needs a controller that is not available.
    #[error("the {controller} controller is not available in {}: {remedy}", group.display())]
    ControllerMissing {
        /// The controller.
        controller: Controller,
        /// The subtree it is missing from.
        group: PathBuf,
        /// Why, and what to do.
        remedy: String,
    },
    /// Swap was asked for where the kernel does not account for it.
    #[error(
        "a swap limit of {limit} needs {}, which this kernel has not: give 0, or boot with swapaccount=1 and \
         CONFIG_SWAP", path.display()
    )]
    NoSwapAccounting {
        /// The limit asked for.
        limit: crate::SwapLimit,
        /// The missing file.
        path: PathBuf,
    },
    /// An IO limit names no disk.
    #[error("IO limit: {0}")]
    Disk(#[from] DiskError),
    /// Two IO limits are for the same disk.
    #[error("two IO limits, {first} and {second}, are for the same disk {disk}: give one with all rates")]
    SameDisk {
        /// The disk of both.
        disk: Disk,
        /// The first one's rates.
        first: IoRates,
        /// The second one's rates.
        second: IoRates,
    },
    /// The kernel refused an IO limit.
    #[error("the kernel refuses the IO limit {rates} for disk {disk}: {reason}")]
    IoRefused {
        /// The disk.
        disk: Disk,
        /// The rates.
        rates: IoRates,
        /// The reason.
        reason: Box<InterfaceError>,
    },
    /// The kernel is too old.
    #[error("{} is missing: killing a group needs Linux 5.14 or newer", path.display())]
    NoKill {
        /// The missing file.
        path: PathBuf,
    },
    /// The group still holds processes.
    #[error("cannot remove {}: it still holds processes", path.display())]
    Busy {
        /// The group.
        path: PathBuf,
    },
    /// A process could not be signalled.
    #[error("cannot send {signal} to process {pid} of {}: {reason}", path.display())]
    Signal {
        /// The signal.
        signal: crate::SignalNumber,
        /// The process.
        pid: i32,
        /// The group.
        path: PathBuf,
        /// The reason.
        reason: std::io::Error,
    },
    /// An interface file, or the group's folder.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
}
