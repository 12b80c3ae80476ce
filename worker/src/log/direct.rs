//! Lines from a process without threads: each is written at once, or not at all.
//!
//! A descriptor's `O_NONBLOCK` is everybody's who shares it, so a pipe or a terminal is opened anew under its name in
//! proc(5): its own open file description, whose `O_NONBLOCK` is ours alone. A socket, the journal's, has a flag for each
//! send. Only where neither can be had, poll(2) says whether there is room.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::{SendFlags, send};

use super::notice;
use crate::config::log::Format;

/// The kernel's `PIPE_BUF`: what a pipe takes whole or not at all, in bytes (pipe(7)).
const WHOLE_BYTES: usize = 4096;

/// Writes lines to stderr.
#[derive(Debug)]
pub(super) struct Direct {
    way: Way,
    format: Format,
    count: Mutex<Count>,
}

/// How stderr is written to without waiting.
#[derive(Debug)]
enum Way {
    /// A file takes whatever comes.
    File,
    /// Opened anew, non-blocking.
    Reopened(File),
    Socket,
    Polled,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Lines that were dropped since that was said last.
    unsaid: u64,
    /// All of them.
    dropped: u64,
}

impl Direct {
    pub(super) fn new(format: Format) -> Self {
        Self { way: Way::of_stderr(), format, count: Mutex::default() }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Writes a line, if that takes no waiting.
    pub(super) fn put(&self, line: &[u8]) {
        // Nobody else holds it: there is one thread, and a fork happens between two lines.
        let mut count = self.count.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if count.unsaid > 0 && self.way.write(&notice::dropped(self.format, count.unsaid)) {
            count.unsaid = 0;
        }
        if count.unsaid > 0 || !self.way.write(line) {
            count.unsaid += 1;
            count.dropped += 1;
        }
    }

    /// How many lines were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.count.lock().unwrap_or_else(std::sync::PoisonError::into_inner).dropped
    }
}

impl Way {
    fn of_stderr() -> Self {
        let Ok(duplicate) = io::stderr().as_fd().try_clone_to_owned() else { return Self::Polled };
        let Ok(metadata) = File::from(duplicate).metadata() else { return Self::Polled };
        let kind = metadata.file_type();
        if kind.is_file() {
            Self::File
        } else if kind.is_socket() {
            Self::Socket
        } else {
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
            let reopened = OpenOptions::new().write(true).custom_flags(flags).open("/proc/self/fd/2");
            reopened.map_or(Self::Polled, Self::Reopened)
        }
    }

    /// Whether all of it was taken. What is longer than can be taken whole is cut, so that no line is half there.
    fn write(&self, line: &[u8]) -> bool {
        let stderr = io::stderr();
        match self {
            Self::File => io::stderr().write_all(line).is_ok(),
            Self::Reopened(file) => {
                let line = cut(line);
                retry(|| nix::unistd::write(file, &line)) == Ok(line.len())
            }
            Self::Socket => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                let sent = retry(|| {
                    send(&stderr, line, flags).map_err(|error| Errno::from_raw(error.raw_os_error()))
                });
                sent == Ok(line.len())
            }
            Self::Polled => {
                let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
                let is_free = matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1));
                let line = cut(line);
                is_free && retry(|| nix::unistd::write(&stderr, &line)) == Ok(line.len())
            }
        }
    }
}

fn retry(mut write: impl FnMut() -> nix::Result<usize>) -> nix::Result<usize> {
    loop {
        match write() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Ends with a newline in any case.
fn cut(line: &[u8]) -> Vec<u8> {
    let mut line = line.to_vec();
    if line.len() > WHOLE_BYTES {
        line.truncate(WHOLE_BYTES - 1);
        line.push(b'\n');
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use super::*;

    /// A pipe's end as the spawner has it, and the other.
    fn pipe() -> (Way, File) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let reopened = OpenOptions::new().write(true).custom_flags(flags).open(path).unwrap();
        (Way::Reopened(reopened), reader.into())
    }

    #[test]
    fn a_full_pipe_costs_lines_and_no_time() {
        let (way, mut reader) = pipe();
        let direct = Direct { way, format: Format::Text, count: Mutex::default() };
        let line = [&[b'x'; 999][..], b"\n"].concat();
        for _ in 0..100 {
            direct.put(&line);
        }
        let dropped = direct.dropped();
        assert!((1..100).contains(&dropped), "64 KiB fit: {dropped}");
        let mut taken = vec![0; 60_000];
        reader.read_exact(&mut taken).unwrap();
        direct.put(b"the next\n");
        assert_eq!(direct.dropped(), dropped);
        drop(direct);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let lines: Vec<_> = rest.lines().collect();
        assert!(lines[lines.len() - 2].ends_with(&format!("lines={dropped}")), "{rest}");
        assert_eq!(lines.last(), Some(&"the next"));
        assert!(lines[..lines.len() - 2].iter().all(|line| line.len() == 999), "whole lines only");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let (way, mut reader) = pipe();
        assert!(way.write(&[b'x'; 100_000]));
        drop(way);
        let mut taken = Vec::new();
        reader.read_to_end(&mut taken).unwrap();
        assert_eq!((taken.len(), taken.last()), (WHOLE_BYTES, Some(&b'\n')));
    }
}
