//! What a request asks for, in the audit log's words: as it was sent, before anything of it is looked at.

use jobworker_proto::v1;

use crate::audit::{self, Asked};

/// A job.
pub(super) fn about(job: &str) -> Asked {
    Asked { job: Some(job.to_owned()), ..Asked::default() }
}

/// A signal to a job.
pub(super) fn to_signal(job: &str, signal: &str) -> Asked {
    let signal = Some(signal).filter(|signal| !signal.is_empty()).map(str::to_owned);
    Asked { signal, ..about(job) }
}

/// A start, with everything but the environment.
pub(super) fn to_start(id: &str, spec: &v1::JobSpec) -> Asked {
    let given = |text: &str| Some(text).filter(|text| !text.is_empty()).map(str::to_owned);
    let words = std::iter::once(&spec.command).chain(&spec.args).map(Vec::as_slice);
    Asked {
        job: given(id),
        argv: Some(audit::argv(words)),
        limits: limits_text(spec),
        user: given(&spec.user),
        ..Asked::default()
    }
}

fn limits_text(spec: &v1::JobSpec) -> Option<String> {
    let limits = spec.limits.clone().unwrap_or_default();
    let single = [
        ("cpu", limits.cpu),
        ("cpu_weight", limits.cpu_weight),
        ("memory", limits.memory),
        ("memory_high", limits.memory_high),
        ("swap", limits.swap),
        ("pids", limits.pids),
        ("timeout", spec.timeout_msec.map(|msec| format!("{msec}ms")).unwrap_or_default()),
        ("output", spec.output_limit.clone()),
    ];
    let io = limits.io.into_iter().map(|io| ("io", io));
    let given = single.into_iter().chain(io).filter(|(_, text)| !text.is_empty());
    let texts: Vec<_> = given.map(|(name, text)| format!("{name}={text}")).collect();
    (!texts.is_empty()).then(|| texts.join(" "))
}
