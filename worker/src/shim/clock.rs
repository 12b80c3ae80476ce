//! The time of day, for people and for records; and the time since the host's boot, for durations. Deadlines go by
//! [`std::time::Instant`]; neither is moved by a clock that is set.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Microseconds since the Unix epoch; 0 for a clock before it.
pub fn unix_usec() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The id of the host's boot, which [`boot_usec`] counts from; empty where it can't be read.
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Microseconds since the host's boot, its sleep included (CLOCK_BOOTTIME).
pub fn boot_usec() -> u64 {
    let since = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
