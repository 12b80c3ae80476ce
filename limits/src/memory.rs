//! Memory and swap limits, and the byte sizes they (and IO rates) are written in.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::LazyLock;

use bytesize::Unit;
use nix::unistd::{SysconfVar, sysconf};

use crate::text::{ParseError, decimal, serde_as_text};

/// An amount of memory: `500M` is 500 000 000 bytes, `512MiB` is 536 870 912.
///
/// At least one page, less than 8 EiB. The kernel counts in pages, so what is in force is this rounded down to a
/// multiple of the page size ([`page_bytes`](Self::page_bytes)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemorySize(NonZeroU64);

impl MemorySize {
    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0.get()
    }

    /// The page size of this machine in bytes, the least that can be limited.
    #[must_use]
    pub fn page_bytes() -> u64 {
        *PAGE_BYTES
    }
}

impl FromStr for MemorySize {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<MemorySize, ParseError> {
        let bytes = parse_memory(text, "a memory size")?;
        let page_bytes = MemorySize::page_bytes();
        NonZeroU64::new(bytes).filter(|bytes| bytes.get() >= page_bytes).map(MemorySize).ok_or_else(|| {
            let understood = format!("that is {bytes} bytes, and the least is one page, {page_bytes} bytes");
            ParseError::new(text, format!("a memory size: {understood}"))
        })
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_bytes(f, self.bytes())
    }
}

/// How much swap a job may use beside its memory; `0` for none. Written like a [`MemorySize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwapLimit(u64);

impl SwapLimit {
    /// No swap at all: the default under a memory limit, because swap only delays the verdict.
    pub const NONE: SwapLimit = SwapLimit(0);

    /// The limit in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for SwapLimit {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<SwapLimit, ParseError> {
        let bytes = parse_memory(text, "a swap limit")?;
        let page_bytes = MemorySize::page_bytes();
        if bytes != 0 && bytes < page_bytes {
            let understood =
                format!("that is {bytes} bytes; give 0 or at least one page, {page_bytes} bytes");
            return Err(ParseError::new(text, format!("a swap limit: {understood}")));
        }
        Ok(SwapLimit(bytes))
    }
}

impl fmt::Display for SwapLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            bytes => write_bytes(f, bytes),
        }
    }
}

serde_as_text!(MemorySize, SwapLimit);

/// sysconf(3) cannot fail for the page size; 4096 is the page size of x86-64.
static PAGE_BYTES: LazyLock<u64> = LazyLock::new(|| {
    sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|bytes| bytes.try_into().ok()).unwrap_or(4096)
});

fn parse_memory(text: &str, what: &str) -> Result<u64, ParseError> {
    let bytes = parse_bytes(text).map_err(|why| ParseError::new(text, format!("{what}: {why}")))?;
    // From LONG_MAX rounded down to pages on, the kernel takes a limit for `max` (PAGE_COUNTER_MAX).
    if bytes >= i64::MAX as u64 / MemorySize::page_bytes() * MemorySize::page_bytes() {
        return Err(ParseError::new(text, format!("{what}: it must be less than 8 EiB")));
    }
    Ok(bytes)
}

/// Reads a size with the units of the `bytesize` crate (`M` and `MB` are 10⁶, `Mi` and `MiB` 2²⁰, in either case),
/// but exactly: a size that does not fit or is not a whole number of bytes is refused, with the reason.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let usage = "give a number with a unit, like 500M (500000000 bytes), 512MiB or 1.5GiB";
    let unit_bytes = match unit.trim_start() {
        "" => 1,
        unit => unit.parse::<Unit>().map_err(|_| usage)? * 1,
    };
    if number.is_empty() || number == "." || number.matches('.').count() > 1 {
        return Err(usage.to_owned());
    }
    let fraction = number.split_once('.').map_or("", |(_, fraction)| fraction).trim_end_matches('0');
    // The finest fraction that can be whole bytes is of an exbibyte, 2⁻⁶⁰, but 18 digits are enough for anybody.
    if fraction.len() > 18 {
        return Err("that is not a whole number of bytes".to_owned());
    }
    match decimal(number, unit_bytes).map(u64::try_from) {
        Some(Ok(bytes)) => Ok(bytes),
        None if !fraction.is_empty() => Err("that is not a whole number of bytes".to_owned()),
        _ => Err("it must be less than 16 EiB".to_owned()),
    }
}

/// Writes a size as the shortest exact text: `512MiB`, `500MB`, `4097B`.
pub(crate) fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: u64) -> fmt::Result {
    let units =
        [(1024u64, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]), (1000, ["KB", "MB", "GB", "TB", "PB", "EB"])];
    let mut shortest = (bytes, "B");
    for (factor, names) in units {
        let mut rest = bytes;
        for name in names {
            if rest == 0 || !rest.is_multiple_of(factor) {
                break;
            }
            rest /= factor;
            if rest < shortest.0 {
                shortest = (rest, name);
            }
        }
    }
    write!(f, "{}{}", shortest.0, shortest.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_those_of_bytesize() {
        for (text, bytes, normal) in [
            ("500M", 500_000_000, "500MB"),
            ("500mb", 500_000_000, "500MB"),
            ("512MiB", 536_870_912, "512MiB"),
            ("512 mi", 536_870_912, "512MiB"),
            ("1.5GiB", 1_610_612_736, "1536MiB"),
            ("4097", 4097, "4097B"),
            ("65536 B", 65536, "64KiB"),
            ("9007199254740993B", 9_007_199_254_740_993, "9007199254740993B"),
        ] {
            let size: MemorySize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, normal), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_are_refused_in_words() {
        for (bad, why) in [
            ("0", "that is 0 bytes, and the least is one page"),
            ("128", "that is 128 bytes, and the least is one page"),
            ("-1", "give a number with a unit"),
            ("", "give a number with a unit"),
            ("1.5G B", "give a number with a unit"),
            ("12parsecs", "give a number with a unit"),
            ("1.2.3M", "give a number with a unit"),
            ("4096.5", "not a whole number of bytes"),
            ("1.00001K", "not a whole number of bytes"),
            ("99999999999T", "must be less than"),
            ("8EiB", "must be less than 8 EiB"),
        ] {
            let error = bad.parse::<MemorySize>().expect_err(bad).to_string();
            assert!(error.starts_with(&format!("{bad:?} is not a memory size: ")), "{error}");
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn swap_may_be_none() {
        assert_eq!("0".parse::<SwapLimit>(), Ok(SwapLimit::NONE));
        assert_eq!(SwapLimit::NONE.to_string(), "0");
        "1".parse::<SwapLimit>().expect_err("less than a page");
    }

    proptest! {
        #[test]
        fn memory_round_trips(bytes in 65536u64..1 << 62, unit in 0u32..6) {
            let bytes = (bytes >> (10 * unit)).max(64) << (10 * unit).max(10);
            prop_assume!(bytes < 1 << 62);
            let size = MemorySize(NonZeroU64::new(bytes).unwrap());
            prop_assert_eq!(size.to_string().parse::<MemorySize>(), Ok(size));
            let swap = SwapLimit(bytes);
            prop_assert_eq!(swap.to_string().parse::<SwapLimit>(), Ok(swap));
        }

        #[test]
        fn whole_sizes_agree_with_bytesize(number in 0u64..1 << 20, unit in "[kmgt]?i?b?|[KMGT]?B") {
            let text = format!("{number}{unit}");
            let theirs = text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64());
            prop_assert_eq!(parse_bytes(&text).ok(), theirs);
        }

        #[test]
        fn no_text_panics(text in ".*|[0-9.]{0,40} ?[kmgtpeKMGTPE]?i?b?") {
            let _ = (text.parse::<MemorySize>(), text.parse::<SwapLimit>());
        }
    }
}
