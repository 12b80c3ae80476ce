//! A cursor over a job's output as far as it is there: by the index, in pieces.

use std::collections::VecDeque;
use std::sync::Arc;

use super::buffer::{Buffer, Shelf};
use super::index::{Kept, Kind, Record};
use super::records::{Batch, Files, OutputError};
use super::seek::{From, Lower, Place, seek};
use crate::job::folder::Folder;

/// Records per look at the index: 96 KiB of it.
const BATCH_RECORDS: u64 = 4096;

/// The longest piece, in bytes: as large as pays on the wire.
const PIECE_BYTES: u32 = 256 << 10;

/// What is delivered as one piece arrived within this time, in microseconds: a piece has one time only.
const PIECE_USEC: u64 = 10_000;

/// Reads forward, from where it was asked to begin. Holds a batch of records while it has some to deliver.
pub(super) struct Reader {
    files: Files,
    only: Option<Kind>,
    lower: Lower,
    /// The number of the first record that is not read any more.
    limit: u64,
    /// The number of the record after [`Self::records`].
    next: u64,
    /// The offset at which that one begins; before the first was read, where to begin to tell of gaps.
    next_offset: u64,
    /// Read from the index and wanted.
    records: VecDeque<Record>,
    /// Taken from the records, not yet delivered.
    run: Option<Record>,
    /// Found to be given back, not yet delivered.
    given_back: Option<Gap>,
    /// While there is something to read.
    shelf: Option<Arc<Shelf>>,
}

/// A piece of output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A run of bytes of one stream. The record tells of just these bytes.
    Bytes(Record, Buffer),
    /// Bytes that are not to be had.
    Gap(Gap),
}

/// Bytes that are not to be had, of whichever stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The absolute offset of the first one.
    pub offset: u64,
    /// How many.
    pub length: u64,
    /// Why not.
    pub reason: GapReason,
}

/// Why bytes are not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The disk did not take them.
    NotStored,
    /// They were given back, because the output had grown past its limit.
    NoLongerKept,
}

impl Reader {
    /// Opens the files and finds the place; `None` while there is no index yet. May block. `only_now`: what arrives
    /// from now on is not read.
    ///
    /// # Errors
    /// When the files can't be read.
    pub(super) fn open(
        folder: &Folder,
        from: From,
        only: Option<Kind>,
        only_now: bool,
    ) -> Result<Option<Self>, OutputError> {
        let Some(files) = Files::open(folder)? else { return Ok(None) };
        let limit = if only_now { files.record_count()? } else { u64::MAX };
        let Place { lower, record, offset } = seek(&files, from, only)?;
        let mut reader = Self {
            files,
            only,
            lower,
            limit,
            next: record,
            next_offset: offset,
            records: VecDeque::new(),
            run: None,
            given_back: None,
            shelf: None,
        };
        reader.pass_over_given_back(reader.files.kept_blocking()?);
        Ok(Some(reader))
    }

    /// The next piece; `None` when there is nothing more for now. Cancel safe.
    ///
    /// # Errors
    /// When the files can't be read.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, OutputError> {
        loop {
            if let Some(gap) = self.given_back.take() {
                return Ok(Some(Piece::Gap(gap)));
            }
            let Some(run) = self.next_run().await? else {
                if self.given_back.is_some() {
                    continue;
                }
                self.shelf = None;
                return Ok(None);
            };
            if run.kind == Kind::Gap {
                self.run = None;
                return Ok(Some(Piece::Gap(run.as_gap())));
            }
            let shelf = self.shelf.get_or_insert_with(|| Shelf::new(PIECE_BYTES as usize));
            let bytes = self.files.bytes(run.offset, shelf.take(run.length as usize)).await?;
            // Looked at afterwards: what was given back before the read, or during it, is not what the job wrote.
            if self.pass_over_given_back(self.files.kept().await?) {
                continue;
            }
            let length = u32::try_from(bytes.len()).expect("no longer than was asked for");
            // A host that crashed may have kept the record and not the bytes.
            let missing = Record { kind: Kind::Gap, ..run.behind(length) };
            self.run = (missing.length > 0).then_some(missing);
            if length > 0 {
                return Ok(Some(Piece::Bytes(Record { length, ..run }, bytes)));
            }
        }
    }

    /// What is missing at the very end of a job that wrote so many bytes: a disk that took neither them nor a record of
    /// the gap may have taken the outcome.
    pub(super) fn rest(&mut self, output_bytes: u64) -> Option<Gap> {
        let offset = self.position();
        let length = output_bytes.checked_sub(offset).filter(|length| *length > 0)?;
        self.next_offset = output_bytes;
        Some(Gap { offset, length, reason: GapReason::NotStored })
    }

    /// Where the reader begins, before anything was read.
    pub(super) fn begins_at(&self) -> u64 {
        self.given_back.map_or_else(|| self.position(), |gap| gap.offset)
    }

    /// Where the next piece begins, as far as that is known.
    fn position(&self) -> u64 {
        if let Some(record) = self.run.as_ref().or(self.records.front()) {
            return record.offset;
        }
        match self.lower {
            Lower::Offset(offset) => self.next_offset.max(offset),
            Lower::Time(_) => self.next_offset,
        }
    }

    /// Goes on behind what is no longer there, if anything that was still to be read is not, and remembers the gap.
    fn pass_over_given_back(&mut self, kept: Kept) -> bool {
        let position = self.position();
        if position >= kept.offset {
            return false;
        }
        let behind = |record: Record| record.from(kept.offset);
        self.run = self.run.and_then(behind);
        self.records = self.records.drain(..).filter_map(behind).collect();
        if self.next < kept.record {
            (self.next, self.next_offset) = (kept.record, kept.offset);
        }
        self.next_offset = self.next_offset.max(kept.offset);
        self.lower = Lower::Offset(kept.offset);
        let length = kept.offset - position;
        self.given_back = Some(Gap { offset: position, length, reason: GapReason::NoLongerKept });
        true
    }

    /// What to deliver next: a run of bytes of one stream, at most a piece of them, or a gap.
    async fn next_run(&mut self) -> Result<Option<Record>, OutputError> {
        if self.run.is_none() {
            while self.records.is_empty() {
                if !self.refill().await? {
                    return Ok(None);
                }
            }
            self.run = self.take_run();
        }
        Ok(self.run)
    }

    /// Reads the next batch of records and keeps the wanted ones. Whether there were any.
    async fn refill(&mut self) -> Result<bool, OutputError> {
        // Whoever wants few of many records must let others have their turn.
        tokio::task::consume_budget().await;
        let end = self.files.record_count()?.min(self.limit);
        let count =
            usize::try_from(end.saturating_sub(self.next).min(BATCH_RECORDS)).expect("at most a batch");
        if count == 0 {
            self.records = VecDeque::new();
            return Ok(false);
        }
        let batch = match self.files.records(self.next, count).await? {
            Batch::Records(batch) => batch,
            Batch::GivenBack(kept) => {
                self.pass_over_given_back(kept);
                return Ok(false);
            }
        };
        self.next += batch.len() as u64;
        self.next_offset = batch.last().map_or(self.next_offset, Record::end);
        let is_any = !batch.is_empty();
        for record in batch {
            if let Some(record) = self.admit(record) {
                self.records.push_back(record);
            }
        }
        Ok(is_any)
    }

    /// The part of a record that is wanted.
    fn admit(&mut self, record: Record) -> Option<Record> {
        if !self.lower.is_reached_by(&record) {
            return None;
        }
        let begin = match self.lower {
            Lower::Offset(offset) => offset.max(record.offset),
            Lower::Time(_) => record.offset,
        };
        // Clocks step; offsets don't.
        self.lower = Lower::Offset(begin);
        let wanted = record.kind == Kind::Gap || self.only.is_none_or(|only| only == record.kind);
        wanted.then(|| record.behind(u32::try_from(begin - record.offset).expect("within the record")))
    }

    /// Takes records from the front that make one piece.
    fn take_run(&mut self) -> Option<Record> {
        let mut run = self.records.pop_front()?;
        if run.kind == Kind::Gap {
            return Some(run);
        }
        if run.length > PIECE_BYTES {
            self.records.push_front(run.behind(PIECE_BYTES));
            return Some(Record { length: PIECE_BYTES, ..run });
        }
        let begun_unix_usec = run.time_unix_usec;
        while let Some(next) = self.records.front() {
            let adjoins = next.kind == run.kind && next.offset == run.end();
            let is_late = next.time_unix_usec.abs_diff(begun_unix_usec) > PIECE_USEC;
            if !adjoins || is_late || next.length > PIECE_BYTES - run.length {
                break;
            }
            run.length += next.length;
            run.time_unix_usec = next.time_unix_usec;
            self.records.pop_front();
        }
        Some(run)
    }
}

impl Record {
    /// What is left of it behind its first bytes.
    fn behind(self, bytes: u32) -> Self {
        Self { offset: self.offset + u64::from(bytes), length: self.length - bytes, ..self }
    }

    /// What is left of it from an offset on, if anything is.
    fn from(self, offset: u64) -> Option<Self> {
        let before = offset.saturating_sub(self.offset).min(u64::from(self.length));
        let rest = self.behind(u32::try_from(before).expect("at most its length"));
        (rest.length > 0).then_some(rest)
    }

    fn as_gap(&self) -> Gap {
        Gap { offset: self.offset, length: u64::from(self.length), reason: GapReason::NotStored }
    }
}
