//! Clocks: one that all processes share, and CPU time of one process.

use std::time::Duration;

use anyhow::Context;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Nanoseconds on the clock that every process of this host reads alike (`CLOCK_MONOTONIC`).
pub(super) fn monotonic_nsec() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).expect("every Linux has this clock");
    u64::try_from(now.as_nanos()).expect("584 years are enough")
}

/// The CPU time that a process has used, threads that have ended included.
pub(super) fn process_cpu(pid: u32) -> anyhow::Result<Duration> {
    let process = Pid::from_raw(i32::try_from(pid).context("a pid")?);
    let clock = clock_getcpuclockid(process).with_context(|| format!("the CPU clock of process {pid}"))?;
    let used = clock_gettime(clock).with_context(|| format!("the CPU time of process {pid}"))?;
    Ok(Duration::from(used))
}

/// The CPU time that the calling thread has used.
pub(super) fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).expect("every Linux has this clock")
}
