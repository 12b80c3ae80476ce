//! How often a client may ask for a certificate: a cap on what is asked for within a minute, by the client's name.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::MAX_PER_MINUTE;

const MINUTE: Duration = Duration::from_mins(1);

/// When each client has asked within the last minute. Others take no place in it.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<String, VecDeque<Instant>>>);

impl Pace {
    /// Whether a client may ask now. What is refused does not count.
    pub(super) fn allows(&self, name: &str) -> bool {
        self.allows_at(name, Instant::now())
    }

    fn allows_at(&self, name: &str, now: Instant) -> bool {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, times| {
            times.retain(|time| now.duration_since(*time) < MINUTE);
            !times.is_empty()
        });
        let times = asked.entry(name.to_owned()).or_default();
        let may = times.len() < MAX_PER_MINUTE;
        if may {
            times.push_back(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_a_minute_of_its_own() {
        let (pace, start) = (Pace::default(), Instant::now());
        let at = |sec| start + Duration::from_secs(sec);
        for sec in 0..MAX_PER_MINUTE as u64 {
            assert!(pace.allows_at("alice", at(sec)), "{sec}");
        }
        assert!(!pace.allows_at("alice", at(20)));
        assert!(pace.allows_at("bob", at(20)));
        assert!(!pace.allows_at("alice", at(59)));
        assert!(pace.allows_at("alice", at(60)), "the first one is a minute ago");
        assert!(!pace.allows_at("alice", at(60)), "the others are not");
        assert!(pace.allows_at("bob", at(300)));
        assert_eq!(pace.0.lock().unwrap().len(), 1, "nothing is kept of clients that do not ask");
    }
}
