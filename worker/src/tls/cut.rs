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

use jobworker_certs::{ChainFault, Fault};
use rustls::pki_types::UnixTime;

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
    pub(super) fn of(name: &str, verified: &Result<(), ChainFault>) -> Option<Self> {
        let Err(fault) = verified else { return None };
        Some(Self { name: name.to_owned(), why: Why::of(fault)? })
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
    fn of(ChainFault { ca, fault }: &ChainFault) -> Option<Self> {
        Some(match (ca, fault) {
            (_, Fault::NotYetValid(_)) => return None,
            (None, Fault::Revoked) => Self::Revoked,
            (None, Fault::Expired(end)) => Self::Expired(utc(*end)),
            (None, Fault::UnknownIssuer | Fault::OtherIssuer) => Self::ForeignCa,
            (None, Fault::RevocationListExpired(Some(end))) => Self::ListExpired(utc(*end)),
            (None, Fault::NoRevocationList) => Self::NoList,
            (None, fault) => Self::Other(format!("it {}", fault.words(utc))),
            (Some(ca), fault) => {
                Self::Other(format!("it comes from the CA {ca:?}, whose certificate {}", fault.words(utc)))
            }
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

    fn words(ca: Option<&str>, fault: Fault) -> Option<String> {
        let fault = ChainFault { ca: ca.map(str::to_owned), fault };
        CutOff::of("bob", &Err(fault)).map(|cut| cut.to_string())
    }

    #[test]
    fn what_is_good_goes_on_and_so_does_what_was() {
        assert_eq!(CutOff::of("bob", &Ok(())), None);
        assert_eq!(words(None, Fault::NotYetValid(5)), None);
        assert_eq!(words(Some("CA"), Fault::NotYetValid(5)), None);
    }

    #[test]
    fn everything_else_is_cut_off_in_words() {
        let (end, date) = (1_900_000_000, "2030-03-17T17:46:40Z");
        let unknown = "can't be checked for revocation any more: ";
        for (fault, expected) in [
            (Fault::Revoked, "was revoked".to_owned()),
            (Fault::Expired(end), format!("expired on {date}")),
            (Fault::UnknownIssuer, "is no longer signed by a CA of --ca".to_owned()),
            (Fault::OtherIssuer, "is no longer signed by a CA of --ca".to_owned()),
            (
                Fault::RevocationListExpired(Some(end)),
                format!("{unknown}the list in --crl expired on {date}"),
            ),
            (Fault::NoRevocationList, format!("{unknown}--crl has no list of the CA that signed it")),
            (Fault::Other("is odd".to_owned()), "is no longer acceptable: it is odd".to_owned()),
        ] {
            assert_eq!(words(None, fault), Some(format!("certificate of bob {expected}")));
        }
        let of_ca = words(Some("CA"), Fault::Expired(end)).unwrap();
        assert!(
            of_ca.ends_with(&format!("it comes from the CA \"CA\", whose certificate expired on {date}")),
            "{of_ca}"
        );
    }

    #[test]
    fn the_last_second_is_over_when_it_has_begun() {
        let second = |nanos| second_of(UNIX_EPOCH + Duration::new(7, nanos)).as_secs();
        assert_eq!((second(0), second(1), second(999_999_999)), (7, 8, 8));
    }
}
