//! The deadline that a client sets for a call (`grpc-timeout`): what is not answered by then ends with
//! `DEADLINE_EXCEEDED`, an answer that lasts, too.
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::status::CallError;
use crate::audit::shorten;

/// The header.
const TIMEOUT: &str = "grpc-timeout";

/// The most digits of a timeout.
const MAX_DIGITS: usize = 8;

/// Bytes of a bad timeout that the error repeats.
const SHOWN_BYTES: usize = 64;

/// When a call has to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// The deadline of a call that begins now; `None` for a call without one.
    ///
    /// # Errors
    /// When the header is there and holds no timeout.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, CallError> {
        let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
        let text = String::from_utf8_lossy(value.as_bytes());
        let timeout = parse(&text)
            .ok_or_else(|| CallError::Timeout { text: shorten(&text, SHOWN_BYTES).into_owned() })?;
        // What no clock reaches is no deadline.
        Ok(Instant::now().checked_add(timeout).map(|at| Self { at, timeout }))
    }

    /// Returns once it has passed, with what to answer.
    pub(super) async fn passed(self) -> CallError {
        tokio::time::sleep_until(self.at).await;
        CallError::Deadline { timeout: self.timeout }
    }
}

/// One to eight digits and a unit: `100m` are 100 milliseconds.
fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    let is_number =
        (1..=MAX_DIGITS).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    match unit {
        'H' => Some(Duration::from_secs(number * 3600)),
        'M' => Some(Duration::from_secs(number * 60)),
        'S' => Some(Duration::from_secs(number)),
        'm' => Some(Duration::from_millis(number)),
        'u' => Some(Duration::from_micros(number)),
        'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_a_unit_are_a_timeout() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("100m", Duration::from_millis(100)),
            ("7u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in ["", "m", "1", "1s", "1 m", "-1m", "+1m", "123456789m", "1.5S", "1é", "١S"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_bad_one_is_named_and_none_is_none() {
        let mut headers = HeaderMap::new();
        assert!(matches!(Deadline::of(&headers), Ok(None)));
        headers.insert(TIMEOUT, "soon".parse().unwrap());
        let error = Deadline::of(&headers).unwrap_err().to_string();
        assert!(error.contains("\"soon\"") && error.contains("grpc-timeout"), "{error}");
    }
}
