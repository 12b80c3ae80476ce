//! For tests: any spec and any state that there can be.

use jobworker_limits::{IoLimitInForce, IoUsage, Limits, LimitsInForce, OutputLimit, Usage};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::state::{Birth, Finished, StopReason};
use super::{ByteStr, Ended, JobId, JobRequest, Outcome, Owner, Phase, Spec, State};

pub(crate) fn id() -> impl Strategy<Value = JobId> {
    any::<[u8; 16]>()
        .prop_map(|bytes| uuid::Builder::from_random_bytes(bytes).into_uuid().to_string().parse().unwrap())
}

/// Text and bytes that are none, without NUL.
pub(crate) fn bytes() -> impl Strategy<Value = ByteStr> {
    prop_oneof![".*".prop_map(String::into_bytes), vec(1..=255u8, 0..40)]
        .prop_filter_map("no NUL", |bytes| ByteStr::new(bytes).ok())
}

pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    (any::<u32>(), id(), request(), owner(), any::<u64>(), output_limit()).prop_map(
        |(version, id, request, owner, created_unix_usec, output_limit)| Spec {
            version,
            id,
            request,
            owner,
            created_unix_usec,
            output_limit,
        },
    )
}

fn request() -> impl Strategy<Value = JobRequest> {
    let variable = ("[^=\0]{1,20}", bytes());
    let timeout = any::<std::num::NonZeroU64>();
    let parts = (bytes(), vec(bytes(), 0..5), limits(), vec(variable, 0..4), bytes());
    (parts, option::of(".*"), option::of(".*"), option::of(timeout), output_limit()).prop_map(
        |((command, args, limits, env, workdir), user, name, timeout_msec, output_limit)| JobRequest {
            command,
            args,
            limits,
            user,
            env,
            workdir,
            name,
            timeout_msec,
            output_limit,
        },
    )
}

fn output_limit() -> impl Strategy<Value = Option<OutputLimit>> {
    option::of((OutputLimit::MIN_BYTES..1 << 62).prop_map(|bytes| bytes.to_string().parse().unwrap()))
}

fn limits() -> impl Strategy<Value = Limits> {
    let text = |pattern| option::of(pattern);
    let cpu = (text("[1-9][0-9]{0,3}(\\.[0-9]{1,3})?"), text("[1-9][0-9]{0,3}"));
    let memory = (text("[1-9][0-9]{0,2}[MG]"), text("[1-9][0-9]{0,2}MiB"), text("0|[1-9]GiB"));
    let io = vec(
        "(/[^\0]{0,20}:|[0-9]{1,3}:[0-9]{1,3}:)?([1-9][0-9]{0,2}M|wiops=[1-9]|rbps=[1-9]k,riops=7)",
        0..3,
    );
    (cpu, memory, text("[1-9][0-9]{0,4}"), io).prop_map(
        |((cpu, cpu_weight), (memory, high, swap), pids, io)| Limits {
            cpu: cpu.map(|text| text.parse().unwrap()),
            cpu_weight: cpu_weight.map(|text| text.parse().unwrap()),
            memory: memory.map(|text| text.parse().unwrap()),
            memory_high: high.map(|text| text.parse().unwrap()),
            swap: swap.map(|text| text.parse().unwrap()),
            pids: pids.map(|text| text.parse().unwrap()),
            io: io.iter().map(|text| text.parse().unwrap()).collect(),
        },
    )
}

fn owner() -> impl Strategy<Value = Owner> {
    (".*", ".*", ".*", "[0-9a-f]{1,40}", "[0-9a-f]{64}").prop_map(
        |(name, common_name, role, serial, fingerprint_sha256)| Owner {
            name,
            common_name,
            role,
            serial,
            fingerprint_sha256,
        },
    )
}

pub(crate) fn state() -> impl Strategy<Value = State> {
    let process = (any::<i32>(), any::<i32>(), any::<u64>());
    let place = (".*", ".*", option::of(".*".prop_map(Into::into)));
    let birth = any::<Option<(u64, u64)>>().prop_map(|birth| {
        birth.map(|(began_boot_usec, executed_boot_usec)| Birth { began_boot_usec, executed_boot_usec })
    });
    (any::<u32>(), phase(), process, place, birth, (limits_in_force(), any::<bool>())).prop_map(
        |(version, phase, process, (boot_id, user, cgroup), birth, shim)| {
            let (limits_in_force, real_time_signals) = shim;
            let (pid, shim_pid, started_unix_usec) = process;
            State {
                version,
                phase,
                pid,
                shim_pid,
                boot_id,
                user,
                cgroup,
                started_unix_usec,
                birth,
                limits_in_force,
                real_time_signals,
            }
        },
    )
}

fn phase() -> impl Strategy<Value = Phase> {
    let stopping = prop_oneof![".*".prop_map(|by| StopReason::Requested { by }), Just(StopReason::TimedOut)];
    let finished = (outcome(), any::<u64>(), usage(), any::<[Option<u64>; 3]>(), any::<u64>()).prop_map(
        |(outcome, at_unix_usec, usage, [ran_usec, escaped, output_bytes], output_lost_bytes)| {
            Phase::Finished(Box::new(Finished {
                outcome,
                at_unix_usec,
                ran_usec,
                escaped,
                usage,
                output_bytes,
                output_lost_bytes,
            }))
        },
    );
    prop_oneof![Just(Phase::Running), stopping.prop_map(Phase::Stopping), finished]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let ended = prop_oneof![any::<i32>().prop_map(Ended::Exited), any::<i32>().prop_map(Ended::Signaled)];
    prop_oneof![
        any::<i32>().prop_map(|code| Outcome::Exited { code }),
        any::<i32>().prop_map(|signal| Outcome::Signaled { signal }),
        (".*", ended.clone()).prop_map(|(by, ended)| Outcome::Stopped { by, ended }),
        ended.clone().prop_map(|ended| Outcome::TimedOut { ended }),
        (any::<bool>(), ended).prop_map(|(own_limit, ended)| Outcome::OutOfMemory { own_limit, ended }),
        ".*".prop_map(|reason| Outcome::Lost { reason }),
    ]
}

fn usage() -> impl Strategy<Value = Usage> {
    let disk = ("[0-9]{1,3}:[0-9]{1,3}", any::<[u64; 4]>()).prop_map(
        |(device, [read_bytes, written_bytes, reads, writes])| IoUsage {
            device,
            device_name: String::new(),
            read_bytes,
            written_bytes,
            reads,
            writes,
        },
    );
    (any::<[Option<u64>; 3]>(), vec(disk, 0..3)).prop_map(|([cpu_usec, memory_peak_bytes, oom_kills], io)| {
        Usage { cpu_usec, memory_peak_bytes, oom_kills, io, ..Usage::default() }
    })
}

fn limits_in_force() -> impl Strategy<Value = LimitsInForce> {
    let disk = ("[0-9]{1,3}:[0-9]{1,3}", any::<[Option<u64>; 4]>()).prop_map(
        |(device, [rbps, wbps, riops, wiops])| IoLimitInForce {
            device_name: format!("/dev/{device}"),
            device,
            rbps,
            wbps,
            riops,
            wiops,
        },
    );
    (any::<[Option<u64>; 3]>(), vec(disk, 0..3)).prop_map(
        |([cpu_quota_usec, memory_max_bytes, pids_max], io)| LimitsInForce {
            cpu_quota_usec,
            memory_max_bytes,
            pids_max,
            io,
            ..LimitsInForce::default()
        },
    )
}
