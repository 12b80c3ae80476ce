//! Jobs have no stdin. What is piped into jobctl is not taken away in silence.
//!
//! Only bytes that are there count, and only where stdin is meant for jobctl: in `while read …; do jobctl start …; done` and
//! in scripts the shell that called it has the same stdin, and reads it itself. (A file that nobody has read from yet is
//! jobctl's all the same: some shells redirect their own stdin before they start a command.)

use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::getppid;

use crate::render;

/// A stdin that was meant for something.
struct Input {
    file: File,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Regular,
    Pipe,
    Socket,
}

/// Says so if there is input now.
pub(crate) fn note_if_any() {
    if Input::given().is_some_and(|input| input.is_there()) {
        note();
    }
}

/// Says so as soon as there is input, once.
pub(crate) fn note_when_any() {
    let Some(input) = Input::given() else { return };
    if input.is_there() {
        return note();
    }
    if matches!(input.kind, Kind::Pipe | Kind::Socket) {
        // It ends with the process. Without it, what comes late is not told.
        let waiting = thread::Builder::new().name("input".to_owned()).spawn(move || {
            if input.comes() {
                note();
            }
        });
        drop(waiting);
    }
}

fn note() {
    render::note("note: jobs get no input; what comes in on stdin is not passed on");
}

impl Input {
    fn given() -> Option<Self> {
        let file = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
        let stdin = file.metadata().ok()?;
        let kind = match stdin.file_type() {
            kind if kind.is_file() => Kind::Regular,
            kind if kind.is_fifo() => Kind::Pipe,
            kind if kind.is_socket() => Kind::Socket,
            _ => return None,
        };
        let input = Self { file, kind };
        let callers = fs::metadata(format!("/proc/{}/fd/0", getppid()));
        let is_callers = callers.is_ok_and(|it| (it.dev(), it.ino()) == (stdin.dev(), stdin.ino()));
        let is_untouched = matches!(kind, Kind::Regular) && input.position() == Some(0);
        (!is_callers || is_untouched).then_some(input)
    }

    /// In a regular file.
    fn position(&self) -> Option<u64> {
        (&self.file).stream_position().ok()
    }

    fn is_there(&self) -> bool {
        match self.kind {
            Kind::Regular => {
                let (at, file) = (self.position(), self.file.metadata());
                file.is_ok_and(|file| at.is_some_and(|at| at < file.len()))
            }
            Kind::Pipe => {
                let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
                let polled = poll(&mut fds, PollTimeout::ZERO);
                // The end alone is POLLHUP.
                polled.is_ok() && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
            }
            Kind::Socket => {
                let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
                recv(self.file.as_raw_fd(), &mut [0], flags).is_ok_and(|count| count > 0)
            }
        }
    }

    /// Waits until there is input, or will be none.
    fn comes(&self) -> bool {
        let waited = poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        waited.is_ok() && self.is_there()
    }
}
