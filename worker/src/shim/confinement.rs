//! What holds a job's processes together, so that all of them can be found, signalled and killed.
//!
//! A cgroup wherever the host gives one: nothing leaves it, and the kernel kills it at one stroke. Where there is no
//! writable cgroup v2 subtree, the shim is the subreaper of everything that the job starts: whatever is orphaned
//! becomes its child, so killing its children until none is left reaches all (PR_SET_CHILD_SUBREAPER(2const)).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use jobworker_limits::{EventsFile, Group, GroupError};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

/// A job's processes.
pub enum Confinement {
    /// In a group of their own.
    Group {
        /// The group.
        group: Group,
        /// Wakes when the group becomes empty.
        events: EventsFile,
    },
    /// Descendants of this process, the shim.
    Descendants,
}

impl Confinement {
    /// Around a group.
    ///
    /// # Errors
    /// When its `cgroup.events` can't be opened.
    pub fn group(group: Group) -> Result<Self, GroupError> {
        let events = group.events()?;
        Ok(Self::Group { group, events })
    }

    /// The group, where there is one.
    pub fn as_group(&self) -> Option<&Group> {
        match self {
            Self::Group { group, .. } => Some(group),
            Self::Descendants => None,
        }
    }

    /// What to poll for `POLLPRI` to learn that the job's processes are gone. Descendants are told by SIGCHLD.
    pub fn wakes(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Group { events, .. } => Some(events.as_fd()),
            Self::Descendants => None,
        }
    }

    /// Whether no process of the job is left. Reap before asking.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn is_empty(&mut self) -> io::Result<bool> {
        match self {
            Self::Group { events, .. } => {
                events.populated().map(|populated| !populated).map_err(io::Error::other)
            }
            Self::Descendants => Ok(children(getpid())?.is_empty()),
        }
    }

    /// Sends a signal to every process of the job.
    ///
    /// # Errors
    /// When the processes can't be listed, or one can't be signalled.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match self {
            Self::Group { group, .. } => group.signal(signal).map(drop).map_err(io::Error::other),
            Self::Descendants => signal_tree(getpid(), signal),
        }
    }

    /// Kills the job's processes: all of a group; of descendants those that are our children, so it has to be
    /// repeated each time one of them has been reaped.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> io::Result<()> {
        match self {
            Self::Group { group, .. } => group.kill().map_err(io::Error::other),
            Self::Descendants => {
                children(getpid())?.into_iter().try_for_each(|child| send(child, Signal::SIGKILL))
            }
        }
    }
}

/// The children of a single-threaded process of ours (proc_pid_task(5), `children`).
fn children(parent: Pid) -> io::Result<Vec<Pid>> {
    match fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")) {
        Ok(text) => {
            Ok(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect())
        }
        // Reaped by its parent in the meantime: its children are ours, or its subreaper's, now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// From the leaves up, so that no parent has had the time to start what would be missed. A process that we are not
/// the parent of can be gone, and its number taken, between the look and the signal: that is why this way is for
/// asking only; killing goes by children, whose numbers can't be taken before we reap them.
fn signal_tree(parent: Pid, signal: Signal) -> io::Result<()> {
    for child in children(parent)? {
        signal_tree(child, signal)?;
        send(child, signal)?;
    }
    Ok(())
}

/// A process that is gone, or became somebody else's, needs no signal.
fn send(process: Pid, signal: Signal) -> io::Result<()> {
    match kill(process, signal) {
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
