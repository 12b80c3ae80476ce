//! What holds a job's processes together, so that all of them can be found, signalled and killed.
//!
//! A cgroup wherever the host gives one: the kernel kills it at one stroke. But a process that may write to another group's
//! `cgroup.procs` can leave it (one that runs as root), or has somebody move it (`su` by way of pam_systemd, `systemd-run
//! --scope`), and so can its children. Beside a group as well as without one, the shim is the subreaper of everything
//! that the job starts: whatever is orphaned becomes its child (PR_SET_CHILD_SUBREAPER(2const)).
//!
//! ```text
//!  group populated? ── yes ─▶ its kill is under way, or to be repeated
//!    │ no, or there is none
//!  children that live? ─ yes ─▶ they are killed; theirs become ours: again, generation by generation
//!    │ no
//!  nothing is left
//! ```

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use jobworker_limits::{EventsFile, Group, GroupError, SignalNumber as Signal};
use nix::unistd::Pid;

use super::process_tree::{children, has_exited, signal_below, signal_child};

/// A job's processes.
pub struct Confinement {
    /// None where the host has no writable cgroup v2 subtree.
    group: Option<Fence>,
    /// Children that were seen outside the group, by number.
    escaped: HashSet<i32>,
}

struct Fence {
    group: Group,
    /// Wakes when the group becomes empty.
    events: EventsFile,
}

/// What lives of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Processes in the group, and perhaps others.
    Group,
    /// Children of the shim only, outside the group or without one.
    Children,
    /// No process.
    Nothing,
}

impl Confinement {
    /// In a group of their own.
    ///
    /// # Errors
    /// When its `cgroup.events` can't be opened.
    pub fn group(group: Group) -> Result<Self, GroupError> {
        let events = group.events()?;
        Ok(Self { group: Some(Fence { group, events }), escaped: HashSet::new() })
    }

    /// Descendants of this process, the shim.
    pub fn descendants() -> Self {
        Self { group: None, escaped: HashSet::new() }
    }

    /// The group, where there is one.
    pub fn as_group(&self) -> Option<&Group> {
        self.group.as_ref().map(|fence| &fence.group)
    }

    /// What to poll for `POLLPRI` to learn that the group is empty: read that then, with [`Self::has_members`]. None for a
    /// group that is gone, for poll(2) finds that ready for ever.
    pub fn wakes(&self) -> Option<BorrowedFd<'_>> {
        let events = self.group.as_ref().map(|fence| &fence.events);
        events.filter(|events| !events.is_removed()).map(AsFd::as_fd)
    }

    /// Whether a process is in the group.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn has_members(&mut self) -> io::Result<bool> {
        self.group.as_mut().map_or(Ok(false), |fence| fence.events.populated().map_err(io::Error::other))
    }

    /// What lives. Reap before asking; `has_children`: there was one that could not be reaped.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn left(&mut self, has_children: bool) -> io::Result<Left> {
        if self.has_members()? {
            return Ok(Left::Group);
        }
        if has_children {
            for child in children(Pid::this())? {
                if !has_exited(child)? {
                    return Ok(Left::Children);
                }
            }
        }
        Ok(Left::Nothing)
    }

    /// Sends a signal to every process of the job: all of its group, and what is below a child of ours outside it. A child
    /// outside of a parent inside is only killed, once that parent has ended.
    ///
    /// # Errors
    /// When the processes can't be listed, or one can't be signalled.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        let Some(group) = self.as_group() else { return signal_below(Pid::this(), signal) };
        // Whoever is outside is told, whatever becomes of the others.
        let sent = group.signal(signal).map_err(io::Error::other);
        let mut outside = children(Pid::this())?;
        outside.retain(|child| is_outside(group, *child));
        for child in outside {
            // It may not live until it is killed.
            self.note(child);
            signal_below(child, signal)?;
            signal_child(child, signal)?;
        }
        sent.map(drop)
    }

    /// Kills the group, and the main process if it is not reaped yet, wherever it is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self, main: Option<Pid>) -> io::Result<()> {
        let killed = self.as_group().map_or(Ok(()), Group::kill).map_err(io::Error::other);
        main.map_or(Ok(()), |main| signal_child(main, Signal::SIGKILL))?;
        killed
    }

    /// Kills every child of ours. Their own children are ours then.
    ///
    /// # Errors
    /// When they can't be listed, or the kernel refuses.
    pub fn kill_children(&mut self) -> io::Result<()> {
        for child in children(Pid::this())? {
            if !has_exited(child)? {
                self.note(child);
                signal_child(child, Signal::SIGKILL)?;
            }
        }
        Ok(())
    }

    /// Takes note of a child that is not reaped yet, if it is outside the group.
    pub fn note(&mut self, child: Pid) {
        if self.as_group().is_some_and(|group| is_outside(group, child)) {
            self.escaped.insert(child.as_raw());
        }
    }

    /// How many processes were found outside the group; none where there is no group.
    pub fn escaped(&self) -> Option<u64> {
        self.group.as_ref().map(|_| self.escaped.len() as u64)
    }
}

/// One that can't be told is where it was born.
fn is_outside(group: &Group, process: Pid) -> bool {
    group.holds(process.as_raw()).ok().flatten() == Some(false)
}
