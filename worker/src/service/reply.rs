//! Answers on their way out: a job as the API shows it.

use jobworker_limits as limits;
use jobworker_limits::OutputLimit;
use jobworker_proto::v1;
use jobworker_proto::v1::outcome::Ended as WireEnded;
use jobworker_proto::v1::stream_response::Event as WireEvent;

use crate::job::engine::{Gap, GapReason, JobView, ProcessStatus, Remaining, Removed};
use crate::job::state::{Finished, StopReason};
use crate::job::{ByteStr, Ended, JobRequest, Outcome, Owner, Phase, State, Whose};
use crate::output::index::Kind;
use crate::policy::Claim;

/// A job, as one with the claim `viewer` may see it: the environment, whose values are often secrets, is only its
/// owner's to see.
pub(super) fn job(view: JobView, viewer: &Claim) -> v1::Job {
    let JobView { mut spec, state, live, output, ran_usec } = view;
    if !viewer.owns(&Whose::from(&spec)) {
        spec.request.env.clear();
    }
    let finished = state.as_ref().and_then(State::finished);
    let output_limit = spec.output_limit;
    let usage = live.usage.as_ref().or(finished.map(|finished| &finished.usage));
    let limits = live.limits.as_ref().or(state.as_ref().map(|state| &state.limits_in_force));
    // The number of a process that is gone may be another's by now.
    let pid = live.pid.and_then(|pid| u32::try_from(pid).ok());
    v1::Job {
        id: spec.id.to_string(),
        spec: Some(job_spec(spec.request)),
        owner: Some(owner(spec.owner)),
        state: phase(state.as_ref()).into(),
        pid,
        process: live.process.map(process),
        processes: live.processes,
        created_unix_usec: spec.created_unix_usec,
        started_unix_usec: state.as_ref().map(|state| state.started_unix_usec),
        finished_unix_usec: finished.map(|finished| finished.at_unix_usec),
        outcome: finished.map(outcome),
        limits_in_force: limits.map(limits_in_force),
        usage: usage.map(self::usage),
        output_bytes: output.bytes,
        output_lost_bytes: finished.map_or(0, |finished| finished.output_lost_bytes),
        cgroup: state.as_ref().and_then(|state| state.cgroup.as_deref()).map_or_else(String::new, display),
        user: state.as_ref().map(|state| state.user.clone()).unwrap_or_default(),
        output_kept_from: output.kept_from,
        output_limit_bytes: output_limit.map(OutputLimit::bytes),
        left_out_bytes: 0,
        main_outside_group: live.main_is_outside,
        escaped_processes: finished.and_then(|finished| finished.escaped),
        ran_usec,
        remaining: live.remaining.into_iter().map(remaining).collect(),
    }
}

/// A job that is no more, as [`job`].
pub(super) fn removed(removed: Removed, viewer: &Claim) -> v1::Job {
    match removed.view {
        Some(view) => job(view, viewer),
        None => v1::Job { id: removed.id.to_string(), ..v1::Job::default() },
    }
}

/// Bytes of a job's arguments, and of its environment, that a list shows, each; and what one of them takes beside its
/// bytes.
const LISTED_BYTES: usize = 1024;
const EACH_BYTES: usize = 8;

/// A job as [`job`] shows it, without the end of what may be very long.
pub(super) fn listed(view: JobView, viewer: &Claim) -> v1::Job {
    let mut job = job(view, viewer);
    let Some(spec) = &mut job.spec else { return job };
    let (mut room, mut left_out) = (LISTED_BYTES, 0);
    spec.args.retain_mut(|arg| {
        let length = arg.len();
        let is_shown = room > EACH_BYTES;
        arg.truncate(room.saturating_sub(EACH_BYTES));
        room = room.saturating_sub(EACH_BYTES + length);
        left_out += length - arg.len();
        is_shown
    });
    room = LISTED_BYTES;
    spec.env.retain(|variable| {
        // A value without its end may be worse than none.
        let length = variable.key.len() + variable.value.len();
        let is_shown = room >= EACH_BYTES + length;
        room = if is_shown { room - EACH_BYTES - length } else { 0 };
        left_out += if is_shown { 0 } else { length };
        is_shown
    });
    job.left_out_bytes = left_out as u64;
    job
}

/// A run of output, without its bytes.
pub(super) fn chunk(offset: u64, kind: Kind, time_unix_usec: u64) -> v1::Chunk {
    v1::Chunk { offset, stream: stream(kind).into(), time_unix_usec, ..v1::Chunk::default() }
}

/// Output that is not to be had.
pub(super) fn gap(gap: Gap) -> v1::StreamResponse {
    let reason = match gap.reason {
        GapReason::NotStored => v1::GapReason::NotStored,
        GapReason::NoLongerKept => v1::GapReason::NoLongerKept,
    };
    let gap = v1::Gap { offset: gap.offset, length: gap.length, reason: reason.into() };
    v1::StreamResponse { event: Some(WireEvent::Gap(gap)) }
}

/// The end of a stream: the job, as [`job`].
pub(super) fn end(view: JobView, viewer: &Claim) -> v1::StreamResponse {
    v1::StreamResponse { event: Some(WireEvent::End(job(view, viewer))) }
}

fn job_spec(request: JobRequest) -> v1::JobSpec {
    let variable = |(key, value): (String, ByteStr)| v1::EnvVar { key, value: value.as_bytes().to_vec() };
    v1::JobSpec {
        command: request.command.as_bytes().to_vec(),
        args: request.args.iter().map(|arg| ByteStr::as_bytes(arg).to_vec()).collect(),
        limits: (!request.limits.is_empty()).then(|| limits_asked(&request.limits)),
        user: request.user.unwrap_or_default(),
        env: request.env.into_iter().map(variable).collect(),
        workdir: request.workdir.as_bytes().to_vec(),
        name: request.name.unwrap_or_default(),
        timeout_msec: request.timeout_msec.map(std::num::NonZeroU64::get),
        output_limit: request.output_limit.map(|limit| limit.to_string()).unwrap_or_default(),
    }
}

fn limits_asked(limits: &limits::Limits) -> v1::Limits {
    fn text<T: ToString>(limit: Option<&T>) -> String {
        limit.map(ToString::to_string).unwrap_or_default()
    }
    v1::Limits {
        cpu: text(limits.cpu.as_ref()),
        cpu_weight: text(limits.cpu_weight.as_ref()),
        memory: text(limits.memory.as_ref()),
        memory_high: text(limits.memory_high.as_ref()),
        swap: text(limits.swap.as_ref()),
        io: limits.io.iter().map(ToString::to_string).collect(),
        pids: text(limits.pids.as_ref()),
    }
}

fn owner(owner: Owner) -> v1::Owner {
    let Owner { name, common_name, role, serial, fingerprint_sha256 } = owner;
    v1::Owner { name, common_name, role, serial, fingerprint_sha256 }
}

fn phase(state: Option<&State>) -> v1::JobState {
    match state.map(|state| &state.phase) {
        None => v1::JobState::Starting,
        Some(Phase::Running) => v1::JobState::Running,
        Some(Phase::Stopping(StopReason::Requested { .. } | StopReason::TimedOut)) => v1::JobState::Stopping,
        Some(Phase::Finished(_)) => v1::JobState::Finished,
    }
}

fn process(process: ProcessStatus) -> v1::Process {
    let ProcessStatus { state, threads, resident_bytes } = process;
    v1::Process { state: state.to_string(), threads, resident_bytes }
}

fn remaining(remaining: Remaining) -> v1::Remaining {
    let Remaining { pid, name, state, kernel_function, tracer, is_outside } = remaining;
    v1::Remaining {
        pid: pid.unsigned_abs(),
        name,
        state: state.to_string(),
        kernel_function: kernel_function.unwrap_or_default(),
        tracer_pid: tracer.map(i32::unsigned_abs),
        outside_group: is_outside,
    }
}

fn outcome(finished: &Finished) -> v1::Outcome {
    let outcome = &finished.outcome;
    let ended = outcome.ended().map(|ended| match ended {
        Ended::Exited(code) => WireEnded::ExitCode(code),
        Ended::Signaled(signal) => WireEnded::Signal(signal),
    });
    let wire = |cause: v1::Cause| v1::Outcome { cause: cause.into(), ended, ..v1::Outcome::default() };
    match outcome {
        Outcome::Exited { .. } => wire(v1::Cause::Exited),
        Outcome::Signaled { .. } => wire(v1::Cause::Signaled),
        Outcome::Stopped { by, .. } => v1::Outcome { stopped_by: by.clone(), ..wire(v1::Cause::Stopped) },
        Outcome::TimedOut { .. } => wire(v1::Cause::TimedOut),
        Outcome::OutOfMemory { own_limit, .. } => {
            v1::Outcome { own_memory_limit: *own_limit, ..wire(v1::Cause::OutOfMemory) }
        }
        Outcome::Lost { reason } => v1::Outcome { reason: reason.clone(), ..wire(v1::Cause::Lost) },
    }
}

fn limits_in_force(limits: &limits::LimitsInForce) -> v1::LimitsInForce {
    let io = |io: &limits::IoLimitInForce| v1::IoLimitInForce {
        device: io.device.clone(),
        device_name: io.device_name.clone(),
        rbps: io.rbps,
        wbps: io.wbps,
        riops: io.riops,
        wiops: io.wiops,
    };
    v1::LimitsInForce {
        cpu_quota_usec: limits.cpu_quota_usec,
        cpu_period_usec: limits.cpu_period_usec,
        cpu_weight: limits.cpu_weight,
        memory_max_bytes: limits.memory_max_bytes,
        memory_high_bytes: limits.memory_high_bytes,
        swap_max_bytes: limits.swap_max_bytes,
        pids_max: limits.pids_max,
        io: limits.io.iter().map(io).collect(),
    }
}

fn usage(usage: &limits::Usage) -> v1::Usage {
    let io = |io: &limits::IoUsage| v1::IoUsage {
        device: io.device.clone(),
        device_name: io.device_name.clone(),
        read_bytes: io.read_bytes,
        written_bytes: io.written_bytes,
        reads: io.reads,
        writes: io.writes,
    };
    v1::Usage {
        cpu_usec: usage.cpu_usec,
        cpu_user_usec: usage.cpu_user_usec,
        cpu_system_usec: usage.cpu_system_usec,
        cpu_throttled_usec: usage.cpu_throttled_usec,
        cpu_throttled_periods: usage.cpu_throttled_periods,
        memory_current_bytes: usage.memory_current_bytes,
        memory_peak_bytes: usage.memory_peak_bytes,
        oom_kills: usage.oom_kills,
        pids_peak: usage.pids_peak,
        pids_denied: usage.pids_denied,
        io: usage.io.iter().map(io).collect(),
    }
}

fn stream(kind: Kind) -> v1::OutputStream {
    match kind {
        Kind::Stdout => v1::OutputStream::Stdout,
        Kind::Stderr => v1::OutputStream::Stderr,
        // A follower delivers gaps as gaps.
        Kind::Gap => v1::OutputStream::Unspecified,
    }
}

fn display(path: &std::path::Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
