//! When a client's certificate, in use on connections, is one no more, and what becomes of them. A connection outlives
//! its certificate; calls on it must not.
//!
//! ```text
//!               verified again: after each reload of the files, when a date in the chain or of a
//!               list has passed, when the clock was set
//!              ┌──────────┐
//!  handshake ──▶   good   ├──┐ still good
//!              └────┬───▲─┘  │
//!                   │   └────┘
//!                   │ not good any more: the table `CutOff::of`
//!                   ▼
//!              ┌──────────┐  each further call: UNAUTHENTICATED
//!              │   cut    │  streams and waits: end with that, at once
//!              └────┬─────┘
//!                   │ CLOSE_AFTER, so that the words arrive
//!                   ▼
//!                closed
//! ```
//!
//! There is no way back: a certificate that becomes good again opens new connections.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error};

use crate::identity::utc;

/// From the end of a connection's calls to its own.
pub(super) const CLOSE_AFTER: Duration = Duration::from_millis(500);

/// Why the certificate of a connection's client is good no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate of {name} {why}")]
pub struct CutOff {
    /// Whose.
    pub(crate) name: String,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Why {
    #[error("was revoked")]
    Revoked,
    #[error("expired on {0}")]
    Expired(String),
    #[error("is no longer signed by a CA of --ca")]
    ForeignCa,
    #[error("can't be checked for revocation any more: the list in --crl expired on {0}")]
    ListExpired(String),
    #[error("can't be checked for revocation any more: --crl has no list of the CA that signed it")]
    NoList,
    #[error("is no longer acceptable: {0}")]
    Other(String),
}

impl CutOff {
    /// What a verification says about a connection of `name`; `None` where it goes on.
    ///
    /// | the certificate is | then |
    /// |---|---|
    /// | good | it goes on |
    /// | not valid yet | it goes on: it was, so the clock was set back, which takes no right away |
    /// | anything else | cut |
    pub(super) fn of(name: &str, verified: &Result<(), Error>) -> Option<Self> {
        let Err(error) = verified else { return None };
        let why = match error {
            Error::InvalidCertificate(error) => Why::of(error)?,
            // There is one by that name, and it is another CA's.
            Error::InvalidCertRevocationList(_) => Why::NoList,
            other => Why::Other(other.to_string()),
        };
        Some(Self { name: name.to_owned(), why })
    }

    /// For metrics: one word of few.
    pub(crate) fn label(&self) -> &'static str {
        match self.why {
            Why::Revoked => "revoked",
            Why::Expired(_) => "expired",
            Why::ForeignCa => "other_ca",
            Why::ListExpired(_) | Why::NoList => "revocation_unknown",
            Why::Other(_) => "certificate",
        }
    }

    /// A certificate whose last second has passed.
    pub(crate) fn expired(name: &str, not_after_unix_sec: i64) -> Self {
        Self { name: name.to_owned(), why: Why::Expired(utc(not_after_unix_sec)) }
    }
}

impl Why {
    fn of(error: &CertificateError) -> Option<Self> {
        let date = |time: &UnixTime| i64::try_from(time.as_secs()).map_or_else(|_| String::new(), utc);
        Some(match error {
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => return None,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired(date(not_after)),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::ForeignCa,
            CertificateError::ExpiredRevocationListContext { next_update, .. } => {
                Self::ListExpired(date(next_update))
            }
            CertificateError::UnknownRevocationStatus => Self::NoList,
            other => Self::Other(other.to_string()),
        })
    }
}

/// The first whole second that is not before `now`, so that what ends with a second has ended as soon as that has begun.
pub(super) fn second_of(now: SystemTime) -> UnixTime {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(since.as_secs() + u64::from(since.subsec_nanos() > 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(error: CertificateError) -> Option<String> {
        CutOff::of("bob", &Err(Error::InvalidCertificate(error))).map(|cut| cut.to_string())
    }

    #[test]
    fn what_is_good_goes_on_and_so_does_what_was() {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(5));
        assert_eq!(CutOff::of("bob", &Ok(())), None);
        assert_eq!(words(CertificateError::NotValidYet), None);
        assert_eq!(words(CertificateError::NotValidYetContext { time, not_before: time }), None);
    }

    #[test]
    fn everything_else_is_cut_off_in_words() {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000));
        let date = "2030-03-17T17:46:40Z";
        for (error, expected) in [
            (CertificateError::Revoked, "was revoked".to_owned()),
            (CertificateError::ExpiredContext { time, not_after: time }, format!("expired on {date}")),
            (CertificateError::UnknownIssuer, "is no longer signed by a CA of --ca".to_owned()),
            (CertificateError::BadSignature, "is no longer signed by a CA of --ca".to_owned()),
            (
                CertificateError::ExpiredRevocationListContext { time, next_update: time },
                format!("can't be checked for revocation any more: the list in --crl expired on {date}"),
            ),
            (
                CertificateError::UnknownRevocationStatus,
                "can't be checked for revocation any more: --crl has no list of the CA that signed it"
                    .to_owned(),
            ),
        ] {
            assert_eq!(words(error), Some(format!("certificate of bob {expected}")));
        }
        assert!(words(CertificateError::BadEncoding).unwrap().contains("no longer acceptable"));
        assert!(CutOff::of("bob", &Err(Error::DecryptError)).is_some());
    }

    #[test]
    fn the_last_second_is_over_when_it_has_begun() {
        let second = |nanos| second_of(UNIX_EPOCH + Duration::new(7, nanos)).as_secs();
        assert_eq!((second(0), second(1), second(999_999_999)), (7, 8, 8));
    }
}
