//! What a line of the audit log says: as JSON, beside its time; and as an event of the log, with the same fields.
//!
//! Who writes JSON escapes what has to be, and every text is cut to a length of its own, so nobody can write a line of
//! their own, or one above [`MAX_LINE_BYTES`].

use jiff::Timestamp;
use serde::Serialize;

use super::{MAX_TEXT_BYTES, TARGET, shorten};
use crate::job::census::JobEnd;
use crate::job::engine::describe;
use crate::job::{Ended, Outcome, Spec};
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
    Connection(Refused),
    /// A job is removed that no client asked to remove.
    Removal(Removed),
    /// A job has ended.
    JobEnd(Box<JobEnded>),
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

/// Of [`Event::Connection`].
#[derive(Debug, Serialize)]
pub(super) struct Refused {
    pub(super) decision: &'static str,
    pub(super) reason: String,
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

/// Of [`Event::JobEnd`]. Fields of a [`Decided`] have the same meaning, of whoever started the job.
#[derive(Debug, Default, Serialize)]
pub(super) struct JobEnded {
    pub(super) job: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) common_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint: Option<String>,
    /// The OS user that it ran as.
    pub(super) user: String,
    /// The outcome's kind.
    pub(super) outcome: &'static str,
    /// The outcome for people.
    pub(super) ended: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stopped_by: Option<String>,
    /// Of a job that is out of memory: whether its own limit was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) own_limit: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lost_reason: Option<String>,
    pub(super) started_at: String,
    pub(super) ended_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_usec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_peak_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output_bytes: Option<u64>,
    pub(super) output_lost_bytes: u64,
    /// It had ended before this worker ran.
    pub(super) late: bool,
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

impl JobEnded {
    pub(super) fn of(end: &JobEnd<'_>) -> Self {
        let JobEnd { job, folder, state, finished, is_from_before } = *end;
        // The end is told though the rest can't be.
        let spec =
            folder.spec().inspect_err(|error| tracing::warn!(%error, "who owns an ended job can't be read"));
        let text = |text: &str| shorten(text, MAX_TEXT_BYTES).into_owned();
        let (ended, outcome) = (finished.outcome.ended(), &finished.outcome);
        let ended_line = Self {
            job: job.to_string(),
            user: text(&state.user),
            outcome: outcome.kind().as_str(),
            ended: text(describe(outcome).trim_start_matches("it ")),
            exit_code: ended
                .and_then(|ended| if let Ended::Exited(code) = ended { Some(code) } else { None }),
            exit_signal: ended
                .and_then(|ended| if let Ended::Signaled(no) = ended { Some(no) } else { None }),
            stopped_by: if let Outcome::Stopped { by, .. } = outcome { Some(text(by)) } else { None },
            own_limit: if let Outcome::OutOfMemory { own_limit, .. } = outcome {
                Some(*own_limit)
            } else {
                None
            },
            lost_reason: if let Outcome::Lost { reason } = outcome { Some(text(reason)) } else { None },
            started_at: rfc3339(state.started_unix_usec),
            ended_at: rfc3339(finished.at_unix_usec),
            cpu_usec: finished.usage.cpu_usec,
            memory_peak_bytes: finished.usage.memory_peak_bytes,
            output_bytes: finished.output_bytes,
            output_lost_bytes: finished.output_lost_bytes,
            late: is_from_before,
            ..Self::default()
        };
        match spec.ok().flatten() {
            Some(spec) => ended_line.owned_as(&spec),
            None => ended_line,
        }
    }

    fn owned_as(self, spec: &Spec) -> Self {
        let text = |text: &str| Some(shorten(text, MAX_TEXT_BYTES).into_owned());
        let owner = &spec.owner;
        Self {
            name: spec.request.name.as_deref().and_then(text),
            client: text(&owner.name),
            common_name: text(&owner.common_name),
            role: text(&owner.role),
            serial: text(&owner.serial),
            fingerprint: text(&owner.fingerprint_sha256),
            ..self
        }
    }
}

impl Event {
    /// One line, with its end.
    pub(super) fn to_json(&self) -> String {
        let line = Line { time: rfc3339(clock::unix_usec()), event: self };
        // Fails for maps whose keys are no texts; there are none.
        let mut json = serde_json::to_string(&line).unwrap_or_default();
        json.push('\n');
        json
    }

    /// Writes it among the log.
    pub(super) fn log(&self) {
        match self {
            Self::Decision(decided) => decided.log(),
            Self::Connection(Refused { decision, reason, peer, action }) => {
                tracing::info!(target: TARGET, decision, reason, peer, action, "decision");
            }
            Self::Removal(Removed { decision, rule, by, action, job }) => {
                tracing::info!(target: TARGET, decision, rule, by, action, job, "decision");
            }
            Self::JobEnd(ended) => ended.log(),
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

impl JobEnded {
    fn log(&self) {
        tracing::info!(
            target: TARGET,
            job = self.job,
            name = self.name,
            client = self.client,
            common_name = self.common_name,
            role = self.role,
            serial = self.serial,
            fingerprint = self.fingerprint,
            user = self.user,
            outcome = self.outcome,
            ended = self.ended,
            exit_code = self.exit_code,
            exit_signal = self.exit_signal,
            stopped_by = self.stopped_by,
            own_limit = self.own_limit,
            lost_reason = self.lost_reason,
            started_at = self.started_at,
            ended_at = self.ended_at,
            cpu_usec = self.cpu_usec,
            memory_peak_bytes = self.memory_peak_bytes,
            output_bytes = self.output_bytes,
            output_lost_bytes = self.output_lost_bytes,
            late = self.late,
            "job_end"
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
