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
    (0..lines).filter(|number| stream(*number) == to).map(|number| line(seed, number).len() as u64).sum()
}

/// A stream's bytes in their order, to hold against what arrives.
#[derive(Debug)]
pub(super) struct Expected {
    seed: u64,
    number: u64,
    line: Vec<u8>,
    at: usize,
    /// How many bytes were held against it.
    pub(super) seen_bytes: u64,
    /// How many of them stood in pieces of lines that are not as they should be.
    pub(super) wrong_bytes: u64,
}

impl Expected {
    pub(super) fn new(seed: u64, of: OutputStream) -> Self {
        let number = u64::from(of == OutputStream::Stderr);
        Self { seed, number, line: line(seed, number), at: 0, seen_bytes: 0, wrong_bytes: 0 }
    }

    /// Holds the next bytes against it. Returns how many of them are wrong; a byte too many or too few makes all
    /// that follow wrong.
    pub(super) fn check(&mut self, mut data: &[u8]) -> u64 {
        let mut wrong = 0;
        self.seen_bytes += data.len() as u64;
        while !data.is_empty() {
            if self.at == self.line.len() {
                self.number += 2;
                self.line = line(self.seed, self.number);
                self.at = 0;
            }
            let length = data.len().min(self.line.len() - self.at);
            let (piece, rest) = data.split_at(length);
            if piece != &self.line[self.at..self.at + length] {
                wrong += length as u64;
            }
            self.at += length;
            data = rest;
        }
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
}
