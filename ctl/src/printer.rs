//! Writes a job's output to stdout and stderr: the bytes as they are, or with the time in front of each line.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Context;
use jiff::tz::TimeZone;
use jobworker_proto::v1::stream_response::Event;
use jobworker_proto::v1::{Chunk, Gap, GapReason, OutputStream};

use crate::render::words;

/// Small chunks are gathered up to this; a larger one is written without a copy.
const BUFFER_BYTES: usize = 64 << 10;

/// The two streams, and whether their lines are stamped.
pub(crate) struct Printer<W: Write> {
    stdout: Sink<W>,
    stderr: Sink<W>,
    /// The time zone to show times in; none: bytes as they are.
    stamps: Option<TimeZone>,
}

struct Sink<W: Write> {
    out: BufWriter<W>,
    at_line_start: bool,
}

impl Printer<File> {
    /// The process's own stdout and stderr, without the standard library's line buffer.
    pub(crate) fn new(timestamps: bool) -> anyhow::Result<Self> {
        let own = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().context("cannot use stdout and stderr").map(File::from)
        };
        let (stdout, stderr) = (own(io::stdout().as_fd())?, own(io::stderr().as_fd())?);
        Ok(Self::writing_to(stdout, stderr, timestamps.then(words::local_zone)))
    }
}

impl<W: Write> Printer<W> {
    fn writing_to(stdout: W, stderr: W, stamps: Option<TimeZone>) -> Self {
        Self { stdout: Sink::new(stdout), stderr: Sink::new(stderr), stamps }
    }

    /// Writes `events` in order, and to the end: nothing stays in a buffer.
    pub(crate) fn print(&mut self, events: &[Event]) -> io::Result<()> {
        for event in events {
            match event {
                Event::Chunk(chunk) => self.print_chunk(chunk)?,
                Event::Gap(gap) => self.print_gap(gap)?,
                Event::End(_) => {}
            }
        }
        self.stdout.out.flush()?;
        self.stderr.out.flush()
    }

    fn print_chunk(&mut self, chunk: &Chunk) -> io::Result<()> {
        // What came first is shown first where both go to one terminal or file.
        let (sink, other) = match chunk.stream() {
            OutputStream::Stderr => (&mut self.stderr, &mut self.stdout),
            OutputStream::Stdout | OutputStream::Unspecified => (&mut self.stdout, &mut self.stderr),
        };
        other.out.flush()?;
        match &self.stamps {
            Some(zone) => sink.write_stamped(&chunk.data, &words::timestamp(chunk.time_unix_usec, zone)),
            None => sink.write(&chunk.data),
        }
    }

    fn print_gap(&mut self, gap: &Gap) -> io::Result<()> {
        self.stdout.out.flush()?;
        let newline = if self.stderr.at_line_start { "" } else { "\n" };
        let why = match gap.reason() {
            GapReason::NotStored => "could not be stored",
            GapReason::NoLongerKept | GapReason::Unspecified => "no longer kept",
        };
        let note = format!("{newline}[… {} {why} …]\n", words::bytes_decimal(gap.length));
        self.stderr.write(note.as_bytes())
    }
}

impl<W: Write> Sink<W> {
    fn new(out: W) -> Self {
        Self { out: BufWriter::with_capacity(BUFFER_BYTES, out), at_line_start: true }
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        if let Some(last) = data.last() {
            self.at_line_start = *last == b'\n';
        }
        self.out.write_all(data)
    }

    fn write_stamped(&mut self, data: &[u8], stamp: &str) -> io::Result<()> {
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            if self.at_line_start {
                write!(self.out, "{stamp} ")?;
            }
            self.write(line)?;
        }
        Ok(())
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
            assert!(printer.stdout.out.buffer().is_empty() && printer.stderr.out.buffer().is_empty());
        }
        let text =
            |sink: Sink<Vec<u8>>| String::from_utf8(sink.out.into_inner().expect("flushed")).expect("UTF-8");
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
}
