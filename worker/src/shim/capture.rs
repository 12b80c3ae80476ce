//! Capture: what a job writes to its pipes goes to its log.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jobworker_limits::OutputLimit;
use rustix::io::Errno;

pub use super::log::Sums;

use super::log::Log;
use super::record::JobFolder;
use crate::output::index::Kind;

/// As much as a pipe holds by default (pipe(7)), in bytes: one read empties it.
const BUFFER_BYTES: usize = 64 << 10;

/// The reading side of a job's stdout and stderr, and the files they go to.
pub struct Capture {
    stdout: Option<File>,
    stderr: Option<File>,
    log: Log,
}

/// What [`Capture::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Bytes,
    Nothing,
    End,
}

impl Capture {
    /// Creates the log. The pipes must be non-blocking on this side.
    ///
    /// # Errors
    /// When the log's files can't be created.
    pub fn new(folder: &JobFolder, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        let log = Log::create(folder)?;
        Ok(Self { stdout: Some(stdout.into()), stderr: Some(stderr.into()), log })
    }

    /// Keeps so much of the output from now on.
    pub fn limit(&mut self, limit: OutputLimit) {
        self.log.limit(limit);
    }

    /// The pipe of a stream while somebody can still write to it.
    pub fn pipe(&self, stream: Kind) -> Option<BorrowedFd<'_>> {
        self.file(stream).map(AsFd::as_fd)
    }

    /// Takes what is ready in one pipe, once.
    pub fn read_ready(&mut self, stream: Kind) {
        if self.read(stream) == Found::End {
            match stream {
                Kind::Stderr => self.stderr = None,
                _ => self.stdout = None,
            }
        }
    }

    /// Takes what is left in both pipes now. Whoever else still holds them is not waited for.
    pub fn drain(&mut self) {
        for stream in [Kind::Stdout, Kind::Stderr] {
            while self.read(stream) == Found::Bytes {}
        }
    }

    /// Closes the books: a gap at the very end is recorded too. False when the disk does not take it; it can be asked
    /// again.
    pub fn close(&mut self) -> bool {
        self.log.close()
    }

    /// Gives back what space was set aside for the index.
    pub fn give_back_rest(&self) {
        self.log.give_back_rest();
    }

    /// What has become of the output.
    pub fn sums(&self) -> Sums {
        self.log.sums()
    }

    fn file(&self, stream: Kind) -> Option<&File> {
        match stream {
            Kind::Stderr => self.stderr.as_ref(),
            _ => self.stdout.as_ref(),
        }
    }

    fn read(&mut self, stream: Kind) -> Found {
        let pipe = match stream {
            Kind::Stderr => self.stderr.as_ref(),
            _ => self.stdout.as_ref(),
        };
        let Some(pipe) = pipe else { return Found::Nothing };
        // On the stack, not filled beforehand: a shim beside a job that says nothing never has these pages.
        let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER_BYTES];
        match rustix::io::read(pipe, &mut buffer[..]) {
            Ok(([], _)) => Found::End,
            Ok((bytes, _)) => {
                self.log.append(stream, bytes);
                Found::Bytes
            }
            Err(Errno::INTR) => Found::Bytes,
            // Nothing there yet; a pipe knows no other error.
            Err(_) => Found::Nothing,
        }
    }
}
