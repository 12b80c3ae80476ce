//! `control`: what the worker asks of a shim, one JSON line a request, through the FIFO in the job's folder.
//!
//! A line of at most `PIPE_BUF` bytes is written whole or not at all (pipe(7)), so writers need no lock. Requests are
//! not answered: their effect shows in `state.json`.

use std::fs::File;
use std::io::Read;

use jobworker_limits::SignalNumber;
use serde::{Deserialize, Serialize};

/// The longest line that is written in one piece (`PIPE_BUF` on Linux), in bytes.
pub const MAX_LINE_BYTES: usize = 4096;

/// Reads of a FIFO at a time. Together they are all that a FIFO holds (64 KiB, pipe(7)): whoever writes without end
/// neither keeps the shim from its job nor makes it grow.
const READS: usize = 16;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// End the job: the signal to every process of the group, the grace period, the kill.
    Stop {
        /// The signal's number.
        signal: i32,
        /// The grace period, in milliseconds; 0 kills at once.
        grace_msec: u64,
        /// The asking client's name.
        by: String,
    },
    /// Send a signal.
    Signal {
        /// The signal's number.
        signal: i32,
        /// To every process of the group instead of the main process.
        all: bool,
    },
}

/// A request that can't be put on the FIFO, or what came from it and is none.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It would not arrive in one piece.
    #[error("a control request of {length} bytes is longer than {MAX_LINE_BYTES}")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// It is not a request.
    #[error("not a control request: {0}")]
    Malformed(#[from] serde_json::Error),
    /// No such signal.
    #[error("{0} is not a signal number")]
    UnknownSignal(i32),
}

impl Control {
    /// The line, its newline included.
    ///
    /// # Errors
    /// When it would not be written in one piece.
    pub fn encode(&self) -> Result<Vec<u8>, ControlError> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        if line.len() > MAX_LINE_BYTES {
            return Err(ControlError::TooLong { length: line.len() });
        }
        Ok(line)
    }

    /// # Errors
    /// When the line is no request, or its signal none.
    pub fn decode(line: &[u8]) -> Result<Self, ControlError> {
        let control: Self = serde_json::from_slice(line)?;
        control.signal()?;
        Ok(control)
    }

    /// The signal to send.
    ///
    /// # Errors
    /// When the number is not a signal's.
    pub fn signal(&self) -> Result<SignalNumber, ControlError> {
        let (Self::Stop { signal, .. } | Self::Signal { signal, .. }) = self;
        SignalNumber::try_from(*signal).map_err(|_| ControlError::UnknownSignal(*signal))
    }
}

/// Splits what comes from the FIFO into lines.
#[derive(Default)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that are whole by now, of a FIFO's worth at most; their newlines are left out. The FIFO must be
    /// non-blocking.
    pub fn read(&mut self, fifo: &mut File) -> Vec<Vec<u8>> {
        let mut buffer = [0; MAX_LINE_BYTES];
        for _ in 0..READS {
            let Ok(length @ 1..) = fifo.read(&mut buffer) else { break };
            self.rest.extend_from_slice(&buffer[..length]);
        }
        let Some(last) = self.rest.iter().rposition(|&b| b == b'\n') else {
            // No request is this long: somebody else wrote here.
            if self.rest.len() > MAX_LINE_BYTES {
                self.rest.clear();
            }
            return Vec::new();
        };
        let rest = self.rest.split_off(last + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        whole.split(|&b| b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use proptest::prelude::*;

    use super::*;
    use crate::identity::MAX_NAME_BYTES;

    fn any_signal() -> impl Strategy<Value = i32> {
        prop_oneof![1..=31i32, 34..=64i32]
    }

    fn any_control() -> impl Strategy<Value = Control> {
        // Whatever name an identity may have.
        let name = "\\PC{0,256}|[\"\\\\]{0,256}".prop_filter("as identities check", |name| {
            name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control)
        });
        prop_oneof![
            (any_signal(), any::<u64>(), name).prop_map(|(signal, grace_msec, by)| Control::Stop {
                signal,
                grace_msec,
                by
            }),
            (any_signal(), any::<bool>()).prop_map(|(signal, all)| Control::Signal { signal, all }),
        ]
    }

    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        (File::from(reader), File::from(writer))
    }

    proptest! {
        #[test]
        fn every_request_fits_into_one_write_and_reads_back(control in any_control()) {
            let line = control.encode().unwrap();
            let (newline, text) = line.split_last().unwrap();
            prop_assert!(*newline == b'\n' && !text.contains(newline));
            prop_assert_eq!(Control::decode(text).unwrap(), control);
        }

        #[test]
        fn requests_are_the_same_however_their_bytes_arrive(
            controls in prop::collection::vec(any_control(), 0..20),
            cuts in prop::collection::vec(1usize..600, 1..50),
        ) {
            let bytes: Vec<u8> = controls.iter().flat_map(|control| control.encode().unwrap()).collect();
            let (mut fifo, mut writer) = pipe();
            let (mut lines, mut read, mut rest) = (Lines::default(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*cut));
                writer.write_all(now).unwrap();
                read.extend(lines.read(&mut fifo).iter().map(|line| Control::decode(line).unwrap()));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(read, controls);
        }

        #[test]
        fn no_bytes_panic(line: Vec<u8>) {
            let _ = Control::decode(&line);
        }
    }

    #[test]
    fn a_writer_without_end_does_not_hold_up_the_reader() {
        // It says that there is nothing more much later than a FIFO would.
        let mut endless = tempfile::tempfile().unwrap();
        endless.set_len(1 << 20).unwrap();
        let mut lines = Lines::default();
        for turn in 1..=3 {
            assert!(lines.read(&mut endless).is_empty());
            assert_eq!(endless.stream_position().unwrap(), turn * 65_536);
            assert!(lines.rest.is_empty(), "no request is this long");
        }
        let (mut fifo, mut writer) = pipe();
        let signal = Control::Signal { signal: 1, all: true };
        writer.write_all(&[b"\n", &signal.encode().unwrap()[..]].concat()).unwrap();
        assert_eq!(Control::decode(&lines.read(&mut fifo)[0]).unwrap(), signal);
    }

    #[test]
    fn lines_come_whole_however_they_are_written() {
        let (mut fifo, mut writer) = pipe();
        let stop = Control::Stop { signal: 15, grace_msec: 3000, by: "alice".to_owned() };
        let line = stop.encode().unwrap();
        let mut lines = Lines::default();
        assert!(lines.read(&mut fifo).is_empty());
        writer.write_all(&[&line[..], &line[..10]].concat()).unwrap();
        assert_eq!(lines.read(&mut fifo), [&line[..line.len() - 1]]);
        writer.write_all(&line[10..]).unwrap();
        let rest = lines.read(&mut fifo);
        assert_eq!(Control::decode(&rest[0]).unwrap(), stop);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let long = Control::Stop { signal: 15, grace_msec: 0, by: "x".repeat(MAX_LINE_BYTES) };
        assert!(matches!(long.encode(), Err(ControlError::TooLong { .. })));
        assert!(matches!(Control::decode(b"stop TERM 3000"), Err(ControlError::Malformed(_))));
        let unknown = br#"{"signal":{"signal":99,"all":false}}"#;
        assert!(matches!(Control::decode(unknown), Err(ControlError::UnknownSignal(99))));
    }
}
