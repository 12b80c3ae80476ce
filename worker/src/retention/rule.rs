//! The rule: a pure function of what is known of ended jobs, of the time, and of the settings.
//!
//! First goes what ended longer ago than `--keep-ended-for`. Then, while what is left uses more than
//! `--keep-ended-bytes`, the job that ended first. A job that ended in the future, as one did before the clock was set
//! back, has the age 0.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

use crate::job::JobId;

/// What is kept of ended jobs; the default is everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// For how long after their end.
    pub ended_for: Option<KeepFor>,
    /// How much of all of them together.
    pub ended_bytes: Option<KeepBytes>,
}

/// How long an ended job is kept; more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepFor(Duration);

/// Bytes of disk that ended jobs may use in all; more than nothing, and less than 8 EiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepBytes(NonZeroU64);

/// A text that is no such setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct InvalidKeep {
    value: String,
    expected: String,
}

/// A job that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) job: JobId,
    /// When, in microseconds since the Unix epoch.
    pub(super) finished_unix_usec: u64,
    /// Bytes that its folder uses on the disk.
    pub(super) bytes: u64,
}

/// A job that goes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) job: JobId,
    pub(super) rule: Rule,
}

/// The setting by which a job goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Age(KeepFor),
    Bytes(KeepBytes),
}

/// What is to be removed, in this order: the oldest first.
pub(super) fn removals(ended: impl Iterator<Item = Ended>, now_unix_usec: u64, keep: &Keep) -> Vec<Removal> {
    let mut ended: Vec<_> = ended.collect();
    ended.sort_unstable_by_key(|ended| (ended.finished_unix_usec, ended.job));
    let mut left_bytes: u128 = ended.iter().map(|ended| u128::from(ended.bytes)).sum();
    let mut removals = Vec::new();
    for Ended { job, finished_unix_usec, bytes } in ended {
        let age = Duration::from_micros(now_unix_usec.saturating_sub(finished_unix_usec));
        let by_age = keep.ended_for.filter(|keep| age > keep.0).map(Rule::Age);
        let too_many = |keep: &KeepBytes| left_bytes > u128::from(keep.0.get());
        let by_bytes = keep.ended_bytes.filter(too_many).map(Rule::Bytes);
        // Who is not too old and not too large is followed by younger ones only, and less is left.
        let Some(rule) = by_age.or(by_bytes) else { break };
        left_bytes -= u128::from(bytes);
        removals.push(Removal { job, rule });
    }
    removals
}

impl Keep {
    /// Whether nothing is ever removed.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

impl KeepFor {
    /// As a duration.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for KeepFor {
    type Err = InvalidKeep;

    fn from_str(text: &str) -> Result<Self, InvalidKeep> {
        match humantime::parse_duration(text) {
            Ok(Duration::ZERO) => Err(invalid(text, "a time to keep ended jobs for: it must be more than 0")),
            Ok(time) => Ok(Self(time)),
            Err(error) => Err(invalid(
                text,
                format!("a time: {error}; a number with a unit is needed, like \"7days\" or \"12h\""),
            )),
        }
    }
}

impl FromStr for KeepBytes {
    type Err = InvalidKeep;

    fn from_str(text: &str) -> Result<Self, InvalidKeep> {
        let usage = "a size: give a number with a unit, like \"50G\" (50000000000 bytes) or \"50GiB\"";
        let bytes = text.parse::<ByteSize>().map_err(|_| invalid(text, usage))?.as_u64();
        // bytesize takes what does not fit for the largest that does.
        if bytes >= 1 << 63 {
            return Err(invalid(text, "a size of ended jobs: it must be less than 8 EiB"));
        }
        let bytes = NonZeroU64::new(bytes).map(Self);
        bytes.ok_or_else(|| invalid(text, "a size of ended jobs: it must be more than 0"))
    }
}

fn invalid(value: &str, expected: impl Into<String>) -> InvalidKeep {
    InvalidKeep { value: value.to_owned(), expected: expected.into() }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = [self.ended_for.map(Rule::Age), self.ended_bytes.map(Rule::Bytes)];
        let rules: Vec<_> = rules.iter().flatten().map(ToString::to_string).collect();
        f.write_str(&rules.join(", "))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Age(KeepFor(time)) => write!(f, "--keep-ended-for {}", humantime::format_duration(*time)),
            Self::Bytes(KeepBytes(bytes)) => write!(f, "--keep-ended-bytes {bytes}"),
        }
    }
}

#[cfg(test)]
mod tests;
