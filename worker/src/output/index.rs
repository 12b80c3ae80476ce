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
pub enum InvalidRecord {
    /// A kind that this build does not know.
    #[error("an index record has kind {kind}; known are 1 (stdout), 2 (stderr) and 3 (gap)")]
    Kind {
        /// Its number.
        kind: u8,
    },
    /// No output is that long.
    #[error("an index record of {length} bytes begins at offset {offset}")]
    Offset {
        /// Where it would begin.
        offset: u64,
        /// How long it would be.
        length: u32,
    },
}

/// Where the records begin in an index with this at its front, as an offset in the file; `None`: it is no index that
/// this build reads.
pub fn records_begin(header: &[u8; RECORD_BYTES]) -> Option<u64> {
    (*header == HEADER).then_some(RECORD_BYTES as u64)
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
    /// When the kind is none that this build knows, or its end is none that a file can have.
    pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Result<Self, InvalidRecord> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let kind = match bytes[20] {
            1 => Kind::Stdout,
            2 => Kind::Stderr,
            3 => Kind::Gap,
            kind => return Err(InvalidRecord::Kind { kind }),
        };
        let length = u32::from_le_bytes(bytes[16..20].try_into().expect("4 bytes"));
        let offset = word(0);
        if offset.checked_add(u64::from(length)).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(InvalidRecord::Offset { offset, length });
        }
        Ok(Self { offset, time_unix_usec: word(8), length, kind })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_reads_back_as_written(offset in 0..1u64 << 62, time_unix_usec: u64, length: u32, kind in 1u8..=3) {
            let kind = [Kind::Stdout, Kind::Stderr, Kind::Gap][usize::from(kind) - 1];
            let record = Record { offset, time_unix_usec, length, kind };
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes: [u8; RECORD_BYTES]) {
            let known = (1..=3).contains(&bytes[20]);
            match Record::decode(&bytes) {
                // It has an end.
                Ok(record) => prop_assert!(known && record.end() >= record.offset),
                Err(InvalidRecord::Kind { .. }) => prop_assert!(!known),
                Err(InvalidRecord::Offset { offset, .. }) => prop_assert!(offset > i64::MAX.cast_unsigned() - u64::from(u32::MAX)),
            }
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
