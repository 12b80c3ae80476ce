//! Who has to make room where there is none, and how often the log is told.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Complaints are logged no more often than this.
const PAUSE: Duration = Duration::from_secs(1);

/// The oldest of the process that has most, of a list that begins with the oldest; none of an empty one.
pub(super) fn first_to_go(peers: impl Iterator<Item = i32> + Clone) -> Option<usize> {
    let mut counts: HashMap<i32, usize> = HashMap::new();
    for peer in peers.clone() {
        *counts.entry(peer).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    peers.enumerate().find(|(_, peer)| counts[peer] == most).map(|(place, _)| place)
}

/// What whoever is connected does wrong: a line of the log a second, and how many more there were.
#[derive(Default)]
pub(super) struct Complaints {
    told: Option<Instant>,
    untold: u64,
}

impl Complaints {
    pub(super) fn tell(&mut self, what: &str) {
        if self.is_due(Instant::now()) {
            let untold = std::mem::take(&mut self.untold);
            tracing::warn!(untold, "{what}");
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if self.told.is_some_and(|told| now < told + PAUSE) {
            self.untold += 1;
            return false;
        }
        self.told = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_most_loses_the_oldest() {
        let first = |peers: &[i32]| first_to_go(peers.iter().copied());
        assert_eq!(first(&[]), None);
        assert_eq!(first(&[7]), Some(0));
        assert_eq!(first(&[1, 7, 7, 2]), Some(1));
        assert_eq!(first(&[1, 2, 3]), Some(0), "the oldest, where all have as many");
        assert_eq!(first(&[1, 7, 2, 7, 7, 2]), Some(1));
    }

    #[test]
    fn the_log_is_told_once_a_second() {
        let (mut complaints, began) = (Complaints::default(), Instant::now());
        let mut due = |msec| complaints.is_due(began + Duration::from_millis(msec));
        assert!(due(0) && !due(1) && !due(999) && due(1000) && !due(1500));
        assert_eq!(complaints.untold, 3);
    }
}
