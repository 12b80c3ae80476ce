//! Sleeping until a moment of the wall clock: one timer of the kernel, which also wakes when somebody sets the clock.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Behind the second at which something ends: so that by then it has ended.
const BEHIND: Duration = Duration::from_millis(1);

/// The timer is set even where nothing is waited for, because only a timer that is set tells of a clock that is.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// A timer on `CLOCK_REALTIME` (timerfd_create(2)).
pub(super) struct Clock(AsyncFd<Timer>);

struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Clock {
    /// Within a tokio runtime only.
    ///
    /// # Errors
    /// When the kernel has no timer to give.
    pub(super) fn new() -> std::io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Timer(TimerFd::new(ClockId::CLOCK_REALTIME, flags)?);
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that don't always give one and the same fd"
        )]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Returns behind that second of the Unix epoch, at once if it has passed; earlier when the clock was set. Cancel
    /// safe: the next call waits for its own.
    ///
    /// # Errors
    /// When the timer can't be set or read.
    pub(super) async fn reaches(&self, unix_sec: Option<i64>) -> std::io::Result<()> {
        let latest = SystemTime::now() + LONGEST;
        let wanted = unix_sec.map(|sec| UNIX_EPOCH + Duration::from_secs(sec.max(0).unsigned_abs()) + BEHIND);
        let at = wanted.map_or(latest, |wanted| wanted.min(latest));
        // A zero would unset it.
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().max(BEHIND);
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        let timer = &self.0.get_ref().0;
        match timer.set(Expiration::OneShot(TimeSpec::from_duration(since)), flags) {
            Ok(()) => {}
            // The clock was set meanwhile: that is a reason to look.
            Err(Errno::ECANCELED) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        loop {
            let mut ready = self.0.readable().await?;
            // ECANCELED, the clock was set, is a success of nix's.
            if let Ok(woken) = ready.try_io(|timer| Ok(timer.get_ref().0.wait()?)) {
                return woken;
            }
        }
    }
}

/// Now, in whole seconds since the Unix epoch.
pub(super) fn unix_sec(now: SystemTime) -> i64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_wakes_behind_the_second_and_not_before() {
        let clock = Clock::new().unwrap();
        let next = unix_sec(SystemTime::now()) + 1;
        clock.reaches(Some(next)).await.unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(now >= Duration::from_secs(next.unsigned_abs()) + BEHIND, "{now:?}");
        for past in [i64::MIN, 0, next] {
            clock.reaches(Some(past)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_does_not_shorten_the_next() {
        let clock = Clock::new().unwrap();
        let now = unix_sec(SystemTime::now());
        let short = tokio::time::timeout(Duration::from_millis(1), clock.reaches(Some(now + 1))).await;
        assert!(
            short.is_err() || SystemTime::now() > UNIX_EPOCH + Duration::from_secs(now.unsigned_abs() + 1)
        );
        let far = clock.reaches(None);
        assert!(
            tokio::time::timeout(Duration::from_millis(1200), far).await.is_err(),
            "the old moment woke it"
        );
    }
}
