//! How long a certificate lives.

use std::{fmt, str::FromStr};

use time::{Duration, OffsetDateTime};

use crate::{Error, InvalidValue};

/// A certificate is valid from a little before it was made, so that a host whose clock is behind accepts it at once.
const CLOCK_SKEW: Duration = Duration::minutes(5);

/// A life in days, 1 to 36500, counted from the second the certificate is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(u16);

impl Days {
    /// The usual life of a CA and of a server's certificate.
    pub const YEAR: Self = Self(365);
    /// The usual life of a person's certificate.
    pub const CLIENT: Self = Self(45);
}

impl FromStr for Days {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.parse() {
            Ok(days @ 1..=36_500) => Ok(Self(days)),
            _ => Err(InvalidValue {
                field: "days",
                value: text.to_owned(),
                expected: "a whole number of days, 1 to 36500",
            }),
        }
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The first and the last second of a certificate.
pub(crate) struct Validity {
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl Validity {
    pub(crate) fn starting(now: OffsetDateTime, days: Days) -> Self {
        let now = whole_second(now);
        Self { not_before: now - CLOCK_SKEW, not_after: now + Duration::days(days.0.into()) }
    }

    /// The same, ending with the CA at the latest: a certificate that outlives its CA lies about its end.
    ///
    /// # Errors
    /// [`Error::AuthorityExpired`]
    pub(crate) fn within(self, now: OffsetDateTime, authority_end: OffsetDateTime) -> Result<Self, Error> {
        if authority_end <= now {
            return Err(Error::AuthorityExpired { not_after: authority_end });
        }
        Ok(Self { not_after: self.not_after.min(authority_end), ..self })
    }
}

/// X.509 times have no fractions (RFC 5280 §4.1.2.5).
fn whole_second(time: OffsetDateTime) -> OffsetDateTime {
    time - Duration::nanoseconds(time.nanosecond().into())
}

/// A UTC time for people: `2027-01-31 08:05:09 UTC`.
#[must_use]
pub fn utc_text(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC);
    let (date, clock) = (time.date(), time.time());
    let (hour, minute, second) = clock.as_hms();
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use time::{Date, Month, Time};

    use super::*;

    fn noon() -> OffsetDateTime {
        let date = Date::from_calendar_date(2026, Month::February, 3).unwrap();
        OffsetDateTime::new_utc(date, Time::from_hms_nano(12, 5, 9, 999_999_999).unwrap())
    }

    #[test]
    fn days_are_counted_from_now_to_the_second() {
        let validity = Validity::starting(noon(), Days(45));
        assert_eq!(utc_text(validity.not_before), "2026-02-03 12:00:09 UTC");
        assert_eq!(utc_text(validity.not_after), "2026-03-20 12:05:09 UTC");
        assert_eq!(validity.not_after.nanosecond(), 0);
    }

    #[test]
    fn a_leaf_ends_with_its_authority() {
        let year = Validity::starting(noon(), Days::YEAR);
        let authority_end = noon() + Duration::days(10);
        assert_eq!(year.within(noon(), authority_end).unwrap().not_after, authority_end);
        let short = Validity::starting(noon(), Days(9));
        assert_eq!(
            utc_text(short.within(noon(), authority_end).unwrap().not_after),
            "2026-02-12 12:05:09 UTC"
        );
    }

    #[test]
    fn an_ended_authority_issues_nothing() {
        let result = Validity::starting(noon(), Days(1)).within(noon(), noon() - Duration::seconds(1));
        let error = result.err().unwrap().to_string();
        assert_eq!(error, "the CA ended on 2026-02-03 12:05:08 UTC: make a new one in another folder");
    }

    #[test]
    fn days_out_of_range_are_refused() {
        for text in ["0", "-1", "36501", "1.5", "", "forever", "99999999999"] {
            let error = text.parse::<Days>().unwrap_err();
            assert_eq!(error.to_string(), format!("days {text:?}: a whole number of days, 1 to 36500"));
        }
        assert_eq!("36500".parse::<Days>().unwrap().to_string(), "36500");
    }
}
