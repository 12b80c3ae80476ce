//! `index`: what `output` does not say of its bytes: which stream they came from, and when.
//!
//! A header, what is still kept, then records, each of [`RECORD_BYTES`], little endian, in order of offset and without
//! holes between them: a record's end is the next one's offset. A record is appended after its bytes stand in
//! `output`, so whoever goes by the index never reads too far; a last record that is not whole does not count.
//!
//! ```text
//!  header   "jobworker index\0"  version: u32  record size: u32
//!  kept     record: u64   offset: u64   check: u64     (from version 2 on)
//!  record   offset: u64   time: u64 (µs since the epoch)   length: u32   kind: u8   0 0 0
//! ```
//!
//! Output that has grown past its limit is given back from the front, the records with the bytes: both files get a hole
//! there. [`Kept`] is written before a hole is made, so whoever looks at it *after* reading knows which of the bytes
//! that were read are real.

/// A record's size, and the header's.
pub const RECORD_BYTES: usize = 24;

/// What stands at the front of every index that this build writes.
pub const HEADER: [u8; RECORD_BYTES] = *b"jobworker index\0\x02\0\0\0\x18\0\0\0";

/// The header of version 1, in which nothing is ever given back.
const HEADER_1: [u8; RECORD_BYTES] = *b"jobworker index\0\x01\0\0\0\x18\0\0\0";

/// Where [`Kept`] stands, in bytes from the front.
pub const KEPT_AT: u64 = RECORD_BYTES as u64;

/// How an index is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Records stand behind the header.
    V1,
    /// Records stand behind [`Kept`].
    V2,
}

/// From where on output is still there: whatever stands before has been given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The number of the first record, counted from the first that ever was.
    pub record: u64,
    /// Where its bytes begin in `output`.
    pub offset: u64,
}

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

impl Version {
    /// By an index's first bytes; `None` when they are no header that this build knows.
    pub fn of(header: &[u8; RECORD_BYTES]) -> Option<Self> {
        match *header {
            HEADER => Some(Self::V2),
            HEADER_1 => Some(Self::V1),
            _ => None,
        }
    }

    /// Where a record stands, in bytes from the front.
    pub fn record_at(self, number: u64) -> u64 {
        let before = match self {
            Self::V1 => 1,
            Self::V2 => 2,
        };
        number.saturating_add(before).saturating_mul(RECORD_BYTES as u64)
    }

    /// How many whole records an index of so many bytes holds, those given back included.
    pub fn record_count(self, index_bytes: u64) -> u64 {
        index_bytes.saturating_sub(self.record_at(0)) / RECORD_BYTES as u64
    }
}

impl Kept {
    /// As it stands in the file.
    pub fn encode(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..8].copy_from_slice(&self.record.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.check().to_le_bytes());
        bytes
    }

    /// `None` when it was read while it was being written: the kernel does not promise to read and write it in one
    /// piece.
    pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let kept = Self { record: word(0), offset: word(8) };
        (word(16) == kept.check()).then_some(kept)
    }

    /// Both only grow, so a mixture of an older and a newer one does not pass.
    fn check(self) -> u64 {
        self.record.rotate_left(32) ^ self.offset ^ 0x6a6f_6277_6f72_6b65
    }
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
        for (header, version, number) in [(HEADER_1, Version::V1, 1u32), (HEADER, Version::V2, 2)] {
            assert_eq!(&header[..16], b"jobworker index\0");
            assert_eq!(header[16..20], number.to_le_bytes());
            assert_eq!(header[20..24], u32::try_from(RECORD_BYTES).unwrap().to_le_bytes());
            assert_eq!(Version::of(&header), Some(version));
            assert_eq!(version.record_at(7), u64::from(number + 7) * 24);
            assert_eq!(version.record_count(version.record_at(7) + 23), 7);
        }
        assert_eq!(Version::of(&[0; RECORD_BYTES]), None);
        assert_eq!(Version::V2.record_count(30), 0);
    }

    #[test]
    fn what_is_kept_reads_back_and_a_mixture_does_not() {
        let (old, new) = (Kept { record: 3, offset: 1 << 20 }, Kept { record: 70_000, offset: 5 << 32 });
        for kept in [Kept::default(), old, new] {
            assert_eq!(Kept::decode(&kept.encode()), Some(kept));
        }
        for cut in [8, 16] {
            let mixed = [&old.encode()[..cut], &new.encode()[cut..]].concat().try_into().unwrap();
            assert_eq!(Kept::decode(&mixed), None);
        }
        assert_eq!(Kept::decode(&[0; RECORD_BYTES]), None);
    }
}
