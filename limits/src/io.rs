//! IO limits: rates, and the disk they are for (`io.max`).

mod ceiling;

use std::fmt;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use self::ceiling::AboveCeiling;

use crate::disk::{Disk, DiskError, resolve_disk};
use crate::memory::{parse_bytes, write_bytes};
use crate::text::{ParseError, serde_as_text, whole};

/// From here on the kernel takes a number of operations for `max`.
const IOPS_END: u64 = u32::MAX as u64;

const USAGE: &str = "an IO limit: give [PATH|DEVICE:]10M for reads and writes alike, or \
                     [PATH|DEVICE:]rbps=10M,wbps=5M,riops=100,wiops=100, each from 1";

/// Rates per second, at least one of them: bytes read and written, read and write operations.
///
/// `10M` limits the bytes read and the bytes written to 10 MB/s each; `rbps=10M,wiops=100` names what it limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IoRates {
    rbps: Option<NonZeroU64>,
    wbps: Option<NonZeroU64>,
    riops: Option<NonZeroU64>,
    wiops: Option<NonZeroU64>,
}

impl IoRates {
    /// Bytes read per second.
    #[must_use]
    pub fn rbps(&self) -> Option<NonZeroU64> {
        self.rbps
    }

    /// Bytes written per second.
    #[must_use]
    pub fn wbps(&self) -> Option<NonZeroU64> {
        self.wbps
    }

    /// Read operations per second.
    #[must_use]
    pub fn riops(&self) -> Option<NonZeroU64> {
        self.riops
    }

    /// Write operations per second.
    #[must_use]
    pub fn wiops(&self) -> Option<NonZeroU64> {
        self.wiops
    }

    fn none() -> IoRates {
        IoRates { rbps: None, wbps: None, riops: None, wiops: None }
    }

    /// Sets one `key=value`; `None` where the key is unknown or given twice, or the value is no rate.
    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        let (rate, value) = match key {
            "rbps" => (&mut self.rbps, parse_rate(value)),
            "wbps" => (&mut self.wbps, parse_rate(value)),
            "riops" => (&mut self.riops, parse_iops(value)),
            "wiops" => (&mut self.wiops, parse_iops(value)),
            _ => return None,
        };
        rate.replace(value?).is_none().then_some(())
    }
}

/// Bytes per second. `u64::MAX` is `max` to the kernel.
fn parse_rate(text: &str) -> Option<NonZeroU64> {
    NonZeroU64::new(parse_bytes(text).ok()?).filter(|rate| *rate != NonZeroU64::MAX)
}

fn parse_iops(text: &str) -> Option<NonZeroU64> {
    NonZeroU64::new(whole(text)?).filter(|rate| rate.get() < IOPS_END)
}

impl FromStr for IoRates {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<IoRates, ParseError> {
        if let Some(rate) = parse_rate(text) {
            return Ok(IoRates { rbps: Some(rate), wbps: Some(rate), ..IoRates::none() });
        }
        let mut rates = IoRates::none();
        text.split(',')
            .try_for_each(|pair| pair.split_once('=').and_then(|(key, value)| rates.set(key, value)))
            .map(|()| rates)
            .ok_or_else(|| ParseError::new(text, USAGE))
    }
}

impl fmt::Display for IoRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let IoRates { rbps: Some(rbps), wbps: Some(wbps), riops: None, wiops: None } = self
            && rbps == wbps
        {
            return write_bytes(f, rbps.get());
        }
        let bytes = [("rbps", self.rbps), ("wbps", self.wbps)];
        let operations = [("riops", self.riops), ("wiops", self.wiops)];
        let mut comma = "";
        for (key, rate) in bytes.into_iter().filter_map(|(key, rate)| Some((key, rate?))) {
            write!(f, "{comma}{key}=")?;
            write_bytes(f, rate.get())?;
            comma = ",";
        }
        for (key, rate) in operations.into_iter().filter_map(|(key, rate)| Some((key, rate?))) {
            write!(f, "{comma}{key}={rate}")?;
            comma = ",";
        }
        Ok(())
    }
}

/// Rates for one disk: `[PATH|DEVICE:]RATES`, as in `/data:10M`, `/dev/sda:rbps=10M` or `8:0:wiops=100`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IoLimit {
    target: Option<PathBuf>,
    rates: IoRates,
}

impl IoLimit {
    /// What was given for the disk: an absolute path on it, its device node, or `MAJ:MIN`.
    #[must_use]
    pub fn target(&self) -> Option<&Path> {
        self.target.as_deref()
    }

    /// The rates.
    #[must_use]
    pub fn rates(&self) -> IoRates {
        self.rates
    }

    /// The whole disk that is limited: the target's, else that of `default` (the job's working directory).
    ///
    /// # Errors
    /// As [`resolve_disk`].
    pub fn disk(&self, default: &Path) -> Result<Disk, DiskError> {
        resolve_disk(self.target().unwrap_or(default))
    }
}

impl FromStr for IoLimit {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<IoLimit, ParseError> {
        // Rates hold no ':', so the last one ends the target, however many the target has.
        let (target, rates) = match text.rsplit_once(':') {
            Some((target, rates)) => (Some(target), rates),
            None => (None, text),
        };
        let rates = rates.parse().map_err(|_| ParseError::new(text, USAGE))?;
        if let Some(target) = target
            && (target.contains('\0') || !(target.starts_with('/') || is_device_number(target)))
        {
            let right = "an IO limit: in front of the last ':' give an absolute path (/data), a device (/dev/sda) \
                         or its number (8:0)";
            return Err(ParseError::new(text, right));
        }
        Ok(IoLimit { target: target.map(PathBuf::from), rates })
    }
}

fn is_device_number(text: &str) -> bool {
    text.parse::<crate::disk::DeviceNumber>().is_ok()
}

impl fmt::Display for IoLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Some(target) => write!(f, "{}:{}", target.display(), self.rates),
            None => self.rates.fmt(f),
        }
    }
}

serde_as_text!(IoRates, IoLimit);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets_end_at_the_last_colon() {
        for (text, target, rates) in [
            ("10M", None, "10MB"),
            ("/data:10M", Some("/data"), "10MB"),
            ("/a:5M:rbps=1MiB", Some("/a:5M"), "rbps=1MiB"),
            ("8:0:wiops=100", Some("8:0"), "wiops=100"),
            ("/dev/sda1:riops=7,rbps=1k", Some("/dev/sda1"), "rbps=1KB,riops=7"),
            ("rbps=10M,wbps=10000K", None, "10MB"),
        ] {
            let limit: IoLimit = text.parse().unwrap();
            assert_eq!(limit.target(), target.map(Path::new), "{text}");
            assert_eq!(limit.rates().to_string(), rates, "{text}");
        }
    }

    #[test]
    fn wrong_io_limits_are_refused_in_words() {
        for bad in [
            "",
            "0",
            "-1",
            "/data",
            "/data:",
            ":10M",
            "data:10M",
            "sda:10M",
            "/data:0",
            "/data:rbps=0",
            "8:0",
            "8:x:10M",
            "/data:rbps=1M,rbps=2M",
            "rbps=1M,",
            "speed=1M",
            "riops=1.5",
            "riops=4294967295",
            "/da\0ta:10M",
            "18446744073709551615",
        ] {
            let error = bad.parse::<IoLimit>().expect_err(bad).to_string();
            assert!(error.starts_with(&format!("{bad:?} is not an IO limit: ")), "{error}");
        }
    }

    fn rates() -> impl Strategy<Value = IoRates> {
        let bps = proptest::option::of((1..u64::MAX).prop_map(|rate| NonZeroU64::new(rate).unwrap()));
        let iops = proptest::option::of((1..IOPS_END).prop_map(|rate| NonZeroU64::new(rate).unwrap()));
        (bps.clone(), bps, iops.clone(), iops)
            .prop_map(|(rbps, wbps, riops, wiops)| IoRates { rbps, wbps, riops, wiops })
            .prop_filter("at least one rate", |rates| *rates != IoRates::none())
    }

    proptest! {
        #[test]
        fn round_trips(rates in rates(), target in proptest::option::of("/[^\0]*|[0-9]{1,3}:[0-9]{1,3}")) {
            let limit = IoLimit { target: target.map(PathBuf::from), rates };
            prop_assert_eq!(limit.to_string().parse::<IoLimit>(), Ok(limit));
        }

        #[test]
        fn no_text_panics(text in ".*|(/[a-z]*:)?([rw](bps|iops)=[0-9]{0,30}[kMG]?,?){0,4}") {
            let _ = text.parse::<IoLimit>();
        }
    }
}
