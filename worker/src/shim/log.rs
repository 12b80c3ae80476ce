//! A job's log: `output` and `index`, written side by side and kept within a limit.
//!
//! A disk that does not take the bytes never holds up the job: they are counted as lost, `output` gets a hole of
//! their length so that offsets stay true, and the index a gap record as soon as it can be written. Space for that
//! record is set aside beforehand, so that a disk that stays full is told of all the same.
//!
//! What has grown past the limit gives the oldest bytes and their records back to the file system, a part of the limit
//! at a time (fallocate(2), `FALLOC_FL_PUNCH_HOLE`): of 16 parts, at least 15 are kept. Where the file system can't do
//! that, what comes after the limit is not stored instead.
//!
//! ```text
//!  output   ░░░░░░░░░░░░░░░░░░░│████████████████████████████│▓▓▓▓▓
//!                    freed     kept.offset                  end  what comes next
//!  index    H K ░░░░░░░░░░░░░░░│████████████████████████████│
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use jobworker_limits::OutputLimit;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc::off_t;

use super::clock;
use super::record::JobFolder;
use crate::job::folder;
use crate::output::index::{HEADER, KEPT_AT, Kept, Kind, RECORD_BYTES, Record, Version};

/// The layout that is written here.
const LAYOUT: Version = Version::V2;

/// The size of a page, and of most file systems' blocks, in bytes. A hole in whole ones is no write of zeros.
const BLOCK_BYTES: u64 = 4096;

/// Space in the index that only gap records may use, in bytes: 170 records of up to 4 GiB each.
const RESERVE_BYTES: u64 = 4 << 10;

/// As much space is set aside in the index at a time, in bytes: a call per 682 records.
const ROOM_BYTES: u64 = 16 << 10;

/// The two files, and how far they are filled.
pub(super) struct Log {
    output: File,
    index: File,
    limit_bytes: u64,
    /// Where the next byte will stand.
    output_end: u64,
    /// The number of the next record.
    records: u64,
    /// How far the index has its space on the disk.
    room_end: u64,
    /// Lost bytes that no gap record tells of yet, in front of `output_end`.
    gap_bytes: u64,
    lost_bytes: u64,
    kept: Kept,
    /// What takes up no space any more: `kept`, unless a hole could not be made.
    freed: Kept,
    can_punch: bool,
}

/// What became of a job's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    /// All that the job wrote.
    pub bytes: u64,
    /// What of it could not be stored.
    pub lost_bytes: u64,
}

impl Log {
    /// Of which all is kept, until [`Self::limit`].
    ///
    /// # Errors
    /// When the files can't be created.
    pub(super) fn create(folder: &JobFolder) -> io::Result<Self> {
        let output = folder.file(folder::OUTPUT)?;
        let index = folder.file(folder::INDEX)?;
        index.write_all_at(&[HEADER, Kept::default().encode()].concat(), 0)?;
        // Tried where nothing is yet: a file system that can't says so all the same.
        let can_punch = punch(&output, 0, BLOCK_BYTES).is_ok();
        let mut log = Self {
            output,
            index,
            limit_bytes: u64::MAX,
            output_end: 0,
            records: 0,
            room_end: 0,
            gap_bytes: 0,
            lost_bytes: 0,
            kept: Kept::default(),
            freed: Kept::default(),
            can_punch,
        };
        log.set_aside()?;
        Ok(log)
    }

    /// Keeps so much from now on.
    pub(super) fn limit(&mut self, limit: OutputLimit) {
        self.limit_bytes = limit.bytes();
    }

    /// Takes what a job wrote. At most a pipe's worth, so that its length fits a record.
    pub(super) fn append(&mut self, kind: Kind, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a read is at most the buffer's 64 KiB");
        let stored = self.stay_within_limit(bytes.len() as u64)
            && self.set_aside().is_ok()
            && self.output.write_all_at(bytes, self.output_end).is_ok()
            && self.record_gap();
        let record = Record { offset: self.output_end, time_unix_usec: clock::unix_usec(), length, kind };
        if !(stored && self.write_record(record)) {
            self.gap_bytes += u64::from(length);
            self.lost_bytes += u64::from(length);
        }
        self.output_end += u64::from(length);
    }

    /// Records the gap at the end, and makes both files as long as what was written to them. Whether that is done; else
    /// it can be asked again.
    pub(super) fn close(&mut self) -> bool {
        self.record_gap()
            && end_at(&self.output, self.output_end).is_ok()
            && end_at(&self.index, LAYOUT.record_at(self.records)).is_ok()
    }

    /// Gives back the space that was set aside, of which nobody has to hear. As well as the disk lets it.
    pub(super) fn give_back_rest(&self) {
        let _ = self.index.set_len(LAYOUT.record_at(self.records));
    }

    pub(super) fn sums(&self) -> Sums {
        Sums { bytes: self.output_end, lost_bytes: self.lost_bytes }
    }

    /// Space for a gap record and another, and the reserve behind them.
    fn set_aside(&mut self) -> io::Result<()> {
        while LAYOUT.record_at(self.records + 2) + RESERVE_BYTES > self.room_end {
            let keep_size = FallocateFlags::FALLOC_FL_KEEP_SIZE;
            match fallocate(&self.index, keep_size, file_offset(self.room_end)?, file_offset(ROOM_BYTES)?) {
                // This file system can't set space aside: then a gap is told when there is some.
                Ok(()) | Err(Errno::EOPNOTSUPP) => self.room_end += ROOM_BYTES,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
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
        let written = self.index.write_all_at(&record.encode(), LAYOUT.record_at(self.records)).is_ok();
        self.records += u64::from(written);
        written
    }

    /// Whether so many bytes more stay within the limit, if need be because older ones have gone.
    fn stay_within_limit(&mut self, bytes: u64) -> bool {
        let allowed_bytes = self.limit_bytes.saturating_sub(bytes + RECORD_BYTES as u64);
        if self.used_bytes(self.freed) <= allowed_bytes {
            return true;
        }
        self.can_punch && self.give_back(allowed_bytes - self.limit_bytes / 16).is_ok()
    }

    /// What both files take up when everything before that is gone. Lost bytes count like others.
    fn used_bytes(&self, from: Kept) -> u64 {
        self.output_end - from.offset + (self.records - from.record) * RECORD_BYTES as u64
    }

    /// Readers are told before anything is gone: who has read bytes and looks afterwards knows whether they were real.
    fn give_back(&mut self, allowed_bytes: u64) -> io::Result<()> {
        let kept = self.first_within(allowed_bytes)?;
        self.index.write_all_at(&kept.encode(), KEPT_AT)?;
        self.kept = kept;
        let whole = |bytes: u64| bytes / BLOCK_BYTES * BLOCK_BYTES;
        let (from, to) = (whole(self.freed.offset), whole(kept.offset));
        punch(&self.output, from, to)?;
        // The first block holds the header.
        let block = |record: u64| whole(LAYOUT.record_at(record)).max(BLOCK_BYTES);
        punch(&self.index, block(self.freed.record), block(kept.record))?;
        self.freed = kept;
        Ok(())
    }

    /// The first record from which on no more than so many bytes are used.
    fn first_within(&self, allowed_bytes: u64) -> io::Result<Kept> {
        let (mut low, mut high) = (self.kept.record, self.records);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.used_bytes(self.kept_from(middle)?) <= allowed_bytes {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        self.kept_from(low)
    }

    fn kept_from(&self, record: u64) -> io::Result<Kept> {
        if record == self.records {
            // The next one will begin where the gap does that is not recorded yet.
            return Ok(Kept { record, offset: self.output_end - self.gap_bytes });
        }
        let mut bytes = [0; RECORD_BYTES];
        self.index.read_exact_at(&mut bytes, LAYOUT.record_at(record))?;
        let offset = Record::decode(&bytes).map_err(io::Error::other)?.offset;
        Ok(Kept { record, offset })
    }
}

/// Gives the blocks between two offsets back. The file's length stays, and what is read there is zeros.
fn punch(file: &File, from: u64, to: u64) -> io::Result<()> {
    if from >= to {
        return Ok(());
    }
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, hole, file_offset(from)?, file_offset(to - from)?)?)
}

/// Nothing is asked of the file system where nothing is wrong.
fn end_at(file: &File, length: u64) -> io::Result<()> {
    if file.metadata()?.len() == length { Ok(()) } else { file.set_len(length) }
}

fn file_offset(bytes: u64) -> io::Result<off_t> {
    off_t::try_from(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
