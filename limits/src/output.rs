//! The limit on what is kept of a job's output. Not the kernel's to enforce: the shim does.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::memory::{parse_bytes, write_bytes};
use crate::text::{ParseError, serde_as_text};

/// How many bytes are kept on disk for a job's output: `500M` is 500 000 000 bytes, `1GiB` is 1 073 741 824.
///
/// From 1 MiB to less than 8 EiB, the longest that a file can be (`loff_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputLimit(NonZeroU64);

impl OutputLimit {
    /// The least, in bytes: what is given back at a time is a part of the limit, and has to be some file-system blocks.
    pub const MIN_BYTES: u64 = 1 << 20;

    /// The limit of a job that has no other: 1 GiB.
    pub const DEFAULT: Self = Self(NonZeroU64::new(1 << 30).expect("not zero"));

    /// The limit in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for OutputLimit {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = |why: String| ParseError::new(text, format!("an output limit: {why}"));
        let bytes = parse_bytes(text).map_err(wrong)?;
        match NonZeroU64::new(bytes) {
            _ if bytes >= i64::MAX as u64 => Err(wrong("it must be less than 8 EiB".to_owned())),
            Some(limit) if bytes >= Self::MIN_BYTES => Ok(Self(limit)),
            _ => Err(wrong(format!("that is {bytes} bytes, and the least is 1MiB"))),
        }
    }
}

impl fmt::Display for OutputLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_bytes(f, self.bytes())
    }
}

serde_as_text!(OutputLimit);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_can_be_kept_to_are_taken() {
        for (text, bytes) in [("1MiB", 1 << 20), ("1GiB", 1 << 30), ("500M", 500_000_000), ("4EiB", 1 << 62)]
        {
            let limit: OutputLimit = text.parse().unwrap();
            assert_eq!(limit.bytes(), bytes);
            assert_eq!(limit.to_string().parse(), Ok(limit));
        }
        assert_eq!(OutputLimit::DEFAULT.to_string(), "1GiB");
    }

    #[test]
    fn others_are_refused_in_words() {
        for (bad, why) in [
            ("0", "that is 0 bytes, and the least is 1MiB"),
            ("1M", "that is 1000000 bytes, and the least is 1MiB"),
            ("none", "give a number with a unit"),
            ("8EiB", "must be less than 8 EiB"),
            ("99EiB", "must be less than 16 EiB"),
        ] {
            let error = bad.parse::<OutputLimit>().expect_err(bad).to_string();
            assert!(
                error.starts_with(&format!("{bad:?} is not an output limit: ")) && error.contains(why),
                "{error}"
            );
        }
    }
}
