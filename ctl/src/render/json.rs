//! Jobs as JSON, for programs. The keys are stable and always there: what is unknown or not limited is `null`.
//! Times are microseconds since the Unix epoch.

use anyhow::Context;
use jobworker_certs::visible_json;
use jobworker_proto::v1::{
    Cause, IoLimitInForce, IoUsage, Job, Limits, LimitsInForce, Outcome, Owner, Remaining, Usage, outcome,
};
use serde_json::{Value, json};

use super::words;

/// One job, an object.
pub(crate) fn job(job: &Job) -> anyhow::Result<String> {
    to_text(&of_job(job))
}

/// An array of jobs.
pub(crate) fn jobs(jobs: &[Job]) -> anyhow::Result<String> {
    to_text(&jobs.iter().map(of_job).collect())
}

/// A job that was just started, with what the worker warns of in `warnings`.
pub(crate) fn started(job: &Job, warnings: &[String]) -> anyhow::Result<String> {
    let mut started = of_job(job);
    started["warnings"] = json!(warnings);
    to_text(&started)
}

fn to_text(value: &Value) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    Ok(visible_json(&text).into_owned())
}

fn of_job(job: &Job) -> Value {
    let spec = job.spec.clone().unwrap_or_default();
    let env: Vec<_> =
        spec.env.iter().map(|var| json!({"key": var.key, "value": bytes(&var.value)})).collect();
    json!({
        "id": job.id,
        "name": given(&spec.name),
        "command": bytes(&spec.command),
        "args": spec.args.iter().map(|arg| bytes(arg)).collect::<Vec<_>>(),
        "env": env,
        "workdir": (!spec.workdir.is_empty()).then(|| bytes(&spec.workdir)),
        "timeout_msec": spec.timeout_msec,
        "user": given(&job.user),
        "owner": job.owner.as_ref().map(of_owner),
        "state": words::state_name(job.state()),
        "outcome": job.outcome.as_ref().map(of_outcome),
        "pid": job.pid,
        "process": job.process.as_ref().map(|process| json!({
            "state": process.state,
            "threads": process.threads,
            "resident_bytes": process.resident_bytes,
        })),
        "processes": job.processes,
        "created_unix_usec": job.created_unix_usec,
        "started_unix_usec": job.started_unix_usec,
        "finished_unix_usec": job.finished_unix_usec,
        "limits": of_limits(&spec.limits.unwrap_or_default()),
        "limits_in_force": job.limits_in_force.as_ref().map(of_limits_in_force),
        "usage": job.usage.as_ref().map(of_usage),
        "output_bytes": job.output_bytes,
        "output_lost_bytes": job.output_lost_bytes,
        "output_kept_from": job.output_kept_from,
        "output_limit_bytes": job.output_limit_bytes,
        "cgroup": given(&job.cgroup),
        "left_out_bytes": job.left_out_bytes,
        "main_outside_group": job.main_outside_group,
        "escaped_processes": job.escaped_processes,
        "ran_usec": job.ran_usec,
        "remaining": job.remaining.iter().map(of_remaining).collect::<Vec<_>>(),
    })
}

fn of_remaining(remaining: &Remaining) -> Value {
    json!({
        "pid": remaining.pid,
        "name": remaining.name,
        "state": remaining.state,
        "kernel_function": given(&remaining.kernel_function),
        "tracer_pid": remaining.tracer_pid,
        "outside_group": remaining.outside_group,
    })
}

/// The API's "empty is none".
fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A string where they are UTF-8, which they nearly always are; else `{"bytes": [...]}`.
fn bytes(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!({ "bytes": bytes }), Value::from)
}

fn of_owner(owner: &Owner) -> Value {
    json!({
        "name": owner.name,
        "common_name": given(&owner.common_name),
        "role": given(&owner.role),
        "serial": given(&owner.serial),
        "fingerprint_sha256": given(&owner.fingerprint_sha256),
    })
}

fn of_outcome(outcome: &Outcome) -> Value {
    let (exit_code, signal) = match outcome.ended {
        Some(outcome::Ended::ExitCode(code)) => (Some(code), None),
        Some(outcome::Ended::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    json!({
        "cause": cause(outcome.cause()),
        "exit_code": exit_code,
        "signal": signal,
        "stopped_by": given(&outcome.stopped_by),
        "own_memory_limit": (outcome.cause() == Cause::OutOfMemory).then_some(outcome.own_memory_limit),
        "reason": given(&outcome.reason),
    })
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Exited => "exited",
        Cause::Signaled => "signaled",
        Cause::Stopped => "stopped",
        Cause::TimedOut => "timed-out",
        Cause::OutOfMemory => "out-of-memory",
        Cause::Lost => "lost",
        Cause::Unspecified => "unknown",
    }
}

/// As they were asked for.
fn of_limits(limits: &Limits) -> Value {
    json!({
        "cpu": given(&limits.cpu),
        "cpu_weight": given(&limits.cpu_weight),
        "memory": given(&limits.memory),
        "memory_high": given(&limits.memory_high),
        "swap": given(&limits.swap),
        "io": limits.io,
        "pids": given(&limits.pids),
    })
}

/// As the kernel has them.
fn of_limits_in_force(limits: &LimitsInForce) -> Value {
    json!({
        "cpu_quota_usec": limits.cpu_quota_usec,
        "cpu_period_usec": limits.cpu_period_usec,
        "cpu_weight": limits.cpu_weight,
        "memory_max_bytes": limits.memory_max_bytes,
        "memory_high_bytes": limits.memory_high_bytes,
        "swap_max_bytes": limits.swap_max_bytes,
        "pids_max": limits.pids_max,
        "io": limits.io.iter().map(of_io_limit).collect::<Vec<_>>(),
    })
}

fn of_io_limit(io: &IoLimitInForce) -> Value {
    json!({
        "device": io.device,
        "device_name": given(&io.device_name),
        "rbps": io.rbps,
        "wbps": io.wbps,
        "riops": io.riops,
        "wiops": io.wiops,
    })
}

fn of_usage(usage: &Usage) -> Value {
    json!({
        "cpu_usec": usage.cpu_usec,
        "cpu_user_usec": usage.cpu_user_usec,
        "cpu_system_usec": usage.cpu_system_usec,
        "cpu_throttled_usec": usage.cpu_throttled_usec,
        "cpu_throttled_periods": usage.cpu_throttled_periods,
        "memory_current_bytes": usage.memory_current_bytes,
        "memory_peak_bytes": usage.memory_peak_bytes,
        "oom_kills": usage.oom_kills,
        "pids_peak": usage.pids_peak,
        "pids_denied": usage.pids_denied,
        "io": usage.io.iter().map(of_io_usage).collect::<Vec<_>>(),
    })
}

fn of_io_usage(io: &IoUsage) -> Value {
    json!({
        "device": io.device,
        "device_name": given(&io.device_name),
        "read_bytes": io.read_bytes,
        "written_bytes": io.written_bytes,
        "reads": io.reads,
        "writes": io.writes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jobworker_proto::v1::JobSpec;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        let args = vec![b"caf\xc3\xa9".to_vec(), b"\xff\x00".to_vec()];
        let spec = JobSpec { command: b"ls".to_vec(), args, ..Default::default() };
        let shown = of_job(&Job { spec: Some(spec), ..Default::default() });
        assert_eq!(shown["command"], "ls");
        assert_eq!(shown["args"], json!(["café", {"bytes": [255, 0]}]));
    }

    #[test]
    fn what_can_not_be_seen_is_escaped_and_means_the_same() {
        let spec = JobSpec { name: "a\u{202e}b\u{9b}".to_owned(), ..Default::default() };
        let text = job(&Job { spec: Some(spec), ..Default::default() }).expect("JSON");
        assert!(text.contains(r#""name": "a\u202eb\u009b""#), "{text}");
        let back: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(back["name"], "a\u{202e}b\u{9b}");
    }

    #[test]
    fn warnings_stand_beside_the_job() {
        let text = started(&Job::default(), &["too little".to_owned()]).expect("JSON");
        let back: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&back["warnings"], &back["id"]), (&json!(["too little"]), &json!("")));
    }

    #[test]
    fn what_is_unknown_is_null_and_never_zero() {
        let limits_in_force = Some(LimitsInForce { pids_max: Some(0), ..Default::default() });
        let shown = of_job(&Job { limits_in_force, ..Default::default() });
        for key in
            ["name", "pid", "outcome", "started_unix_usec", "finished_unix_usec", "timeout_msec", "usage"]
        {
            assert_eq!(shown.get(key), Some(&Value::Null), "{key}");
        }
        assert_eq!(shown["limits_in_force"]["pids_max"], 0);
        assert_eq!(shown["limits_in_force"]["memory_max_bytes"], Value::Null);
    }
}
