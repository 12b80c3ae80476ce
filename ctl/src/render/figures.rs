//! Limits in force and usage for people: numbers with their units.

use jobworker_proto::v1::{IoLimitInForce, IoUsage, LimitsInForce, Usage};

use super::text::Lines;
use super::words;

pub(super) fn limits(lines: &mut Lines, limits: &LimitsInForce) {
    if let (Some(quota), Some(period)) = (limits.cpu_quota_usec, limits.cpu_period_usec) {
        lines.add("cpu limit", cpus(quota, period));
    }
    lines.add_some("cpu weight", limits.cpu_weight, |weight| weight.to_string());
    lines.add_some("memory limit", limits.memory_max_bytes, words::bytes_exactly);
    lines.add_some("memory high", limits.memory_high_bytes, words::bytes_exactly);
    lines.add_some("swap limit", limits.swap_max_bytes, words::bytes_exactly);
    lines.add_some("pids limit", limits.pids_max, |pids| pids.to_string());
    for io in &limits.io {
        lines.add("io limit", io_limit(io));
    }
}

/// `1.5 CPUs (150ms of each 100ms)`.
fn cpus(quota_usec: u64, period_usec: u64) -> String {
    let msec = |usec: u64| format!("{}.{:03}", usec / 1000, usec % 1000);
    let trimmed = |text: String| text.trim_end_matches('0').trim_end_matches('.').to_owned();
    let thousandths = quota_usec.saturating_mul(1000) / period_usec.max(1);
    format!(
        "{} CPUs ({}ms of each {}ms)",
        trimmed(msec(thousandths)),
        trimmed(msec(quota_usec)),
        trimmed(msec(period_usec))
    )
}

fn io_limit(limit: &IoLimitInForce) -> String {
    let bytes = |what, bps: Option<u64>| bps.map(|bps| format!("{what} {}/s", words::bytes_decimal(bps)));
    let operations = |what, iops: Option<u64>| iops.map(|iops| format!("{what} {iops} operations/s"));
    let parts = [
        bytes("read", limit.rbps),
        bytes("write", limit.wbps),
        operations("read", limit.riops),
        operations("write", limit.wiops),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    format!("{}: {}", device(&limit.device_name, &limit.device), parts.join(", "))
}

fn device(name: &str, number: &str) -> String {
    if name.is_empty() { number.to_owned() } else { format!("{} ({number})", words::printable(name)) }
}

pub(super) fn usage(lines: &mut Lines, usage: &Usage) {
    lines.add_some("cpu time", usage.cpu_usec, |total| {
        let part = |what, usec: Option<u64>| usec.map(|usec| format!("{what} {}", words::duration(usec)));
        let parts = [part("user", usage.cpu_user_usec), part("system", usage.cpu_system_usec)];
        with_details(words::duration(total), parts)
    });
    lines.add_some("cpu throttled", usage.cpu_throttled_usec, |usec| {
        let periods = usage.cpu_throttled_periods.map(|count| format!("in {}", counted(count, "period")));
        with_details(words::duration(usec), [periods])
    });
    lines.add_some("memory", usage.memory_current_bytes, words::bytes);
    lines.add_some("memory peak", usage.memory_peak_bytes, words::bytes_exactly);
    lines.add_some("oom kills", usage.oom_kills, |count| count.to_string());
    lines.add_some("pids peak", usage.pids_peak, |count| count.to_string());
    lines.add_some("forks refused", usage.pids_denied, |count| count.to_string());
    for io in &usage.io {
        lines.add("io", io_usage(io));
    }
}

fn io_usage(io: &IoUsage) -> String {
    let way =
        |what, bytes, count| format!("{what} {} in {}", words::bytes(bytes), counted(count, "operation"));
    let (read, written) = (way("read", io.read_bytes, io.reads), way("written", io.written_bytes, io.writes));
    format!("{}: {read}, {written}", device(&io.device_name, &io.device))
}

fn with_details<const N: usize>(text: String, details: [Option<String>; N]) -> String {
    let details: Vec<_> = details.into_iter().flatten().collect();
    if details.is_empty() { text } else { format!("{text} ({})", details.join(", ")) }
}

pub(super) fn counted(count: u64, what: &str) -> String {
    counted_as(count, what, &format!("{what}s"))
}

pub(super) fn counted_as(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
