//! What ends when, of the files in force, and when the log says so beforehand: 30, 7 and 1 days before the end, and at the
//! end.
//!
//! ```text
//!  ────────────────┬──────────────┬───────────┬──────────▶ time
//!       nothing    │   30 days    │  7 days   │  1 day  │ ended
//! ```
//!
//! A line comes when a boundary is passed, once; and when the files are read, if one has been by then.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::identity::utc;

const DAY_SEC: i64 = 86_400;
const TWO_DAYS_SEC: i64 = 2 * DAY_SEC;

/// A file of the PKI in use, or a part of it, which ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// What it is.
    pub what: What,
    /// Its file.
    pub path: PathBuf,
    /// Whose it is: a common name, else the whole subject; of a list, the CA's.
    pub subject: String,
    /// A certificate's last second, a list's next update; in seconds since the Unix epoch.
    pub not_after_unix_sec: i64,
}

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The worker's certificate.
    Server,
    /// A certificate between it and its CA.
    Intermediate,
    /// A CA of `--ca`.
    Ca,
    /// A list of `--crl`.
    RevocationList,
    /// The CA of `--renew-ca`.
    RenewalCa,
}

/// How near an end is; the later, the more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// More than 30 days.
    None,
    Month,
    Week,
    Day,
    Ended,
}

impl Urgency {
    /// The boundaries, in seconds before the end.
    const BEFORE: [(Self, i64); 4] =
        [(Self::Month, 30 * DAY_SEC), (Self::Week, 7 * DAY_SEC), (Self::Day, DAY_SEC), (Self::Ended, 0)];

    /// At `now`, of what ends at `end`; both in seconds since the Unix epoch.
    pub(super) fn of(end: i64, now: i64) -> Self {
        let passed =
            Self::BEFORE.into_iter().rev().find(|(_, before_sec)| end.saturating_sub(*before_sec) <= now);
        passed.map_or(Self::None, |(urgency, _)| urgency)
    }

    /// When it changes next.
    pub(super) fn next(end: i64, now: i64) -> Option<i64> {
        Self::BEFORE.into_iter().map(|(_, before_sec)| end.saturating_sub(before_sec)).find(|at| *at > now)
    }
}

impl Expiry {
    /// The line of the log.
    pub(super) fn words(&self, now: i64) -> String {
        let (path, end) = (self.path.display(), utc(self.not_after_unix_sec));
        let left_sec = self.not_after_unix_sec.saturating_sub(now);
        let when = match left_sec {
            ..=0 => format!("ended on {end}"),
            1..DAY_SEC => format!("ends in less than a day, on {end}"),
            DAY_SEC..TWO_DAYS_SEC => format!("ends in 1 day, on {end}"),
            _ => format!("ends in {} days, on {end}", left_sec / DAY_SEC),
        };
        format!("{} {path} ({}) {when}; {}", self.what, self.subject, self.what.remedy(&self.path))
    }
}

impl What {
    fn remedy(self, path: &Path) -> String {
        match self {
            Self::Server => {
                "clients refuse the worker from then on: make a new one (jobworker certs server --force) and put it and \
                 its key in place; they are read without a restart"
                    .to_owned()
            }
            Self::Intermediate => {
                format!("have that CA renewed and put its new certificate into {}", path.display())
            }
            Self::Ca => "all certificates that it signed end with it: make a new CA (jobworker certs init), add its \
                         certificate to this file, and give out new certificates"
                .to_owned(),
            Self::RevocationList => {
                "with it everybody whom that CA has signed is refused and cut off: make a new one (openssl ca -gencrl, \
                 jobworker certs revoke) and put it in place; it is read without a restart"
                    .to_owned()
            }
            Self::RenewalCa => "what it renews ends with it, and from then on it renews nothing: make a new one (jobworker \
                                certs init), add it to --ca and its list to --crl, and restart the worker"
                .to_owned(),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "the worker's certificate",
            Self::Intermediate => "the intermediate certificate in",
            Self::Ca => "the CA in",
            Self::RevocationList => "the revocation list",
            Self::RenewalCa => "the renewal CA",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: i64 = 1_900_000_000;

    #[test]
    fn each_boundary_counts_from_its_second_on() {
        for (before_sec, expected) in [
            (30 * DAY_SEC + 1, Urgency::None),
            (30 * DAY_SEC, Urgency::Month),
            (7 * DAY_SEC + 1, Urgency::Month),
            (7 * DAY_SEC, Urgency::Week),
            (DAY_SEC, Urgency::Day),
            (1, Urgency::Day),
            (0, Urgency::Ended),
            (-5, Urgency::Ended),
        ] {
            assert_eq!(Urgency::of(END, END - before_sec), expected, "{before_sec} s before");
        }
    }

    #[test]
    fn a_clock_that_sleeps_until_the_next_boundary_misses_none() {
        let (mut now, mut seen) = (END - 100 * DAY_SEC, vec![Urgency::None]);
        while let Some(next) = Urgency::next(END, now) {
            assert!(next > now);
            now = next;
            seen.push(Urgency::of(END, now));
        }
        assert_eq!(seen, [Urgency::None, Urgency::Month, Urgency::Week, Urgency::Day, Urgency::Ended]);
        assert_eq!(now, END);
        assert_eq!((Urgency::next(i64::MIN, 0), Urgency::of(i64::MIN, 0)), (None, Urgency::Ended));
    }

    #[test]
    fn a_line_names_the_file_the_end_and_what_to_do() {
        let expiry = |what| Expiry {
            what,
            path: "/etc/x.pem".into(),
            subject: "worker 7".to_owned(),
            not_after_unix_sec: END,
        };
        let words = expiry(What::Server).words(END - 7 * DAY_SEC);
        let begin =
            "the worker's certificate /etc/x.pem (worker 7) ends in 7 days, on 2030-03-17T17:46:40Z; ";
        assert!(words.starts_with(begin) && words.contains("certs server --force"), "{words}");
        assert!(expiry(What::Ca).words(END - 1).contains("ends in less than a day, on 2030"));
        assert!(expiry(What::Ca).words(END - 2 * DAY_SEC + 1).contains("ends in 1 day, on 2030"));
        assert!(expiry(What::Ca).words(END - 2 * DAY_SEC).contains("ends in 2 days, on 2030"));
        let words = expiry(What::RevocationList).words(END + 3);
        assert!(words.contains("ended on 2030") && words.contains("gencrl"), "{words}");
    }
}
