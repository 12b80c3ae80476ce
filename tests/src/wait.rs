//! Waiting for a condition, with a deadline.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take in a test: emulated machines are slow, and a deadline only matters to a failing test.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns what `look` found, once it is `Some`.
///
/// # Panics
/// When it is not within [`PATIENCE`].
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// As [`until`], with a deadline of one's own.
///
/// # Panics
/// When the deadline passes.
pub fn until_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < patience, "not within {patience:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until two looks agree, and tells the difference if they never do.
///
/// # Panics
/// When they don't within [`PATIENCE`].
pub fn until_equal<T: PartialEq + Debug>(what: &str, expected: &T, mut look: impl FnMut() -> T) {
    let started = Instant::now();
    loop {
        let found = look();
        if found == *expected {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: expected {expected:?}, still {found:?}");
        thread::sleep(Duration::from_millis(10));
    }
}
