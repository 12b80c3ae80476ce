//! The process-count limit (`pids.max`).

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::text::{ParseError, serde_as_text, whole};

/// The kernel has no more pids than this (`PID_MAX_LIMIT`, 2²²): `pids.max` at or above it reads `max`.
const MOST: u64 = 4_194_303;

/// How many processes and threads a job may have at a time, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PidsLimit(NonZeroU32);

impl PidsLimit {
    /// The number, as written to `pids.max`.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl FromStr for PidsLimit {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<PidsLimit, ParseError> {
        whole(text)
            .filter(|pids| *pids <= MOST)
            .and_then(|pids| NonZeroU32::new(u32::try_from(pids).ok()?))
            .map(PidsLimit)
            .ok_or_else(|| {
                ParseError::new(text, format!("a process limit: give a whole number from 1 to {MOST}"))
            })
    }
}

impl fmt::Display for PidsLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

serde_as_text!(PidsLimit);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_whole_numbers_from_one() {
        assert_eq!("64".parse::<PidsLimit>().unwrap().get(), 64);
        for bad in ["", "0", "-1", "+1", "1.0", "4194304", "max"] {
            bad.parse::<PidsLimit>().expect_err(bad);
        }
    }

    proptest! {
        #[test]
        fn round_trips(pids in 1..=MOST) {
            let pids: PidsLimit = pids.to_string().parse().unwrap();
            prop_assert_eq!(pids.to_string().parse::<PidsLimit>(), Ok(pids));
        }

        #[test]
        fn no_text_panics(text in ".*|[0-9]{0,30}") {
            let _ = text.parse::<PidsLimit>();
        }
    }
}
