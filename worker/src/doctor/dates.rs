//! How a file's dates stand to the clock.

/// Seconds of a day.
const DAY_SEC: i64 = 86_400;
/// Before a certificate's end: they last a year by default; time to notice, and to renew.
pub(super) const CERTIFICATE_SOON_DAYS: i64 = 30;
/// Before a revocation list's: openssl's last 30 days in all.
pub(super) const LIST_SOON_DAYS: i64 = 7;

/// Where now is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Before the beginning: most often it is the clock that is wrong.
    Early,
    /// In between, far from the end.
    Within,
    /// In between, so many whole days before the end.
    Soon(i64),
    /// After the end.
    Over,
}

/// `now`, `begin` and `end` in seconds since the Unix epoch; the end is the last second that counts.
pub(super) fn standing(now: i64, begin: i64, end: i64, soon_days: i64) -> Standing {
    match end.saturating_sub(now) {
        _ if now < begin => Standing::Early,
        ..0 => Standing::Over,
        left if left < soon_days * DAY_SEC => Standing::Soon(left / DAY_SEC),
        _ => Standing::Within,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_second_count() {
        let (begin, end) = (1000 * DAY_SEC, 1100 * DAY_SEC);
        let at = |now| standing(now, begin, end, 30);
        assert_eq!((at(begin - 1), at(begin)), (Standing::Early, Standing::Within));
        assert_eq!((at(end), at(end + 1)), (Standing::Soon(0), Standing::Over));
        assert_eq!(
            (at(end - 30 * DAY_SEC), at(end - 30 * DAY_SEC + 1)),
            (Standing::Within, Standing::Soon(29))
        );
        assert_eq!(standing(5, 0, i64::MAX, 30), Standing::Within);
    }
}
