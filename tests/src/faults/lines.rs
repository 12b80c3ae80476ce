//! What a job writes: numbered lines, the even ones to stdout, the odd ones to stderr, each with a checksum and of
//! its own length. All of it follows from the job's seed.

use super::random::mix;
use crate::api::OutputStream;

/// A line, with its newline.
pub fn line(seed: u64, number: u64) -> Vec<u8> {
    let sum = mix(seed ^ mix(number));
    let padding = usize::try_from(sum % 64).expect("less than 64");
    format!("{seed:016x} {number} {sum:016x} {:.<padding$}\n", "").into_bytes()
}

/// Where a line goes.
pub fn stream(number: u64) -> OutputStream {
    if number.is_multiple_of(2) { OutputStream::Stdout } else { OutputStream::Stderr }
}

/// Bytes of the first `lines` lines that go to a stream.
pub fn length(seed: u64, lines: u64, to: OutputStream) -> u64 {
    (0..lines).filter(|number| stream(*number) == to).map(|number| line_length(seed, number)).sum()
}

/// How many lines so many bytes of a stream are.
pub(super) fn lines_in(seed: u64, bytes: u64, of: OutputStream) -> u64 {
    let mut left = bytes;
    let numbers = (0..).filter(|number| stream(*number) == of);
    numbers.take_while(|number| take(&mut left, line_length(seed, *number))).count() as u64
}

/// Whether there is so much left to take.
fn take(left: &mut u64, bytes: u64) -> bool {
    left.checked_sub(bytes).map(|rest| *left = rest).is_some()
}

/// A line's length, its newline included.
fn line_length(seed: u64, number: u64) -> u64 {
    let digits = number.checked_ilog10().unwrap_or(0) + 1;
    // Two numbers of 16 digits, three blanks, a newline.
    36 + u64::from(digits) + mix(seed ^ mix(number)) % 64
}

/// A place in a stream.
#[derive(Clone, Debug)]
struct Place {
    seed: u64,
    number: u64,
    line: Vec<u8>,
    at: usize,
}

impl Place {
    fn new(seed: u64, number: u64) -> Self {
        Self { seed, number, line: line(seed, number), at: 0 }
    }

    /// Goes on by as many bytes as there are. Returns how many of them are not as they should be, in whole pieces of
    /// lines.
    fn pass(&mut self, mut data: &[u8]) -> u64 {
        let mut wrong = 0;
        while !data.is_empty() {
            if self.at == self.line.len() {
                *self = Self::new(self.seed, self.number + 2);
            }
            let length = data.len().min(self.line.len() - self.at);
            let (piece, rest) = data.split_at(length);
            if piece != &self.line[self.at..self.at + length] {
                wrong += length as u64;
            }
            self.at += length;
            data = rest;
        }
        wrong
    }

    /// Where bytes with a whole line among them stand: at most so many bytes further on. With how many that is.
    fn find_line(&self, data: &[u8], within: u64) -> Option<(Self, u64)> {
        let before = data.iter().position(|byte| *byte == b'\n')? + 1;
        let number: u64 = std::str::from_utf8(&data[before..]).ok()?.split(' ').nth(1)?.parse().ok()?;
        let passed =
            number.checked_sub(self.number).filter(|passed| passed.is_multiple_of(2) && *passed > 0)?;
        // From the front of this line to the front of that one, but no further than it can be.
        let behind = (self.at + before) as u64;
        let ahead = (0..passed).step_by(2).try_fold(0, |sum, line| {
            let sum = sum + line_length(self.seed, self.number + line);
            (sum <= behind + within).then_some(sum)
        })?;
        let ahead = ahead.checked_sub(behind)?;
        let mut found = Self::new(self.seed, number - 2);
        found.at = found.line.len().checked_sub(before)?;
        (found.clone().pass(data) == 0).then_some((found, ahead))
    }

    /// The first place at which any bytes can stand, at most so many bytes further on. With how many that is.
    fn find(&self, data: &[u8], within: u64) -> Option<(Self, u64)> {
        let length = usize::try_from(within).expect("a gap that fits into memory") + data.len();
        let mut expected = self.line[self.at..].to_vec();
        let mut number = self.number;
        while expected.len() < length {
            number += 2;
            expected.extend(line(self.seed, number));
        }
        let ahead = expected[..length].windows(data.len()).position(|window| window == data)?;
        let mut found = self.clone();
        found.pass(&expected[..ahead]);
        Some((found, ahead as u64))
    }
}

/// A stream's bytes in their order, to hold against what arrives.
#[derive(Debug)]
pub struct Expected {
    place: Place,
    /// How many bytes of the gaps so far may be missing here.
    gap_bytes: u64,
    /// How many were found to be.
    pub missing_bytes: u64,
    /// What came since the last gap, until it is clear where it stands: from the next whole line on.
    unplaced: Option<Vec<u8>>,
    /// How many bytes were held against it.
    pub seen_bytes: u64,
    /// How many of them stood in pieces of lines that are not as they should be.
    pub wrong_bytes: u64,
}

impl Expected {
    /// From the first byte on.
    pub fn new(seed: u64, of: OutputStream) -> Self {
        let place = Place::new(seed, u64::from(of == OutputStream::Stderr));
        Self { place, gap_bytes: 0, missing_bytes: 0, unplaced: None, seen_bytes: 0, wrong_bytes: 0 }
    }

    /// Holds the next bytes against it. Returns how many of them are wrong; a byte too many or too few makes all
    /// that follow wrong.
    pub fn check(&mut self, data: &[u8]) -> u64 {
        self.seen_bytes += data.len() as u64;
        match &mut self.unplaced {
            None => self.pass(data),
            Some(unplaced) => {
                unplaced.extend_from_slice(data);
                let lines = unplaced.iter().filter(|byte| **byte == b'\n').count();
                if lines < 2 { 0 } else { self.settle() }
            }
        }
    }

    /// Some of the next so many bytes are this stream's, or all, or none. Returns as [`Self::check`].
    pub fn gap(&mut self, bytes: u64) -> u64 {
        let wrong = self.settle();
        self.gap_bytes += bytes;
        self.unplaced = Some(Vec::new());
        wrong
    }

    /// No more comes that tells where the bytes after the last gap stand. Returns as [`Self::check`].
    pub fn settle(&mut self) -> u64 {
        let Some(data) = self.unplaced.take().filter(|data| !data.is_empty()) else { return 0 };
        let within = self.gap_bytes - self.missing_bytes;
        let found = self.place.find_line(&data, within).or_else(|| self.place.find(&data, within));
        if let Some((place, ahead)) = found {
            self.place = place;
            self.missing_bytes += ahead;
        }
        self.pass(&data)
    }

    /// Whether it is clear where the bytes after the last gap stand.
    pub fn is_placed(&self) -> bool {
        self.unplaced.is_none()
    }

    fn pass(&mut self, data: &[u8]) -> u64 {
        let wrong = self.place.pass(data);
        self.wrong_bytes += wrong;
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stdout(seed: u64, lines: u64) -> Vec<u8> {
        (0..lines).step_by(2).flat_map(|number| line(seed, number)).collect()
    }

    #[test]
    fn the_right_bytes_in_any_pieces_are_right() {
        let text = stdout(7, 100);
        assert_eq!(text.len() as u64, length(7, 100, OutputStream::Stdout));
        assert_eq!(lines_in(7, text.len() as u64, OutputStream::Stdout), 50);
        for size in [1, 3, 64, 1000] {
            let mut expected = Expected::new(7, OutputStream::Stdout);
            assert_eq!(text.chunks(size).map(|piece| expected.check(piece)).sum::<u64>(), 0);
            assert_eq!(expected.seen_bytes, text.len() as u64);
        }
    }

    #[test]
    fn a_lost_a_repeated_and_a_changed_byte_are_seen() {
        let text = stdout(7, 100);
        let lost = [&text[..50], &text[51..]].concat();
        let repeated = [&text[..51], &text[50..]].concat();
        let mut changed = text.clone();
        changed[50] ^= 1;
        for bad in [lost, repeated, changed] {
            assert!(Expected::new(7, OutputStream::Stdout).check(&bad) > 0);
        }
    }

    #[test]
    fn the_length_of_a_line_is_what_it_says() {
        for number in [0, 1, 9, 10, 99, 100, 12_345] {
            assert_eq!(line_length(7, number), line(7, number).len() as u64);
        }
    }

    #[test]
    fn what_follows_a_gap_is_held_against_its_place() {
        let text = stdout(7, 400);
        for (from, to) in [(0, 5), (50, 51), (130, 131), (100, 5_000), (777, 777)] {
            // Of the gap, 40 bytes were the other stream's.
            let told = (to - from + 40) as u64;
            for size in [1, 17, 1000] {
                let mut expected = Expected::new(7, OutputStream::Stdout);
                let mut wrong = expected.check(&text[..from]) + expected.gap(told);
                wrong += text[to..].chunks(size).map(|piece| expected.check(piece)).sum::<u64>();
                assert_eq!((wrong, expected.is_placed()), (0, true), "{from}..{to} by {size}");
                assert_eq!(expected.missing_bytes, (to - from) as u64);
            }
        }
    }

    #[test]
    fn gaps_too_close_for_a_line_between_them_are_followed_too() {
        let text = stdout(7, 400);
        let mut expected = Expected::new(7, OutputStream::Stdout);
        let pieces = [(0, 300), (310, 320), (400, 401), (1_000, 1_003), (2_000, text.len())];
        let mut end = 0;
        for (from, to) in pieces {
            let wrong = expected.gap((from - end) as u64) + expected.check(&text[from..to]);
            assert_eq!(wrong, 0, "{from}..{to}");
            end = to;
        }
        assert_eq!(expected.settle(), 0);
        assert_eq!(expected.missing_bytes, (text.len() as u64) - expected.seen_bytes);
    }

    #[test]
    fn more_missing_than_told_and_a_byte_wrong_after_a_gap_are_seen() {
        let text = stdout(7, 100);
        let after = |told: u64, rest: &[u8]| {
            let mut expected = Expected::new(7, OutputStream::Stdout);
            expected.check(&text[..50]) + expected.gap(told) + expected.check(rest) + expected.settle()
        };
        assert_eq!(after(100, &text[150..]), 0);
        assert!(after(99, &text[150..]) > 0);
        let mut changed = text.clone();
        for at in [160, 1_000] {
            changed[at] ^= 1;
            assert!(after(100, &changed[150..]) > 0, "{at}");
        }
    }
}
