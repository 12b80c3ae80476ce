//! Values in words: sizes, times, commands, ends.

use std::fmt::Write;
use std::sync::LazyLock;
use std::{env, fs};

use bytesize::ByteSize;
use jiff::Timestamp;
use jiff::tz::TimeZone;
// Jobs are named and written by others.
pub(crate) use jobworker_certs::printable;
use jobworker_proto::v1::{Job, JobState, Remaining};

use crate::outcome::{End, Outcome};

const USEC_PER_SEC: u64 = 1_000_000;

/// `64 MiB`: rounded to one digit.
pub(crate) fn bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string().replace(".0 ", " ")
}

/// `12.3 MB`: the units of disks and networks.
pub(crate) fn bytes_decimal(bytes: u64) -> String {
    ByteSize::b(bytes).display().si().to_string().replace(".0 ", " ")
}

/// `64 MiB`, or `476.8 MiB (499998720 bytes)` where that is rounded.
pub(crate) fn bytes_exactly(count: u64) -> String {
    let text = bytes(count);
    if text.parse() == Ok(ByteSize::b(count)) { text } else { format!("{text} ({count} bytes)") }
}

/// `1.234s`, from a minute on `1m 3s`.
pub(crate) fn duration(usec: u64) -> String {
    let seconds = usec / USEC_PER_SEC;
    if seconds >= 60 {
        return humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string();
    }
    let text = format!("{seconds}.{:06}", usec % USEC_PER_SEC);
    let digits = if seconds == 0 && usec % USEC_PER_SEC < 1000 { text.len() } else { text.len() - 3 };
    format!("{}s", text[..digits].trim_end_matches('0').trim_end_matches('.'))
}

/// `2026-01-31 13:00:00 +01:00`, in local time.
pub(crate) fn local_time(unix_usec: u64) -> String {
    format_time(unix_usec, &local_zone(), "%Y-%m-%d %H:%M:%S %:z")
}

/// `2026-01-31T13:00:00.123456+01:00` (RFC 3339).
pub(crate) fn timestamp(unix_usec: u64, zone: &TimeZone) -> String {
    format_time(unix_usec, zone, "%Y-%m-%dT%H:%M:%S%.6f%:z")
}

/// `2026-01-31`, in local time.
pub(crate) fn date(unix_seconds: i64) -> String {
    match Timestamp::from_second(unix_seconds) {
        Ok(time) => time.to_zoned(local_zone()).strftime("%Y-%m-%d").to_string(),
        Err(_) => "an unknown day".to_owned(),
    }
}

/// The zone that times are shown in: `TZ`, else `/etc/localtime` as it is. Its name, for which jiff looks through the whole
/// database, is not shown, and the search would take longer than the rest of a call.
pub(crate) fn local_zone() -> TimeZone {
    static LOCAL: LazyLock<TimeZone> = LazyLock::new(|| {
        let file = if env::var_os("TZ").is_none() { fs::read("/etc/localtime").ok() } else { None };
        let read = file.and_then(|data| TimeZone::tzif("local", &data).ok());
        read.unwrap_or_else(TimeZone::system)
    });
    LOCAL.clone()
}

fn format_time(unix_usec: u64, zone: &TimeZone, format: &str) -> String {
    let time = i64::try_from(unix_usec).ok().and_then(|usec| Timestamp::from_microsecond(usec).ok());
    match time {
        Some(time) => time.to_zoned(zone.clone()).strftime(format).to_string(),
        None => format!("{unix_usec} µs after 1970"),
    }
}

/// The command as one would type it into a shell.
pub(crate) fn command_line<'a>(words: impl Iterator<Item = &'a [u8]>) -> String {
    let mut line = String::new();
    for (index, word) in words.enumerate() {
        let separator = if index == 0 { "" } else { " " };
        let _ = write!(line, "{separator}{}", quoted(word));
    }
    line
}

fn quoted(word: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(byte);
    let text = String::from_utf8_lossy(word);
    if !word.is_empty() && word.iter().all(is_plain) {
        return text.into_owned();
    }
    format!("'{}'", printable(&text.replace('\'', r"'\''")))
}

/// `running`, or how the job ended.
pub(crate) fn state(job: &Job) -> String {
    match Outcome::of(job) {
        Ok(Some(outcome)) => ending(job, &outcome),
        Ok(None) => state_name(job.state()).to_owned(),
        Err(error) => printable(&error.to_string()).into_owned(),
    }
}

/// The state machine's own words.
pub(crate) fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Starting => "starting",
        JobState::Running => "running",
        JobState::Stopping => "stopping",
        JobState::Finished => "finished",
        JobState::Unspecified => "unknown",
    }
}

/// How `job` ended: `exited with code 3`, `out of memory (limit 64 MiB, peak 64 MiB)`.
pub(crate) fn ending(job: &Job, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Exited(end) => main_process(*end),
        Outcome::Stopped { by, end } if by.is_empty() => format!("stopped: {}", main_process(*end)),
        Outcome::Stopped { by, end } => format!("stopped by {}: {}", printable(by), main_process(*end)),
        Outcome::TimedOut => match job.spec.as_ref().and_then(|spec| spec.timeout_msec) {
            None => "timed out".to_owned(),
            Some(msec) => format!("timed out after {}", duration(msec.saturating_mul(1000))),
        },
        Outcome::OutOfMemory { own_limit } => out_of_memory(job, *own_limit),
        Outcome::Lost { reason } if reason.is_empty() => "lost".to_owned(),
        Outcome::Lost { reason } => format!("lost: {}", printable(reason)),
    }
}

/// What a stop waits for: `process 1234 (D, in folio_wait_bit) to end`. None where the worker does not know.
pub(crate) fn waited_for(job: &Job) -> Option<String> {
    match job.remaining.as_slice() {
        [] => {
            // An older worker knows the main process only.
            let (pid, process) = (job.pid?, job.process.as_ref()?);
            Some(format!("process {pid} ({}) to end", printable(&process.state)))
        }
        [one] => Some(format!("process {} to end", remaining(one))),
        all => Some(format!("processes {} to end", all.iter().map(remaining).collect::<Vec<_>>().join(", "))),
    }
}

/// `1234 (sleep, D, in folio_wait_bit, traced by process 77)`.
pub(crate) fn remaining(process: &Remaining) -> String {
    let Remaining { pid, name, state, kernel_function, tracer_pid, outside_group } = process;
    let mut what = vec![printable(name).into_owned(), printable(state).into_owned()];
    if !kernel_function.is_empty() {
        what.push(format!("in {}", printable(kernel_function)));
    }
    what.extend(tracer_pid.map(|tracer| format!("traced by process {tracer}")));
    if *outside_group {
        what.push("outside the job's group".to_owned());
    }
    format!("{pid} ({})", what.join(", "))
}

fn main_process(end: End) -> String {
    match end {
        End::Code(code) => format!("exited with code {code}"),
        End::Signal(signal) => format!("killed by {signal}"),
    }
}

fn out_of_memory(job: &Job, own_limit: bool) -> String {
    let limit = job.limits_in_force.as_ref().and_then(|limits| limits.memory_max_bytes);
    let limit = match (own_limit, limit) {
        (true, Some(limit)) => Some(format!("limit {}", bytes(limit))),
        (true, None) => None,
        (false, _) => Some("not by its own limit but by one further up".to_owned()),
    };
    let peak = job.usage.as_ref().and_then(|usage| usage.memory_peak_bytes);
    let peak = peak.map(|peak| format!("peak {}", bytes(peak)));
    let evidence: Vec<_> = limit.into_iter().chain(peak).collect();
    if evidence.is_empty() {
        "out of memory".to_owned()
    } else {
        format!("out of memory ({})", evidence.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_say_when_they_are_rounded() {
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes_decimal(12_345_678), "12.3 MB");
        assert_eq!(bytes_exactly(512 << 20), "512 MiB");
        assert_eq!(bytes_exactly(499_998_720), "476.8 MiB (499998720 bytes)");
    }

    #[test]
    fn durations_suit_their_size() {
        let table = [
            (0, "0s"),
            (250, "0.00025s"),
            (1_500, "0.001s"),
            (1_234_567, "1.234s"),
            (30_000_000, "30s"),
            (63_900_000, "1m 3s"),
        ];
        for (usec, text) in table {
            assert_eq!(duration(usec), text);
        }
    }

    #[test]
    fn what_a_stop_waits_for_is_said() {
        let stuck = Remaining {
            pid: 1234,
            name: "cp\x1b[2J".into(),
            state: "D".into(),
            kernel_function: "folio_wait_bit".into(),
            ..Default::default()
        };
        let job = |remaining| Job { remaining, ..Default::default() };
        let one = "process 1234 (cp\\u{1b}[2J, D, in folio_wait_bit) to end";
        assert_eq!(waited_for(&job(vec![stuck.clone()])).as_deref(), Some(one));
        let traced = Remaining {
            pid: 5,
            name: "sh".into(),
            state: "t".into(),
            tracer_pid: Some(77),
            outside_group: true,
            ..Default::default()
        };
        let two = waited_for(&job(vec![stuck, traced])).expect("known");
        let second = "5 (sh, t, traced by process 77, outside the job's group) to end";
        assert!(two.starts_with("processes 1234 (") && two.ends_with(second), "{two}");
        assert_eq!(waited_for(&job(Vec::new())), None);
        let process = jobworker_proto::v1::Process { state: "D".into(), ..Default::default() };
        let older = Job { pid: Some(7), process: Some(process), ..Default::default() };
        assert_eq!(waited_for(&older).as_deref(), Some("process 7 (D) to end"));
    }

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        assert_eq!(printable("\x1b[2Jhé\u{9b}"), "\\u{1b}[2Jhé\\u{9b}");
        let line = command_line([&b"sh"[..], b"-c", b"echo 'x'\n", b"", b"a=b"].into_iter());
        assert_eq!(line, r"sh -c 'echo '\''x'\''\n' '' a=b");
        let line =
            command_line([&b"cat"[..], "x\u{202e}gpj.sh".as_bytes(), "a\u{200b}b".as_bytes()].into_iter());
        assert_eq!(line, r"cat 'x\u{202e}gpj.sh' 'a\u{200b}b'");
    }

    #[test]
    fn times_are_in_the_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(timestamp(1_500_000, &zone), "1970-01-01T02:00:01.500000+02:00");
        assert!(timestamp(u64::MAX, &zone).contains("1970"), "out of range is shown, not a panic");
    }
}
