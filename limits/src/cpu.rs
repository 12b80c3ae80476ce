//! CPU limits: a hard quota (`cpu.max`) and a share under contention (`cpu.weight`).

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::text::{ParseError, decimal, serde_as_text, whole};

/// The kernel's default accounting period; a quota is granted once per period.
const PERIOD_USEC: u64 = 100_000;

/// CPU time per wall-clock time, in thousandths of one CPU: `1.5`, `150%` and `1500m` are the same.
///
/// From `10m` up to about four million CPUs, in steps of `1m`. The least comes from `cpu.max`, whose quota cannot
/// be under 1000 µs per period (of 100 ms here).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuLimit {
    millis: u32,
}

impl CpuLimit {
    /// Thousandths of one CPU: 1500 for one and a half.
    #[must_use]
    pub fn milli_cpus(self) -> u32 {
        self.millis
    }

    /// CPU time allowed per [period](Self::period_usec), in microseconds: the first number of `cpu.max`.
    #[must_use]
    pub fn quota_usec(self) -> u64 {
        u64::from(self.millis) * (PERIOD_USEC / 1000)
    }

    /// Length of the period in microseconds: the second number of `cpu.max`.
    #[must_use]
    pub fn period_usec(self) -> u64 {
        PERIOD_USEC
    }
}

impl FromStr for CpuLimit {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<CpuLimit, ParseError> {
        let millis = if let Some(percent) = text.strip_suffix('%') {
            decimal(percent, 10)
        } else if let Some(millis) = text.strip_suffix('m') {
            decimal(millis, 1)
        } else {
            decimal(text, 1000)
        };
        match millis.and_then(|millis| u32::try_from(millis).ok()) {
            Some(millis @ 10..) => Ok(CpuLimit { millis }),
            _ => Err(ParseError::new(
                text,
                "a CPU limit: give CPUs (1.5), per cent of one CPU (150%) or thousandths (1500m), \
                 at least 10m, in steps of 1m",
            )),
        }
    }
}

impl fmt::Display for CpuLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.millis / 1000, self.millis % 1000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Share of CPU time against sibling groups while CPUs are contended, 1 to 10000; the kernel's default is 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuWeight(NonZeroU32);

impl CpuWeight {
    /// The number, as written to `cpu.weight`.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl FromStr for CpuWeight {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<CpuWeight, ParseError> {
        whole(text)
            .filter(|weight| *weight <= 10_000)
            .and_then(|weight| NonZeroU32::new(u32::try_from(weight).ok()?))
            .map(CpuWeight)
            .ok_or_else(|| ParseError::new(text, "a CPU weight: give a whole number from 1 to 10000"))
    }
}

impl fmt::Display for CpuWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

serde_as_text!(CpuLimit, CpuWeight);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_ways_to_say_the_same() {
        for text in ["1.5", "150%", "1500m", "1.500", "150.0%"] {
            let limit: CpuLimit = text.parse().unwrap();
            assert_eq!((limit.quota_usec(), limit.period_usec()), (150_000, 100_000), "{text}");
            assert_eq!(limit.to_string(), "1.5");
        }
        assert_eq!("10m".parse::<CpuLimit>().unwrap().quota_usec(), 1000);
        assert_eq!("20".parse::<CpuLimit>().unwrap().to_string(), "20");
    }

    #[test]
    fn wrong_cpu_limits_are_refused_in_words() {
        for bad in
            ["", "0", "-1", "9m", "0.009", "1.0005", "0.05%", "1.5 CPUs", "m", "%", "1%m", "4294968", "1e3"]
        {
            let error = bad.parse::<CpuLimit>().expect_err(bad).to_string();
            assert!(error.starts_with(&format!("{bad:?} is not a CPU limit: ")), "{error}");
        }
        for bad in ["", "0", "-1", "10001", "1.5", "+5"] {
            bad.parse::<CpuWeight>().expect_err(bad);
        }
    }

    proptest! {
        #[test]
        fn cpu_limit_round_trips(millis in 10u32..) {
            let limit = CpuLimit { millis };
            prop_assert_eq!(limit.to_string().parse::<CpuLimit>(), Ok(limit));
        }

        #[test]
        fn cpu_weight_round_trips(weight in 1u32..=10_000) {
            let weight: CpuWeight = weight.to_string().parse().unwrap();
            prop_assert_eq!(weight.to_string().parse::<CpuWeight>(), Ok(weight));
        }

        #[test]
        fn no_text_panics(text in ".*|[0-9.]{0,30}[m%]?") {
            let _ = (text.parse::<CpuLimit>(), text.parse::<CpuWeight>());
        }
    }
}
