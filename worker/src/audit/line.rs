//! What a line of the audit log says: as JSON, beside its time; and as an event of the log, with the same fields.
//!
//! Who writes JSON escapes what has to be, and every text is cut to a length of its own, so nobody can write a line of
//! their own, or one above [`MAX_LINE_BYTES`].

use jiff::Timestamp;
use jobworker_certs::visible_json;
use serde::Serialize;

use super::job_ended::JobEnded;
use super::{Caller, MAX_TEXT_BYTES, TARGET, shorten};
use crate::shim::clock;

/// Above any line's length: each of a line's fifteen texts may be a kilobyte, the command line four, and JSON writes a
/// control character in six.
pub(super) const MAX_LINE_BYTES: usize = 128 << 10;

/// What has happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// A call was decided on.
    Decision(Box<Decided>),
    /// A connection was refused before anything could be asked on it.
    Connection(Box<Refused>),
    /// A job is removed that no client asked to remove.
    Removal(Removed),
    /// A job has ended.
    JobEnd(Box<JobEnded>),
    /// A client has its next certificate.
    CertificateIssued(Box<Issued>),
}

/// Of [`Event::Decision`].
#[derive(Debug, Default, Serialize)]
pub(super) struct Decided {
    pub(super) decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    pub(super) client: String,
    pub(super) common_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<String>,
    pub(super) serial: String,
    pub(super) fingerprint: String,
    pub(super) peer: String,
    pub(super) action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) job: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) argv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limits: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signal: Option<String>,
}

/// Of [`Event::Connection`]. What is claimed is what the certificate says that was not good.
#[derive(Debug, Default, Serialize)]
pub(super) struct Refused {
    pub(super) decision: &'static str,
    pub(super) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claimed_client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claimed_role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claimed_serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claimed_fingerprint: Option<String>,
    pub(super) peer: String,
    pub(super) action: &'static str,
}

/// Of [`Event::Removal`].
#[derive(Debug, Serialize)]
pub(super) struct Removed {
    pub(super) decision: &'static str,
    pub(super) rule: String,
    pub(super) by: &'static str,
    pub(super) action: &'static str,
    pub(super) job: String,
}

/// Of [`Event::CertificateIssued`]: to whom, by which certificate; and what names the new one in a revocation list.
#[derive(Debug, Serialize)]
pub(super) struct Issued {
    pub(super) decision: &'static str,
    pub(super) rule: String,
    pub(super) client: String,
    pub(super) common_name: String,
    pub(super) role: Option<String>,
    pub(super) serial: String,
    pub(super) fingerprint: String,
    pub(super) peer: String,
    pub(super) action: &'static str,
    pub(super) new_serial: String,
    pub(super) new_fingerprint: String,
    pub(super) new_not_after: String,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

/// A moment in UTC, as RFC 3339 writes it, to the microsecond.
pub(super) fn rfc3339(unix_usec: u64) -> String {
    let time = i64::try_from(unix_usec).ok().and_then(|usec| Timestamp::from_microsecond(usec).ok());
    // Beyond the year 9999 no clock is right.
    format!("{:.6}", time.unwrap_or(Timestamp::MAX))
}

impl Event {
    /// One line, with its end.
    pub(super) fn to_json(&self) -> String {
        let line = Line { time: rfc3339(clock::unix_usec()), event: self };
        // Fails for maps whose keys are no texts; there are none.
        let json = serde_json::to_string(&line).unwrap_or_default();
        let mut json = visible_json(&json).into_owned();
        json.push('\n');
        json
    }

    /// Writes it among the log.
    pub(super) fn log(&self) {
        match self {
            Self::Decision(decided) => decided.log(),
            Self::Connection(refused) => refused.log(),
            Self::Removal(Removed { decision, rule, by, action, job }) => {
                tracing::info!(target: TARGET, decision, rule, by, action, job, "removal");
            }
            Self::JobEnd(ended) => ended.log(),
            Self::CertificateIssued(issued) => issued.log(),
        }
    }
}

impl Decided {
    fn log(&self) {
        tracing::info!(
            target: TARGET,
            decision = self.decision,
            rule = self.rule,
            reason = self.reason,
            client = self.client,
            common_name = self.common_name,
            role = self.role,
            serial = self.serial,
            fingerprint = self.fingerprint,
            peer = self.peer,
            action = self.action,
            job = self.job,
            argv = self.argv,
            limits = self.limits,
            user = self.user,
            signal = self.signal,
            "decision"
        );
    }
}

impl Refused {
    pub(super) fn by(self, caller: &Caller<'_>) -> Self {
        let text = |text: &str| Some(shorten(text, MAX_TEXT_BYTES).into_owned());
        match caller {
            Caller::Unknown => self,
            Caller::Verified(Ok(identity)) => Self {
                client: text(&identity.name),
                role: identity.role.as_deref().ok().and_then(text),
                serial: text(&identity.serial),
                fingerprint: text(&identity.fingerprint_sha256),
                ..self
            },
            Caller::Verified(Err(nameless)) => Self {
                serial: text(&nameless.serial),
                fingerprint: text(&nameless.fingerprint_sha256),
                ..self
            },
            Caller::Claimed(Err(nameless)) => Self {
                claimed_serial: text(&nameless.serial),
                claimed_fingerprint: text(&nameless.fingerprint_sha256),
                ..self
            },
            Caller::Claimed(Ok(identity)) => Self {
                claimed_client: text(&identity.name),
                claimed_role: identity.role.as_deref().ok().and_then(text),
                claimed_serial: text(&identity.serial),
                claimed_fingerprint: text(&identity.fingerprint_sha256),
                ..self
            },
        }
    }

    fn log(&self) {
        tracing::info!(
            target: TARGET,
            // Not among the spans of the connection: they say the same.
            parent: None,
            decision = self.decision,
            reason = self.reason,
            client = self.client,
            role = self.role,
            serial = self.serial,
            fingerprint = self.fingerprint,
            claimed_client = self.claimed_client,
            claimed_role = self.claimed_role,
            claimed_serial = self.claimed_serial,
            claimed_fingerprint = self.claimed_fingerprint,
            peer = self.peer,
            action = self.action,
            "connection"
        );
    }
}

impl Issued {
    fn log(&self) {
        tracing::info!(
            target: TARGET,
            decision = self.decision,
            rule = self.rule,
            client = self.client,
            common_name = self.common_name,
            role = self.role,
            serial = self.serial,
            fingerprint = self.fingerprint,
            peer = self.peer,
            action = self.action,
            new_serial = self.new_serial,
            new_fingerprint = self.new_fingerprint,
            new_not_after = self.new_not_after,
            "certificate_issued"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_to_the_microsecond() {
        assert_eq!(rfc3339(1_795_291_204_000_007), "2026-11-21T20:00:04.000007Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(u64::MAX).len(), 27);
    }

    #[test]
    fn nobody_hides_what_a_line_says() {
        let removed = |by: &str| Removed {
            decision: "allowed",
            rule: by.to_owned(),
            by: "retention",
            action: "remove",
            job: String::new(),
        };
        let odd = "a\u{202e}b\u{200b}c\u{9b}";
        let json = Event::Removal(removed(odd)).to_json();
        assert!(json.contains(r"a\u202eb\u200bc\u009b"), "{json}");
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["rule"], odd);
    }

    /// Of texts that JSON makes as long as it can.
    #[test]
    fn the_longest_line_is_within_its_bound() {
        let text = shorten(&"\u{1}".repeat(1 << 20), MAX_TEXT_BYTES).into_owned();
        let some = || Some(text.clone());
        let argv = super::super::argv(std::iter::repeat_n(&[1; 1 << 20][..], 3));
        let decided = Decided {
            decision: "invalid",
            rule: some(),
            reason: some(),
            client: text.clone(),
            common_name: text.clone(),
            role: some(),
            serial: text.clone(),
            fingerprint: text.clone(),
            peer: text.clone(),
            action: text.clone(),
            job: some(),
            argv: Some(argv),
            limits: some(),
            user: some(),
            signal: some(),
        };
        let json = Event::Decision(Box::new(decided)).to_json();
        assert!((100_000..MAX_LINE_BYTES).contains(&json.len()), "{}", json.len());
        assert_eq!(json.lines().count(), 1);
    }
}
