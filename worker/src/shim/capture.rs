//! Capture: what a job writes to its pipes goes to `output`, and a record of it to `index`.
//!
//! A disk that does not take the bytes never holds up the job: they are counted as lost, `output` gets a hole of
//! their length so that offsets stay true, and the index a gap record as soon as it can be written.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use crate::job::folder;
use crate::output::index::{HEADER, Kind, RECORD_BYTES, Record};

use super::clock;
use super::record::JobFolder;

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
    /// Creates the two files. The pipes must be non-blocking on this side.
    ///
    /// # Errors
    /// When the files can't be created.
    pub fn new(folder: &JobFolder, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        Ok(Self { stdout: Some(stdout.into()), stderr: Some(stderr.into()), log: Log::create(folder)? })
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

    /// Closes the books: a gap at the very end is recorded too. Returns the bytes that could not be stored.
    pub fn finish(mut self) -> u64 {
        self.log.record_gap();
        self.log.lost_bytes
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

/// `output` and `index`, written side by side.
struct Log {
    output: File,
    index: File,
    output_end: u64,
    index_end: u64,
    /// Lost bytes that no gap record tells of yet, in front of `output_end`.
    gap_bytes: u64,
    lost_bytes: u64,
}

impl Log {
    fn create(folder: &JobFolder) -> io::Result<Self> {
        let output = folder.file(folder::OUTPUT)?;
        let index = folder.file(folder::INDEX)?;
        index.write_all_at(&HEADER, 0)?;
        Ok(Self { output, index, output_end: 0, index_end: RECORD_BYTES as u64, gap_bytes: 0, lost_bytes: 0 })
    }

    fn append(&mut self, kind: Kind, bytes: &[u8]) {
        let stored = self.output.write_all_at(bytes, self.output_end).is_ok() && self.record_gap();
        let length = u32::try_from(bytes.len()).expect("a read is at most the buffer's 64 KiB");
        let record = Record { offset: self.output_end, time_unix_usec: clock::unix_usec(), length, kind };
        if !(stored && self.write_record(record)) {
            self.gap_bytes += u64::from(length);
            self.lost_bytes += u64::from(length);
        }
        self.output_end += u64::from(length);
    }

    /// Whether no lost bytes are left untold.
    fn record_gap(&mut self) -> bool {
        while self.gap_bytes > 0 {
            let length = u32::try_from(self.gap_bytes).unwrap_or(u32::MAX);
            let offset = self.output_end - self.gap_bytes;
            let record = Record { offset, time_unix_usec: clock::unix_usec(), length, kind: Kind::Gap };
            if !self.write_record(record) {
                return false;
            }
            self.gap_bytes -= u64::from(length);
        }
        true
    }

    /// Written at its place: what a failed write left of a record is written over by the next.
    fn write_record(&mut self, record: Record) -> bool {
        let written = self.index.write_all_at(&record.encode(), self.index_end).is_ok();
        if written {
            self.index_end += RECORD_BYTES as u64;
        }
        written
    }
}
