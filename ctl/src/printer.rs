//! Writes a job's output to stdout and stderr: the bytes as they are, or with the time in front of each line. Counts what
//! was written, so that a write that took only a part is continued at the right byte.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use anyhow::Context;
use jiff::tz::TimeZone;
use jobworker_proto::v1::stream_response::Event;
use jobworker_proto::v1::{Chunk, Gap, GapReason, OutputStream};

use crate::render::words;
use crate::stdio::{self, Patient};

/// Small chunks are gathered up to this; a larger one is written without a copy.
const BUFFER_BYTES: usize = 64 << 10;

/// The two streams, and whether their lines are stamped.
pub(crate) struct Printer<W: Write> {
    stdout: Sink<W>,
    stderr: Sink<W>,
    /// The time zone to show times in; none: bytes as they are.
    stamps: Option<TimeZone>,
    progress: Arc<Progress>,
}

/// How far the output is written.
#[derive(Debug)]
pub(crate) struct Progress {
    offset: AtomicU64,
    /// Locked while something is being written.
    turn: Mutex<()>,
}

/// How long a write that is under way is waited for before jobctl leaves: nobody may read what it writes.
const LAST_WRITE: Duration = Duration::from_millis(200);

impl Progress {
    /// No offset of any output.
    const UNKNOWN: u64 = u64::MAX;

    fn new() -> Self {
        Self { offset: AtomicU64::new(Self::UNKNOWN), turn: Mutex::default() }
    }

    /// Lets nothing more be written, and returns the offset of the first byte that was not. Where a write does not come to
    /// its end it is that write's first byte: what it wrote comes again then, and none is lost.
    pub(crate) async fn stop(&self) -> Option<u64> {
        let stopping = async {
            loop {
                match self.turn.try_lock() {
                    Ok(turn) => return std::mem::forget(turn),
                    // A writer that has panicked writes nothing more.
                    Err(TryLockError::Poisoned(_)) => return,
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        };
        // Else it is blocked, and stays so.
        let _ = tokio::time::timeout(LAST_WRITE, stopping).await;
        self.resume_at()
    }

    /// The offset of the first byte that was not written; `None` before anything is known of the output.
    pub(crate) fn resume_at(&self) -> Option<u64> {
        Some(self.offset.load(Ordering::Relaxed)).filter(|offset| *offset != Self::UNKNOWN)
    }

    /// The output begins at `offset`, unless some of it is known already.
    pub(crate) fn begins_at(&self, offset: u64) {
        let _ = self.offset.compare_exchange(Self::UNKNOWN, offset, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn reached(&self, offset: u64) {
        self.offset.store(offset, Ordering::Relaxed);
    }
}

struct Sink<W: Write> {
    out: W,
    buffer: Vec<u8>,
    /// What the bytes in `buffer` are, in order.
    pieces: VecDeque<Piece>,
    at_line_start: bool,
}

/// Bytes that are to be written.
#[derive(Clone, Copy)]
struct Piece {
    len: usize,
    meaning: Meaning,
}

/// What bytes are about.
#[derive(Clone, Copy)]
enum Meaning {
    /// The job's output from this offset on.
    Output { from: u64 },
    /// The time in front of a line.
    Stamp,
    /// A note on a gap; behind it the output goes on at this offset.
    Gap { to: u64 },
}

impl Printer<Patient<File>> {
    /// The process's own stdout and stderr.
    pub(crate) fn new(timestamps: bool) -> anyhow::Result<Self> {
        let own = "cannot use stdout and stderr";
        let (stdout, stderr) = (stdio::stdout().context(own)?, stdio::stderr().context(own)?);
        Ok(Self::writing_to(stdout, stderr, timestamps.then(words::local_zone)))
    }
}

impl<W: Write> Printer<W> {
    fn writing_to(stdout: W, stderr: W, stamps: Option<TimeZone>) -> Self {
        let progress = Arc::new(Progress::new());
        Self { stdout: Sink::new(stdout), stderr: Sink::new(stderr), stamps, progress }
    }

    /// How far it has written, also while it writes.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Writes `events` in order, and to the end: nothing stays in a buffer.
    ///
    /// # Errors
    /// Of write(2). What was written before it is counted.
    pub(crate) fn print(&mut self, events: &[Event]) -> io::Result<()> {
        let progress = Arc::clone(&self.progress);
        let _turn = progress.turn.lock();
        for event in events {
            match event {
                Event::Chunk(chunk) => self.print_chunk(chunk)?,
                Event::Gap(gap) => self.print_gap(gap)?,
                Event::End(_) => {}
            }
        }
        self.stdout.flush(&self.progress)?;
        self.stderr.flush(&self.progress)
    }

    fn print_chunk(&mut self, chunk: &Chunk) -> io::Result<()> {
        // What came first is shown first where both go to one terminal or file; and only so is there one offset to go on at.
        let (sink, other) = match chunk.stream() {
            OutputStream::Stderr => (&mut self.stderr, &mut self.stdout),
            OutputStream::Stdout | OutputStream::Unspecified => (&mut self.stdout, &mut self.stderr),
        };
        other.flush(&self.progress)?;
        match &self.stamps {
            Some(zone) => {
                let stamp = words::timestamp(chunk.time_unix_usec, zone);
                sink.put_stamped(&chunk.data, chunk.offset, &stamp, &self.progress)
            }
            None => sink.put(&chunk.data, Meaning::Output { from: chunk.offset }, &self.progress),
        }
    }

    fn print_gap(&mut self, gap: &Gap) -> io::Result<()> {
        self.stdout.flush(&self.progress)?;
        let newline = if self.stderr.at_line_start { "" } else { "\n" };
        let why = match gap.reason() {
            GapReason::NotStored => "could not be stored",
            GapReason::NoLongerKept | GapReason::Unspecified => "no longer kept",
        };
        let note = format!("{newline}[… {} {why} …]\n", words::bytes_decimal(gap.length));
        let meaning = Meaning::Gap { to: gap.offset.saturating_add(gap.length) };
        self.stderr.put(note.as_bytes(), meaning, &self.progress)
    }
}

impl<W: Write> Sink<W> {
    fn new(out: W) -> Self {
        let (buffer, pieces) = (Vec::with_capacity(BUFFER_BYTES), VecDeque::new());
        Self { out, buffer, pieces, at_line_start: true }
    }

    fn put(&mut self, data: &[u8], meaning: Meaning, progress: &Progress) -> io::Result<()> {
        let Some(last) = data.last() else { return Ok(()) };
        self.at_line_start = *last == b'\n';
        if self.buffer.len() + data.len() > BUFFER_BYTES {
            self.flush(progress)?;
        }
        let piece = Piece { len: data.len(), meaning };
        if data.len() >= BUFFER_BYTES {
            return write_all(&mut self.out, data, &mut VecDeque::from([piece]), progress);
        }
        self.buffer.extend_from_slice(data);
        self.pieces.push_back(piece);
        Ok(())
    }

    fn put_stamped(&mut self, data: &[u8], offset: u64, stamp: &str, progress: &Progress) -> io::Result<()> {
        let mut from = offset;
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            if self.at_line_start {
                self.put(format!("{stamp} ").as_bytes(), Meaning::Stamp, progress)?;
            }
            self.put(line, Meaning::Output { from }, progress)?;
            from = from.saturating_add(line.len() as u64);
        }
        Ok(())
    }

    fn flush(&mut self, progress: &Progress) -> io::Result<()> {
        let written = write_all(&mut self.out, &self.buffer, &mut self.pieces, progress);
        self.buffer.clear();
        self.pieces.clear();
        written
    }
}

/// Writes `data`, which `pieces` tells of, and counts each write by itself: of one that fails a part may have been written.
fn write_all(
    out: &mut impl Write,
    mut data: &[u8],
    pieces: &mut VecDeque<Piece>,
    progress: &Progress,
) -> io::Result<()> {
    while !data.is_empty() {
        match out.write(data)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                count(written, pieces, progress);
                data = &data[written..];
            }
        }
    }
    Ok(())
}

/// Takes `written` bytes off `pieces`.
fn count(mut written: usize, pieces: &mut VecDeque<Piece>, progress: &Progress) {
    while let Some(piece) = pieces.front_mut().filter(|_| written > 0) {
        let part = written.min(piece.len);
        written -= part;
        piece.len -= part;
        let is_done = piece.len == 0;
        match &mut piece.meaning {
            Meaning::Output { from } => {
                *from = from.saturating_add(part as u64);
                progress.reached(*from);
            }
            Meaning::Gap { to } if is_done => progress.reached(*to),
            Meaning::Gap { .. } | Meaning::Stamp => {}
        }
        if is_done {
            pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutputStream::{Stderr, Stdout};

    fn chunk(stream: OutputStream, time_unix_usec: u64, data: &'static [u8]) -> Event {
        Event::Chunk(Chunk { offset: 0, stream: stream.into(), time_unix_usec, data: data.into() })
    }

    /// Prints each batch and returns what arrived at stdout and at stderr.
    fn print(stamps: bool, batches: &[&[Event]]) -> (String, String) {
        let mut printer = Printer::writing_to(Vec::new(), Vec::new(), stamps.then_some(TimeZone::UTC));
        for batch in batches {
            printer.print(batch).expect("a Vec takes everything");
            assert!(printer.stdout.buffer.is_empty() && printer.stderr.buffer.is_empty());
        }
        let text = |sink: Sink<Vec<u8>>| String::from_utf8(sink.out).expect("UTF-8");
        (text(printer.stdout), text(printer.stderr))
    }

    #[test]
    fn the_streams_stay_apart() {
        let (stdout, stderr) =
            print(false, &[&[chunk(Stdout, 0, b"a"), chunk(Stderr, 0, b"b"), chunk(Stdout, 0, b"c\n")]]);
        assert_eq!((stdout.as_str(), stderr.as_str()), ("ac\n", "b"));
    }

    #[test]
    fn a_line_cut_by_chunks_and_by_the_other_stream_has_one_stamp() {
        let (stdout, stderr) = print(
            true,
            &[
                &[chunk(Stdout, 0, b"one\ntw"), chunk(Stderr, 1_000_000, b"oops\n")],
                &[chunk(Stdout, 2_000_000, b"o\n\nfour")],
                &[chunk(Stdout, 3_000_000, b"")],
                &[chunk(Stdout, 4_000_000, b"\n"), chunk(Stdout, 5_500_000, b"five")],
            ],
        );
        let stamp = |seconds: &str| format!("1970-01-01T00:00:{seconds}+00:00");
        let (zero, two, five) = (stamp("00.000000"), stamp("02.000000"), stamp("05.500000"));
        assert_eq!(stdout, format!("{zero} one\n{zero} two\n{two} \n{two} four\n{five} five"));
        assert_eq!(stderr, format!("{} oops\n", stamp("01.000000")));
    }

    #[test]
    fn a_gap_is_told_on_a_line_of_its_own() {
        let gap = Event::Gap(Gap { offset: 0, length: 12_345_678, reason: GapReason::NoLongerKept.into() });
        let (stdout, stderr) = print(false, &[&[chunk(Stdout, 0, b"a"), chunk(Stderr, 0, b"b"), gap]]);
        assert_eq!((stdout.as_str(), stderr.as_str()), ("a", "b\n[… 12.3 MB no longer kept …]\n"));
    }

    /// Takes so many bytes, a few with each write, and no more.
    struct Tight(usize);

    impl Write for Tight {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let taken = data.len().min(self.0).min(7);
            self.0 -= taken;
            if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn at(offset: u64, stream: OutputStream, data: &'static [u8]) -> Event {
        Event::Chunk(Chunk { offset, stream: stream.into(), time_unix_usec: 0, data: data.into() })
    }

    /// Where it would go on after a stdout and a stderr that take so many bytes.
    fn resume_at(stamps: bool, (stdout, stderr): (usize, usize), events: &[Event]) -> Option<u64> {
        let zone = stamps.then_some(TimeZone::UTC);
        let mut printer = Printer::writing_to(Tight(stdout), Tight(stderr), zone);
        printer.progress.begins_at(100);
        printer.print(events).expect_err("not all of it is taken");
        printer.progress.resume_at()
    }

    #[test]
    fn the_first_byte_that_was_not_written_is_known() {
        let both = [at(100, Stdout, b"0123456789"), at(110, Stderr, b"abc"), at(113, Stdout, b"xyz")];
        for (takes, offset) in [((0, 9), 100), ((8, 9), 108), ((10, 0), 110), ((10, 2), 112), ((11, 9), 114)]
        {
            assert_eq!(resume_at(false, takes, &both), Some(offset), "{takes:?}");
        }
        let large = [at(100, Stdout, b"01"), at(102, Stdout, &[b'x'; 200_000])];
        for taken in [0, 1, 2, 3, 66_000, 150_001] {
            assert_eq!(resume_at(false, (taken, 0), &large), Some(100 + taken as u64));
        }
    }

    #[test]
    fn neither_a_stamp_nor_half_a_note_is_output() {
        let stamp = "1970-01-01T00:00:00.000000+00:00 ".len();
        let lines = [at(100, Stdout, b"one\ntwo\n")];
        for (takes, offset) in [(stamp, 100), (stamp + 1, 101), (stamp + 6, 104), (2 * stamp + 5, 105)] {
            assert_eq!(resume_at(true, (takes, 0), &lines), Some(offset), "{takes}");
        }
        let gap = Event::Gap(Gap { offset: 100, length: 5_000, reason: GapReason::NoLongerKept.into() });
        let events = [gap, at(5_100, Stderr, b"abc")];
        let note = "[… 5 kB no longer kept …]\n".len();
        for (takes, offset) in [(0, 100), (note - 1, 100), (note, 5_100), (note + 2, 5_102)] {
            assert_eq!(resume_at(false, (0, takes), &events), Some(offset), "{takes}");
        }
    }
}
