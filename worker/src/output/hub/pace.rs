//! How often events are drained: at once after a rest, and about every millisecond while they keep coming.
//!
//! A bucket of drains that fills up by one each millisecond. What comes one at a time is told when it comes, though
//! something else came just before; only who writes all the time finds the bucket empty, and has its events taken many
//! at a time.

use std::time::{Duration, Instant};

/// In which the bucket gains one drain.
const REFILL: Duration = Duration::from_millis(1);

/// How many drains it holds.
const BURST: u32 = 8;

/// The bucket.
pub(super) struct Pace {
    /// When it was, or will be, empty.
    empty_at: Instant,
}

impl Pace {
    /// A full one.
    pub(super) fn new(now: Instant) -> Self {
        Self { empty_at: now.checked_sub(REFILL * BURST).unwrap_or(now) }
    }

    /// Takes a drain. Says when it may be had, where that is later than `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let full = now.checked_sub(REFILL * BURST).unwrap_or(now);
        self.empty_at = self.empty_at.max(full) + REFILL;
        (self.empty_at > now).then_some(self.empty_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_a_rest_is_told_at_once_and_a_flood_once_a_millisecond() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..BURST {
            assert_eq!(pace.take(now), None);
        }
        let began = now;
        for _ in 0..1000 {
            now = pace.take(now).expect("the bucket is empty");
        }
        assert_eq!(now - began, REFILL * 1000);
        now += REFILL * 3;
        assert_eq!([pace.take(now), pace.take(now), pace.take(now)], [None; 3]);
        assert!(pace.take(now).is_some());
    }

    #[test]
    fn a_long_rest_gives_no_more_than_a_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let now = start + Duration::from_secs(3600);
        let at_once = (0..100).take_while(|_| pace.take(now).is_none()).count();
        assert_eq!(at_once, BURST as usize);
    }
}
