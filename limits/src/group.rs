//! One job's group: what can be done to it and read from it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::interface::confirm;
use crate::knob::Knobs;
use crate::{
    EventsFile, GroupError, InterfaceError, LimitsInForce, OomEvents, Pressure, SignalNumber, Usage, members,
};

/// An existing group. Reading needs no privilege; killing, freezing and removing need that of its owner.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    folder: File,
}

impl Group {
    /// Opens a group that exists, without writing anything.
    ///
    /// # Errors
    /// When there is no such folder or it may not be opened.
    pub fn open(path: &Path) -> Result<Group, GroupError> {
        let mut options = fs::OpenOptions::new();
        let folder = options.read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(path);
        let folder = folder.map_err(|reason| InterfaceError::io("open", path, reason))?;
        Ok(Group { path: path.to_path_buf(), folder })
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its folder, open: what clone3(2) with `CLONE_INTO_CGROUP` takes.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Whether it was removed: whoever may write to the hierarchy can do that once it is empty.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        matches!(self.path.try_exists(), Ok(false))
    }

    /// Kills every process of the group and below it at once, also those being forked (`cgroup.kill`). A removed group has
    /// none.
    ///
    /// Returns when the signals are sent, which takes long for a group of thousands; see
    /// [`wait_empty`](Self::wait_empty) for the processes' end.
    ///
    /// # Errors
    /// When the kernel is older than 5.14, or the write is refused.
    pub fn kill(&self) -> Result<(), GroupError> {
        match Knobs::of(&self.path).kill() {
            Err(_) if self.is_removed() => Ok(()),
            killed => killed,
        }
    }

    /// Whether a process is in the group or one below it; `None` when there is no such process. One that has exited is
    /// where it was, until it is reaped.
    ///
    /// # Errors
    /// When `/proc/PID/cgroup` cannot be read.
    pub fn holds(&self, pid: i32) -> Result<Option<bool>, GroupError> {
        Ok(members::is_in(&self.path, pid)?)
    }

    /// Asks for all processes to be stopped where they are; [`EventsFile::frozen`] says when they are.
    ///
    /// # Errors
    /// When the write is refused or is not in force.
    pub fn freeze(&self) -> Result<(), GroupError> {
        Knobs::of(&self.path).freeze()?;
        Ok(confirm(&self.path.join("cgroup.freeze"), "1", "1")?)
    }

    /// Lets frozen processes run again.
    ///
    /// # Errors
    /// When the write is refused or is not in force.
    pub fn thaw(&self) -> Result<(), GroupError> {
        Knobs::of(&self.path).thaw()?;
        Ok(confirm(&self.path.join("cgroup.freeze"), "0", "0")?)
    }

    /// The pids in the group and all groups below it, in order.
    ///
    /// # Errors
    /// When the group is missing or may not be read.
    pub fn procs(&self) -> Result<Vec<i32>, GroupError> {
        Ok(members::processes(&self.path)?)
    }

    /// How many processes are in the group and all groups below it.
    ///
    /// # Errors
    /// As [`procs`](Self::procs).
    pub fn process_count(&self) -> Result<usize, GroupError> {
        Ok(self.procs()?.len())
    }

    /// Sends a signal to every process of the group, never to another one that got its pid; how many got it.
    ///
    /// A process that is forked meanwhile may miss it: to end a group for certain, [`kill`](Self::kill) it. A removed group
    /// has none.
    ///
    /// # Errors
    /// When the group cannot be read, or (after all others were tried) a process cannot be signalled.
    pub fn signal(&self, signal: SignalNumber) -> Result<usize, GroupError> {
        match members::signal(&self.path, signal) {
            Err(_) if self.is_removed() => Ok(0),
            sent => sent,
        }
    }

    /// Opens its `cgroup.events`.
    ///
    /// # Errors
    /// When the file is missing (also: the root of the hierarchy has none) or may not be read.
    pub fn events(&self) -> Result<EventsFile, GroupError> {
        Ok(EventsFile::open(&self.path)?)
    }

    /// Waits until no process is left; whether that is so by the end of `timeout`. A removed group is empty.
    ///
    /// # Errors
    /// When `cgroup.events` cannot be read or polled.
    pub fn wait_empty(&self, timeout: Duration) -> Result<bool, GroupError> {
        match EventsFile::open(&self.path) {
            Ok(mut events) => Ok(events.wait_empty(timeout)?),
            Err(_) if !self.path.exists() => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The limits that the kernel says are in force.
    ///
    /// # Errors
    /// When an interface file cannot be read or is not as documented; a missing one is no error.
    pub fn limits_in_force(&self) -> Result<LimitsInForce, GroupError> {
        Ok(LimitsInForce::read(&self.path)?)
    }

    /// What the group has used so far.
    ///
    /// # Errors
    /// When an interface file cannot be read or is not as documented; a missing one is no error.
    pub fn usage(&self) -> Result<Usage, GroupError> {
        Ok(Usage::read(&self.path)?)
    }

    /// How long its processes have stood still for want of something.
    ///
    /// # Errors
    /// When a file cannot be read, or is not as documented.
    pub fn pressure(&self) -> Result<Pressure, GroupError> {
        Ok(Pressure::read(&self.path)?)
    }

    /// How often the group ran out of its own memory limit, and whom that killed.
    ///
    /// # Errors
    /// When `memory.events.local` cannot be read; where it is missing all numbers are 0.
    pub fn oom(&self) -> Result<OomEvents, GroupError> {
        Ok(OomEvents::read(&self.path)?)
    }

    /// Removes the group and all groups below it. A group that is gone already is no error.
    ///
    /// # Errors
    /// [`GroupError::Busy`] while a process is left in it; otherwise when a folder cannot be removed.
    pub fn remove(&self) -> Result<(), GroupError> {
        let groups = match members::groups(&self.path) {
            Err(_) if self.is_removed() => return Ok(()),
            groups => groups?,
        };
        for group in groups.into_iter().rev() {
            match fs::remove_dir(&group) {
                Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                    return Err(GroupError::Busy { path: group });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(InterfaceError::io("remove", &group, error).into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}
