//! The host's clock, set forward and back under everybody's feet.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

/// How far it is set at most, in seconds, both ways.
const FARTHEST_SECS: u64 = 600;

/// How long before all of that certificates begin to be valid, in seconds.
const MARGIN_SECS: u64 = 60;

/// What the clock would show had nobody touched it.
pub(super) struct Clock {
    began: Instant,
    began_unix: Duration,
}

impl Clock {
    /// Takes the time.
    pub(super) fn read() -> Self {
        let began_unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("this is after 1970");
        Self { began: Instant::now(), began_unix }
    }

    /// Does something in the past, before any time that this clock is set to.
    pub(super) fn in_the_past<T>(&self, act: impl FnOnce() -> T) -> anyhow::Result<T> {
        set(self.right().saturating_sub(Duration::from_secs(FARTHEST_SECS + MARGIN_SECS)))?;
        let done = act();
        self.put_right()?;
        Ok(done)
    }

    /// Sets it to another time. The right one is at most ten minutes away, however often this is done.
    pub(super) fn jump(&self, chance: u64) -> anyhow::Result<()> {
        let earliest = self.right().saturating_sub(Duration::from_secs(FARTHEST_SECS));
        set(earliest + Duration::from_millis(chance % (2 * FARTHEST_SECS * 1000)))
    }

    /// Sets it right.
    pub(super) fn put_right(&self) -> anyhow::Result<()> {
        set(self.right())
    }

    fn right(&self) -> Duration {
        self.began_unix + self.began.elapsed()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        if let Err(error) = self.put_right() {
            eprintln!("faults: the clock is wrong from here on: {error:#}");
        }
    }
}

fn set(unix: Duration) -> anyhow::Result<()> {
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(unix)).context("set the clock")
}
