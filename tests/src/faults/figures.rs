//! What a run comes to: a table for people, a line of JSON for programs.

use std::collections::BTreeMap;
use std::fmt;

use super::schedule::Kind;

/// How many different words on what went wrong are kept.
const MAX_NOTES: usize = 50;

/// The figures of a run.
#[derive(Debug, Default)]
pub struct Figures {
    /// Faults by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Jobs that were started.
    pub jobs: u64,
    /// Jobs by the cause of their end, in the API's words.
    pub causes: BTreeMap<&'static str, u64>,
    /// Jobs whose shim was killed, and that were told as lost.
    pub told_lost_jobs: u64,
    /// Bytes that were held against what the job wrote, over all followers.
    pub checked_bytes: u64,
    /// Times that a follower had to come back.
    pub reconnects: u64,
    /// Bytes told as gone while the disk was full, over all followers.
    pub gap_bytes: u64,
    /// Starts refused while the disk was full, and asked for again.
    pub refused_starts: u64,
    /// Jobs whose shim is of the older build, and of the present one; none where there is no older build.
    pub jobs_by_build: Option<[u64; 2]>,
    /// Jobs of the older build that lived when the present one took over.
    pub jobs_at_switch: Option<u64>,
    /// What must be nothing.
    pub failures: Failures,
    /// What went wrong, in words.
    pub notes: Vec<String>,
}

/// What a run must not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Jobs that are gone, never end, or are told as lost though their shim was left alone.
    pub lost_jobs: u64,
    /// Bytes that a follower did not get, or got wrong; gaps that no full disk explains included, and all that follows a
    /// wrong byte.
    pub lost_bytes: u64,
    /// Bytes that a follower got twice, or that no job wrote.
    pub repeated_bytes: u64,
    /// Jobs whose end is told otherwise than it was.
    pub wrong_verdicts: u64,
    /// Calls that were refused, or went on for ever, for no reason that a fault gave.
    pub wrong_answers: u64,
    /// Processes that outlived the run.
    pub left_processes: u64,
    /// Groups that outlived their job.
    pub left_groups: u64,
    /// Descriptors that an idle worker or spawner has more than before.
    pub left_descriptors: u64,
    /// Folders that are not of a job that was started.
    pub left_folders: u64,
    /// Gaps that tell of more or less than is missing.
    pub inexact_gaps: u64,
}

impl Failures {
    fn named(&self) -> [(&'static str, u64); 10] {
        [
            ("lost_jobs", self.lost_jobs),
            ("lost_bytes", self.lost_bytes),
            ("repeated_bytes", self.repeated_bytes),
            ("wrong_verdicts", self.wrong_verdicts),
            ("wrong_answers", self.wrong_answers),
            ("left_processes", self.left_processes),
            ("left_groups", self.left_groups),
            ("left_descriptors", self.left_descriptors),
            ("left_folders", self.left_folders),
            ("inexact_gaps", self.inexact_gaps),
        ]
    }
}

impl Figures {
    /// Whether nothing went wrong that must not.
    pub fn is_clean(&self) -> bool {
        self.failures == Failures::default()
    }

    /// One line, for programs.
    pub fn json(&self) -> String {
        let faults: BTreeMap<&str, u64> =
            self.faults.iter().map(|(kind, count)| (kind.name(), *count)).collect();
        let mut all = serde_json::json!({
            "faults": faults,
            "jobs": self.jobs,
            "causes": self.causes,
            "told_lost_jobs": self.told_lost_jobs,
            "checked_bytes": self.checked_bytes,
            "reconnects": self.reconnects,
            "gap_bytes": self.gap_bytes,
            "refused_starts": self.refused_starts,
        });
        for (name, value) in self.builds() {
            all[name] = value.into();
        }
        for (name, value) in self.failures.named() {
            all[name] = value.into();
        }
        all.to_string()
    }

    fn builds(&self) -> Vec<(&'static str, u64)> {
        let [older, present] = self.jobs_by_build.map_or([None; 2], |jobs| jobs.map(Some));
        [("jobs_of_older", older), ("jobs_of_present", present), ("jobs_at_switch", self.jobs_at_switch)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    pub(super) fn note(&mut self, words: String) {
        if self.notes.len() < MAX_NOTES && !self.notes.contains(&words) {
            eprintln!("faults: {words}");
            self.notes.push(words);
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: u64| writeln!(f, "{name:<24}{value:>14}");
        row("faults", self.faults.values().sum())?;
        for (kind, count) in &self.faults {
            row(&format!("  {}", kind.name()), *count)?;
        }
        row("jobs", self.jobs)?;
        for (cause, count) in &self.causes {
            row(&format!("  {cause}"), *count)?;
        }
        row("told_lost_jobs", self.told_lost_jobs)?;
        row("checked_bytes", self.checked_bytes)?;
        row("reconnects", self.reconnects)?;
        row("gap_bytes", self.gap_bytes)?;
        row("refused_starts", self.refused_starts)?;
        self.builds().into_iter().try_for_each(|(name, value)| row(name, value))?;
        self.failures.named().into_iter().try_for_each(|(name, value)| row(name, value))
    }
}
