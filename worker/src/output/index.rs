//! `index`: what `output` does not say of its bytes: which stream they came from, and when.
//!
//! A header, then records of [`RECORD_BYTES`] each, little endian, in order of offset and without holes between
//! them: a record's end is the next one's offset. A record is appended after its bytes stand in `output`, so
//! whoever goes by the index never reads too far; a last record that is not whole does not count.
//!
//! ```text
//!  header   "jobworker index\0"  version: u32  record size: u32
//!  record   offset: u64   time: u64 (µs since the epoch)   length: u32   kind: u8   0 0 0
//! ```

/// A record's size, and the header's.
pub const RECORD_BYTES: usize = 24;

/// What stands at the front of every index.
pub const HEADER: [u8; RECORD_BYTES] = *b"jobworker index\0\x01\0\0\0\x18\0\0\0";

/// A run of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it begins in `output`.
    pub offset: u64,
    /// When its last byte arrived, in microseconds since the Unix epoch.
    pub time_unix_usec: u64,
    /// How long it is, in bytes.
    pub length: u32,
    /// What it is.
    pub kind: Kind,
}

/// What a [`Record`] tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes of the job's stdout.
    Stdout = 1,
    /// Bytes of the job's stderr.
    Stderr = 2,
    /// Bytes that could not be stored, of either stream. `output` has a hole there.
    Gap = 3,
}

/// Bytes that are no record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an index record has kind {kind}; known are 1 (stdout), 2 (stderr) and 3 (gap)")]
pub struct UnknownKind {
    kind: u8,
}

impl Record {
    /// The offset after its last byte.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }

    /// As it stands in the file.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.time_unix_usec.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.length.to_le_bytes());
        bytes[20] = self.kind as u8;
        bytes
    }

    /// # Errors
    /// When the kind is none that this build knows.
    pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Result<Self, UnknownKind> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let kind = match bytes[20] {
            1 => Kind::Stdout,
            2 => Kind::Stderr,
            3 => Kind::Gap,
            kind => return Err(UnknownKind { kind }),
        };
        let length = u32::from_le_bytes(bytes[16..20].try_into().expect("4 bytes"));
        Ok(Self { offset: word(0), time_unix_usec: word(8), length, kind })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_reads_back_as_written(offset: u64, time_unix_usec: u64, length: u32, kind in 1u8..=3) {
            let kind = [Kind::Stdout, Kind::Stderr, Kind::Gap][usize::from(kind) - 1];
            let record = Record { offset, time_unix_usec, length, kind };
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes: [u8; RECORD_BYTES]) {
            let known = (1..=3).contains(&bytes[20]);
            prop_assert_eq!(Record::decode(&bytes).is_ok(), known);
        }
    }

    #[test]
    fn the_header_tells_version_and_record_size() {
        assert_eq!(&HEADER[..16], b"jobworker index\0");
        assert_eq!(HEADER[16..20], 1u32.to_le_bytes());
        assert_eq!(
            usize::try_from(u32::from_le_bytes(HEADER[20..24].try_into().unwrap())).unwrap(),
            RECORD_BYTES
        );
    }
}
