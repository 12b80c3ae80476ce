//! What is known of each job, and what is news. Pure.
//!
//! ```text
//!  gone ◀──▶ starting ──▶ running ──▶ stopping ──▶ ended at T ──(the same look)──▶ ended at T: no news
//!                  any of them ──────────────────────▲  └──(ended at U: another job of this id)──▶ ended at U: news
//! ```

use std::collections::HashMap;

use super::counts::{Counts, OutcomeKind};
use crate::job::JobId;

/// What one look at a job has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Gone,
    Starting,
    Running,
    Stopping,
    Unreadable,
    Ended { kind: OutcomeKind, at_unix_usec: u64 },
}

/// All jobs that are there; at most 75 bytes for each.
#[derive(Debug, Default)]
pub(super) struct Table {
    jobs: HashMap<JobId, Seen>,
    counts: Counts,
}

impl Table {
    /// Takes note of a look; whether it has shown an end that none has shown before.
    pub(super) fn note(&mut self, job: JobId, seen: Seen) -> bool {
        let before = match seen {
            Seen::Gone => self.jobs.remove(&job),
            // Nothing leaves `finished`: it is the disk that fails.
            Seen::Unreadable if matches!(self.jobs.get(&job), Some(Seen::Ended { .. })) => return false,
            seen => self.jobs.insert(job, seen),
        };
        if let Some(before) = before
            && let Some(count) = self.counts.of(before)
        {
            *count -= 1;
        }
        if let Some(count) = self.counts.of(seen) {
            *count += 1;
        }
        matches!(seen, Seen::Ended { .. }) && before != Some(seen)
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn unended(&self) -> impl Iterator<Item = JobId> + '_ {
        let is_unended = |seen: &Seen| matches!(seen, Seen::Running | Seen::Stopping);
        self.jobs.iter().filter(move |(_, seen)| is_unended(seen)).map(|(job, _)| *job)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.keys().copied()
    }
}

impl Counts {
    fn of(&mut self, seen: Seen) -> Option<&mut usize> {
        match seen {
            Seen::Gone => None,
            Seen::Starting => Some(&mut self.starting),
            Seen::Running => Some(&mut self.running),
            Seen::Stopping => Some(&mut self.stopping),
            Seen::Unreadable => Some(&mut self.unreadable),
            Seen::Ended { kind, .. } => Some(&mut self.ended[kind as usize]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen() -> impl Strategy<Value = Seen> {
        let kind = prop::sample::select(&OutcomeKind::ALL[..]);
        prop_oneof![
            Just(Seen::Gone),
            Just(Seen::Starting),
            Just(Seen::Running),
            Just(Seen::Stopping),
            (kind, 1..3u64).prop_map(|(kind, at_unix_usec)| Seen::Ended { kind, at_unix_usec }),
        ]
    }

    proptest! {
        /// Whatever is seen in whatever order, what is counted is what was seen last of each.
        #[test]
        fn counts_are_of_the_last_looks(looks in prop::collection::vec((0..4usize, seen()), 0..40)) {
            let ids: Vec<_> = (0..4).map(|_| JobId::random()).collect();
            let (mut table, mut last) = (Table::default(), [Seen::Gone; 4]);
            for (job, seen) in looks {
                let is_news = table.note(ids[job], seen);
                prop_assert_eq!(is_news, matches!(seen, Seen::Ended { .. }) && last[job] != seen);
                last[job] = seen;
            }
            let mut counts = Counts::default();
            for seen in last {
                if let Some(count) = counts.of(seen) {
                    *count += 1;
                }
            }
            prop_assert_eq!(table.counts(), counts);
        }
    }

    #[test]
    fn an_end_that_can_not_be_read_again_stays_one() {
        let (mut table, job) = (Table::default(), JobId::random());
        let end = Seen::Ended { kind: OutcomeKind::Exited, at_unix_usec: 7 };
        assert!(!table.note(job, Seen::Unreadable));
        assert_eq!(table.counts().unreadable, 1);
        assert!(table.note(job, end));
        assert!(!table.note(job, Seen::Unreadable));
        assert!(!table.note(job, end), "told twice");
        assert_eq!((table.counts().unreadable, table.counts().all_ended()), (0, 1));
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<(JobId, Seen)>() <= 32, "{}", size_of::<(JobId, Seen)>());
    }
}
