//! Where a reader begins.

use std::ops::Range;

use super::index::{Kind, Record};
use super::records::{Batch, Files, OutputError};

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

/// A place to begin.
#[derive(Debug)]
pub(super) struct Place {
    /// What a record must reach.
    pub(super) lower: Lower,
    /// The number of the first record that may.
    pub(super) record: u64,
    /// The offset from which on the reader wants to be told of everything.
    pub(super) offset: u64,
}

/// Finds the place. May block.
///
/// # Errors
/// When the output can't be read.
pub(super) fn seek(files: &Files, from: From, only: Option<Kind>) -> Result<Place, OutputError> {
    let records = files.kept_blocking()?.record..files.record_count()?;
    let lower = match from {
        From::Start => return Ok(Place { lower: Lower::Offset(0), record: 0, offset: 0 }),
        From::Offset(offset) => Lower::Offset(offset),
        From::Since { unix_usec } => Lower::Time(unix_usec),
        From::TailLines(lines) => Lower::Offset(tail(files, records.clone(), lines, only)?),
    };
    let record = partition_point(files, records, |record| !lower.is_reached_by(record))?;
    let offset = match lower {
        Lower::Offset(offset) => offset,
        Lower::Time(_) => offset_of(files, record)?,
    };
    Ok(Place { lower, record, offset })
}

/// The number of the first of `records` for which `before` does not hold.
fn partition_point(
    files: &Files,
    records: Range<u64>,
    before: impl Fn(&Record) -> bool,
) -> Result<u64, OutputError> {
    let Range { start: mut low, end: mut high } = records;
    while low < high {
        let middle = low + (high - low) / 2;
        match files.records_blocking(middle, 1)? {
            Batch::Records(one) if one.first().is_none_or(|record| !before(record)) => high = middle,
            // Given back meanwhile: it is before whatever can still be had.
            _ => low = middle + 1,
        }
    }
    Ok(low)
}

/// Where a record begins, or will begin: that may be the next one to be written.
fn offset_of(files: &Files, record: u64) -> Result<u64, OutputError> {
    match files.records_blocking(record, 1)? {
        Batch::GivenBack(kept) => Ok(kept.offset),
        Batch::Records(one) => one.first().map_or_else(|| end_of(files, record), |record| Ok(record.offset)),
    }
}

/// Where the record in front of the `number`th ends.
pub(super) fn end_of(files: &Files, number: u64) -> Result<u64, OutputError> {
    let Some(last) = number.checked_sub(1) else { return Ok(0) };
    match files.records_blocking(last, 1)? {
        Batch::GivenBack(kept) => Ok(kept.offset),
        Batch::Records(one) => Ok(one.first().map_or(0, Record::end)),
    }
}

/// The offset at which the last `lines` lines begin; where not so many are kept, the first that is.
fn tail(files: &Files, records: Range<u64>, lines: u64, only: Option<Kind>) -> Result<u64, OutputError> {
    if lines == 0 {
        return end_of(files, records.end);
    }
    let mut scan = LineScan { files, left: lines, is_last_byte: true };
    let mut run = 0..0;
    let mut high = records.end;
    while high > records.start {
        let low = high.saturating_sub(BATCH_RECORDS).max(records.start);
        let count = usize::try_from(high - low).expect("at most a batch");
        let Batch::Records(batch) = files.records_blocking(low, count)? else { break };
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
    let begin = scan.back(&run)?;
    begin.map_or_else(|| Ok(files.kept_blocking()?.offset), Ok)
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
