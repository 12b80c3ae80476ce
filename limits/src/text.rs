//! What every value with a text form shares: the parse error, whole and decimal numbers, and serde by that text.

/// A text that is not the value it should be. Displays as `"1.5G B" is not a memory size: …what would be right…`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct ParseError {
    /// The text as it was given.
    pub value: String,
    /// What it should have been and, after a colon, what would be right or what is wrong with it.
    pub expected: String,
}

impl ParseError {
    pub(crate) fn new(value: &str, expected: impl Into<String>) -> ParseError {
        ParseError { value: value.to_owned(), expected: expected.into() }
    }
}

/// Reads `12`, `1.5` or `.5` exactly, as a whole number of `1/scale`; `None` where it is no such number or is finer.
pub(crate) fn decimal(text: &str, scale: u64) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled_fraction = digits(fraction)?.checked_mul(u128::from(scale))?;
    if scaled_fraction % divisor != 0 {
        return None;
    }
    digits(whole)?.checked_mul(u128::from(scale))?.checked_add(scaled_fraction / divisor)
}

/// Digits only: `str::parse` would take a sign, too. No digits at all count as zero.
fn digits(text: &str) -> Option<u128> {
    match text {
        "" => Some(0),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// Reads a whole number without sign.
pub(crate) fn whole(text: &str) -> Option<u64> {
    if text.is_empty() { None } else { u64::try_from(digits(text)?).ok() }
}

/// Makes serde carry a value as its text form, parsed and checked on the way in.
macro_rules! serde_as_text {
    ($($name:ty),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(crate) use serde_as_text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(decimal("1.5", 1000), Some(1500));
        assert_eq!(decimal(".5", 1000), Some(500));
        assert_eq!(decimal("1.500000", 1000), Some(1500));
        assert_eq!(decimal("0.0005", 1000), None);
        for bad in ["", ".", "-1", "+1", "1e3", "1.2.3", "1,5", "٣", "inf", "NaN"] {
            assert_eq!(decimal(bad, 1000), None, "{bad:?}");
        }
        assert_eq!(decimal(&"9".repeat(60), 1000), None);
    }
}
