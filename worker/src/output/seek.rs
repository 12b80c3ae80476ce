//! Where a reader begins.

use std::ops::Range;

use super::index::{Kind, Record};
use super::records::{Files, OutputError};

/// Records per look at the index, when it is gone through backwards.
const BATCH_RECORDS: u64 = 4096;

/// Bytes of output per look, when lines are counted.
const BLOCK_BYTES: u64 = 64 << 10;

/// Where to begin in a job's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first byte.
    Start,
    /// At this absolute offset. Beyond the end: nothing comes until the output has grown past it.
    Offset(u64),
    /// At the last so many lines that are there now, of the chosen stream if one was chosen. A line without its
    /// newline at the very end counts as one; 0: only what comes from now on.
    TailLines(u64),
    /// At the first byte that arrived at or after this time.
    Since {
        /// In microseconds since the Unix epoch.
        unix_usec: u64,
    },
}

/// What a record must reach to be read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lower {
    /// Bytes from this offset on.
    Offset(u64),
    /// Bytes that arrived at or after this time.
    Time(u64),
}

impl Lower {
    /// Whether there is anything to read in a record.
    pub(super) fn is_reached_by(self, record: &Record) -> bool {
        match self {
            Self::Offset(offset) => record.end() > offset,
            Self::Time(unix_usec) => record.time_unix_usec >= unix_usec,
        }
    }
}

/// Finds the place: the bound, and the first record that may reach it. May block.
///
/// # Errors
/// When the output can't be read.
pub(super) fn seek(files: &Files, from: From, only: Option<Kind>) -> Result<(Lower, u64), OutputError> {
    let count = files.record_count()?;
    let lower = match from {
        From::Start => return Ok((Lower::Offset(0), 0)),
        From::Offset(offset) => Lower::Offset(offset),
        From::Since { unix_usec } => Lower::Time(unix_usec),
        From::TailLines(lines) => Lower::Offset(tail(files, count, lines, only)?),
    };
    Ok((lower, partition_point(files, count, |record| !lower.is_reached_by(record))?))
}

/// The number of the first of `count` records for which `before` does not hold.
fn partition_point(files: &Files, count: u64, before: impl Fn(&Record) -> bool) -> Result<u64, OutputError> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        match files.records_blocking(middle, 1)?.first() {
            Some(record) if before(record) => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The offset at which the last `lines` lines begin.
fn tail(files: &Files, count: u64, lines: u64, only: Option<Kind>) -> Result<u64, OutputError> {
    if lines == 0 {
        let last = files.records_blocking(count.saturating_sub(1), 1)?;
        return Ok(last.first().map_or(0, Record::end));
    }
    let mut scan = LineScan { files, left: lines, is_last_byte: true };
    let mut run = 0..0;
    let mut high = count;
    while high > 0 {
        let low = high.saturating_sub(BATCH_RECORDS);
        let batch = files.records_blocking(low, usize::try_from(high - low).expect("at most a batch"))?;
        high = low;
        for record in batch.iter().rev() {
            if record.kind == Kind::Gap || only.is_some_and(|only| only != record.kind) {
                continue;
            }
            if run.start == record.end() && run.end - record.offset <= BLOCK_BYTES {
                run.start = record.offset;
                continue;
            }
            if let Some(begin) = scan.back(&run)? {
                return Ok(begin);
            }
            run = record.offset..record.end();
        }
    }
    Ok(scan.back(&run)?.unwrap_or(0))
}

/// Counts lines from the end of the output towards its front.
struct LineScan<'a> {
    files: &'a Files,
    /// Lines still to be found.
    left: u64,
    /// The newline at the very end ends the last line; it does not begin another.
    is_last_byte: bool,
}

impl LineScan<'_> {
    /// Goes through `run`, which is in front of all that was looked at before. Returns where the first of the wanted
    /// lines begins, once it is found.
    fn back(&mut self, run: &Range<u64>) -> Result<Option<u64>, OutputError> {
        let mut end = run.end;
        while end > run.start {
            let from = run.start.max(end.saturating_sub(BLOCK_BYTES));
            let bytes =
                self.files.bytes_blocking(from, usize::try_from(end - from).expect("at most a block"))?;
            for (at, byte) in bytes.iter().enumerate().rev() {
                if *byte == b'\n' && !self.is_last_byte {
                    self.left -= 1;
                    if self.left == 0 {
                        return Ok(Some(from + at as u64 + 1));
                    }
                }
                self.is_last_byte = false;
            }
            end = from;
        }
        Ok(None)
    }
}
