//! The line of a job's end.

use serde::Serialize;

use super::line::rfc3339;
use super::{MAX_TEXT_BYTES, TARGET, shorten};
use crate::job::census::JobEnd;
use crate::job::engine::describe;
use crate::job::{Ended, Outcome, Spec};

/// Its fields. Those of a decision have the same meaning, of whoever started the job.
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
    pub(super) ran_usec: Option<u64>,
    /// Processes that had left the job's group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) escaped_processes: Option<u64>,
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
            ran_usec: finished.ran_usec,
            escaped_processes: finished.escaped.filter(|escaped| *escaped > 0),
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

impl JobEnded {
    pub(super) fn log(&self) {
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
            ran_usec = self.ran_usec,
            escaped_processes = self.escaped_processes,
            cpu_usec = self.cpu_usec,
            memory_peak_bytes = self.memory_peak_bytes,
            output_bytes = self.output_bytes,
            output_lost_bytes = self.output_lost_bytes,
            late = self.late,
            "job_end"
        );
    }
}
