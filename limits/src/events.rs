//! `cgroup.events`: whether a group holds processes, told by poll(2) instead of by asking again and again.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::InterfaceError;

/// An open `cgroup.events` file. After [`populated`](Self::populated), poll(2) for `POLLPRI` wakes at the next change.
#[derive(Debug)]
pub struct EventsFile {
    file: File,
    path: PathBuf,
    is_removed: bool,
}

impl EventsFile {
    pub(crate) fn open(group: &Path) -> Result<EventsFile, InterfaceError> {
        let path = group.join("cgroup.events");
        let file = File::open(&path).map_err(|reason| InterfaceError::io("open", &path, reason))?;
        Ok(EventsFile { file, path, is_removed: false })
    }

    /// Whether the group or one below it holds a process (a zombie counts as none). A removed group holds none.
    ///
    /// # Errors
    /// When the file cannot be read, or is not as documented.
    pub fn populated(&mut self) -> Result<bool, InterfaceError> {
        self.flag("populated")
    }

    /// Whether the last look has found that the group was removed. From then on poll(2) finds the file ready for ever.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.is_removed
    }

    /// Whether all processes of the group are frozen: a freeze takes effect some time after it is asked for.
    ///
    /// # Errors
    /// When the file cannot be read, or is not as documented.
    pub fn frozen(&mut self) -> Result<bool, InterfaceError> {
        self.flag("frozen")
    }

    /// Waits until the group is empty; whether it is by then.
    ///
    /// # Errors
    /// When the file cannot be read or polled.
    pub fn wait_empty(&mut self, timeout: Duration) -> Result<bool, InterfaceError> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if !self.populated()? {
                return Ok(true);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            self.wait_for_change(left)?;
        }
    }

    /// Returns at a change, at a signal, or when the time is over.
    fn wait_for_change(&self, timeout: Option<Duration>) -> Result<(), InterfaceError> {
        // Rounded up: rounding down would spin through the last millisecond.
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        let mut descriptors = [PollFd::new(self.file.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(InterfaceError::io("poll", &self.path, errno)),
        }
    }

    fn flag(&mut self, key: &str) -> Result<bool, InterfaceError> {
        // The kernel's file holds two short lines; one read from its start also re-arms poll(2).
        let mut buffer = [0; 256];
        let length = match self.file.read_at(&mut buffer, 0) {
            Ok(length) => length,
            Err(error) if is_gone(&error) => {
                self.is_removed = true;
                return Ok(false);
            }
            Err(reason) => return Err(InterfaceError::io("read", &self.path, reason)),
        };
        let text = String::from_utf8_lossy(&buffer[..length]);
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        match value {
            Some("0") => Ok(false),
            Some("1") => Ok(true),
            _ => Err(InterfaceError::Malformed { path: self.path.clone(), text: text.into_owned() }),
        }
    }
}

impl AsFd for EventsFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A file of a group that was removed while it was open says ENODEV.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENODEV as i32)
}
