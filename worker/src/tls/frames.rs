//! The HTTP/2 frames that a client sends, counted by their headers (RFC 9113, 4.1): those that cost it nothing and us
//! something, and ask for no call, have a budget. A client that goes on has its connection closed. Pure.
//!
//! ```text
//!  length   type   flags   stream
//!  u24      u8     u8      u32 without its first bit
//! ```
//!
//! No budget is near what clients use: they answer each of our PINGs and SETTINGS once, and give room for bytes
//! (WINDOW_UPDATE) at most about as often as bytes came, so what we write adds to that budget.

use std::time::{Duration, Instant};

/// A frame's header, in bytes.
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

/// Flags: of a PING or SETTINGS that answers ours, of the last DATA of a request.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;

/// How many bytes that we write allow for one more frame.
const WRITTEN_BYTES_PER_FRAME: usize = 1 << 10;

/// What there is a budget of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abuse {
    /// Answers to a PING that we did not send.
    PingAcks,
    /// SETTINGS, and answers to ours.
    Settings,
    /// PING, RST_STREAM, PRIORITY, WINDOW_UPDATE, CONTINUATION, DATA without data, and what there is not.
    Others,
}

impl Abuse {
    /// For people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::PingAcks => "answers to pings that nobody sent",
            Self::Settings => "changes of settings",
            Self::Others => {
                "frames that carry nothing (PING, RST_STREAM, PRIORITY, WINDOW_UPDATE, empty DATA, …)"
            }
        }
    }

    fn rate(self) -> Rate {
        match self {
            Self::PingAcks => Rate { burst: 100, per_sec: 1 },
            Self::Settings => Rate { burst: 100, per_sec: 10 },
            Self::Others => Rate { burst: 10_000, per_sec: 1_000 },
        }
    }
}

/// How many there may be at once, and how many more each second.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    per_sec: u32,
}

/// What is left of a budget.
#[derive(Debug)]
struct Budget {
    rate: Rate,
    left: u32,
    refilled: Instant,
}

impl Budget {
    fn new(of: Abuse, now: Instant) -> Self {
        let rate = of.rate();
        Self { rate, left: rate.burst, refilled: now }
    }

    fn add(&mut self, frames: u32) {
        self.left = self.left.saturating_add(frames).min(self.rate.burst);
    }

    /// False if there is nothing left. The clock is asked only then.
    fn spend(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.left == 0 {
            let each = Duration::from_secs(1) / self.rate.per_sec;
            let now = now();
            let frames = now.saturating_duration_since(self.refilled).as_nanos() / each.as_nanos();
            self.refilled = self.refilled.max(now);
            self.add(u32::try_from(frames).unwrap_or(u32::MAX));
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

/// Where in its frames a client's side of the connection is, behind the preface.
#[derive(Debug)]
pub(super) struct Frames {
    header: [u8; HEADER_BYTES],
    /// How much of the header has come.
    header_bytes: usize,
    /// How much of the payload behind it has not.
    left_bytes: usize,
    /// Bytes that we wrote and that have not become frames to spend.
    written_bytes: usize,
    ping_acks: Budget,
    settings: Budget,
    others: Budget,
}

impl Frames {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            left_bytes: 0,
            written_bytes: 0,
            ping_acks: Budget::new(Abuse::PingAcks, now),
            settings: Budget::new(Abuse::Settings, now),
            others: Budget::new(Abuse::Others, now),
        }
    }

    /// So many bytes went to the client.
    pub(super) fn written(&mut self, bytes: usize) {
        self.written_bytes += bytes;
        if self.written_bytes >= WRITTEN_BYTES_PER_FRAME {
            let frames = self.written_bytes / WRITTEN_BYTES_PER_FRAME;
            self.written_bytes %= WRITTEN_BYTES_PER_FRAME;
            self.others.add(u32::try_from(frames).unwrap_or(u32::MAX));
        }
    }

    /// Passes over bytes that came from the client.
    ///
    /// # Errors
    /// When a budget is used up.
    pub(super) fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Abuse> {
        while !bytes.is_empty() {
            if self.left_bytes > 0 {
                let passed = self.left_bytes.min(bytes.len());
                self.left_bytes -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (HEADER_BYTES - self.header_bytes).min(bytes.len());
            self.header[self.header_bytes..][..taken].copy_from_slice(&bytes[..taken]);
            self.header_bytes += taken;
            bytes = &bytes[taken..];
            if self.header_bytes == HEADER_BYTES {
                self.header_bytes = 0;
                self.spend(&now)?;
            }
        }
        Ok(())
    }

    /// For the frame whose header is whole.
    fn spend(&mut self, now: impl Fn() -> Instant) -> Result<(), Abuse> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.left_bytes = u32::from_be_bytes([0, high, middle, low]) as usize;
        let (budget, abuse) = match kind {
            // A call, or a part of one.
            HEADERS => return Ok(()),
            DATA if self.left_bytes > 0 || flags & END_STREAM != 0 => return Ok(()),
            PING if flags & ACK != 0 => (&mut self.ping_acks, Abuse::PingAcks),
            SETTINGS => (&mut self.settings, Abuse::Settings),
            _ => (&mut self.others, Abuse::Others),
        };
        if budget.spend(now) { Ok(()) } else { Err(abuse) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [0, length @ ..] = u32::try_from(payload).unwrap().to_be_bytes() else { panic!() };
        [&length[..], &[kind, flags, 0, 0, 0, 1], &vec![0x06; payload]].concat()
    }

    /// How many of a frame are taken at one moment.
    fn taken(frames: &mut Frames, frame: &[u8], now: Instant, most: u32) -> u32 {
        let taken = (0..most).find(|_| frames.read(frame, || now).is_err()).unwrap_or(most);
        // As if the rest of the one that was refused had come.
        frames.left_bytes = 0;
        taken
    }

    #[test]
    fn each_kind_has_its_budget_and_calls_have_none() {
        let now = Instant::now();
        for (kind, flags, payload, expected) in [
            (PING, ACK, 8, 100),
            (SETTINGS, 0, 0, 100),
            (SETTINGS, ACK, 0, 100),
            (PING, 0, 8, 10_000),
            (2, 0, 5, 10_000),
            (3, 0, 4, 10_000),
            (8, 0, 4, 10_000),
            (9, 0, 0, 10_000),
            (200, 0, 1, 10_000),
            (DATA, 0, 0, 10_000),
            (DATA, 0, 1, 50_000),
            (DATA, END_STREAM, 0, 50_000),
            (HEADERS, 0, 3, 50_000),
        ] {
            let mut frames = Frames::new(now);
            let frame = frame(kind, flags, payload);
            assert_eq!(taken(&mut frames, &frame, now, 50_000), expected, "{kind} {flags} {payload}");
        }
    }

    #[test]
    fn time_and_bytes_that_are_written_allow_for_more() {
        let now = Instant::now();
        let (mut frames, ping) = (Frames::new(now), frame(PING, 0, 8));
        assert_eq!(taken(&mut frames, &ping, now, u32::MAX), 10_000);
        assert_eq!(taken(&mut frames, &ping, now + Duration::from_millis(500), u32::MAX), 500);
        frames.written(1023);
        assert_eq!(taken(&mut frames, &ping, now, u32::MAX), 0);
        frames.written(1);
        assert_eq!(taken(&mut frames, &ping, now, u32::MAX), 1);
        frames.written(1 << 30);
        assert_eq!(taken(&mut frames, &ping, now, u32::MAX), 10_000, "not without bound");
    }

    proptest! {
        /// Whatever pieces a client's bytes come in.
        #[test]
        fn pieces_make_no_difference(
            sent in prop::collection::vec((0..12u8, 0..2u8, 0..30usize), 0..300),
            piece in 1..64usize,
        ) {
            let now = Instant::now();
            let bytes: Vec<u8> = sent.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, *payload)).collect();
            let (mut whole, mut cut) = (Frames::new(now), Frames::new(now));
            let expected = whole.read(&bytes, || now);
            let found = bytes.chunks(piece).try_for_each(|piece| cut.read(piece, || now));
            prop_assert_eq!(found, expected);
            if expected.is_ok() {
                prop_assert_eq!((cut.others.left, cut.left_bytes), (whole.others.left, whole.left_bytes));
            }
        }
    }
}
