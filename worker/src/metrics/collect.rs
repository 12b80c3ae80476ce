//! What is not counted but read, each time somebody asks: this process. And how such things are told.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::{audit, log};

/// This process, under the names that Prometheus gives to what all programs have:
/// <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>.
#[derive(Debug)]
pub struct Process {
    started: SystemTime,
}

impl Process {
    /// Of now; its beginning is taken for the process's.
    pub fn started_now() -> Self {
        Self { started: SystemTime::now() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let started = self.started.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        one(&mut encoder, "process_start_time_seconds", "When it was started", &ConstGauge::new(started))?;
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let seconds = [usage.user_time(), usage.system_time()].map(|time| {
                let usec = u32::try_from(time.tv_usec()).unwrap_or_default();
                // Exact for 285,000 years.
                #[expect(clippy::cast_precision_loss, reason = "seconds of CPU time are fewer than 2^53")]
                let whole = time.tv_sec() as f64;
                whole + f64::from(usec) / 1e6
            });
            let cpu = ConstCounter::new(seconds.iter().sum::<f64>());
            one(&mut encoder, "process_cpu_seconds", "CPU time, of user and kernel", &cpu)?;
        }
        if let Some(bytes) = resident_bytes() {
            one(&mut encoder, "process_resident_memory_bytes", "Memory in use", &ConstGauge::new(bytes))?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One is that of the look itself.
            let open = i64::try_from(open.count()).unwrap_or(i64::MAX) - 1;
            one(&mut encoder, "process_open_fds", "Open file descriptors", &ConstGauge::new(open))?;
        }
        Ok(())
    }
}

/// What the log could not take.
#[derive(Debug)]
pub struct Log;

impl Collector for Log {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let lines = ConstCounter::new(log::lines_dropped());
        one(
            &mut encoder,
            "log_lines_dropped",
            "Lines of the log that stderr did not take, and that are lost",
            &lines,
        )
    }
}

/// What the audit log could not take.
#[derive(Debug)]
pub struct Audit;

impl Collector for Audit {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let lines = ConstCounter::new(audit::lines_not_taken());
        let help = "Lines that --audit-log did not take, and that are in the log instead";
        one(&mut encoder, "audit_lines_not_taken", help, &lines)
    }
}

/// The second number of `/proc/self/statm` is in pages (proc(5)).
fn resident_bytes() -> Option<i64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<i64>().ok()?;
    pages.checked_mul(sysconf(SysconfVar::PAGE_SIZE).ok()??)
}

/// A metric without labels.
fn one(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
/// A metric of each of `values`, told apart by its labels.
pub(super) fn each<L: EncodeLabelSet, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, M)>,
) -> fmt::Result {
    let mut values = values.into_iter().peekable();
    let Some((_, first)) = values.peek() else { return Ok(()) };
    let mut metrics = encoder.encode_descriptor(name, help, None, first.metric_type())?;
    for (labels, value) in values {
        value.encode(metrics.encode_family(&labels)?)?;
    }
    Ok(())
}
