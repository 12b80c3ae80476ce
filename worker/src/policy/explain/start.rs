//! The job that somebody would start.

use std::num::NonZeroU64;

use clap::Args;
use jobworker_limits::{CpuLimit, CpuWeight, IoLimit, Limits, MemorySize, OutputLimit, PidsLimit, SwapLimit};

use crate::job::{ByteStr, JobRequest};
use crate::policy::ceiling::Timeout;

/// The job to start.
#[derive(Args, Debug)]
#[command(next_help_heading = "The job to start, as jobctl has it")]
pub(super) struct Start {
    /// What to execute.
    #[arg(long, value_name = "COMMAND", default_value = "true")]
    command: String,
    #[arg(long)]
    user: Option<String>,
    /// Only the name matters.
    #[arg(long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    #[arg(long)]
    cpu_limit: Option<CpuLimit>,
    #[arg(long)]
    cpu_weight: Option<CpuWeight>,
    #[arg(long)]
    memory_limit: Option<MemorySize>,
    #[arg(long)]
    memory_high: Option<MemorySize>,
    #[arg(long)]
    swap_limit: Option<SwapLimit>,
    #[arg(long)]
    pids_limit: Option<PidsLimit>,
    #[arg(long)]
    io_limit: Vec<IoLimit>,
    #[arg(long)]
    timeout: Option<Timeout>,
    #[arg(long)]
    output_limit: Option<OutputLimit>,
}

impl Start {
    pub(super) fn request(&self) -> JobRequest {
        // From a command line: no NUL can be in them.
        let bytes = |text: &str| ByteStr::new(text).unwrap_or_else(|_| unreachable!("arguments hold no NUL"));
        let key = |pair: &String| pair.split_once('=').map_or(pair.as_str(), |(key, _)| key).to_owned();
        JobRequest {
            command: bytes(&self.command),
            args: Vec::new(),
            limits: Limits {
                cpu: self.cpu_limit,
                cpu_weight: self.cpu_weight,
                memory: self.memory_limit,
                memory_high: self.memory_high,
                swap: self.swap_limit,
                pids: self.pids_limit,
                io: self.io_limit.clone(),
            },
            user: self.user.clone(),
            env: self.env.iter().map(|pair| (key(pair), bytes(""))).collect(),
            workdir: bytes("/"),
            name: None,
            timeout_msec: self.timeout.map(|Timeout(msec)| msec),
            output_limit: self.output_limit,
        }
    }
}

/// The job as it would be started.
pub(super) fn described(request: &JobRequest) -> Vec<String> {
    let JobRequest { limits, user, timeout_msec, output_limit, command, .. } = request;
    let timeout = |msec: NonZeroU64| Timeout(msec).to_string();
    let single = [
        ("command", Some(command.to_string())),
        ("user", user.clone()),
        ("cpu", limits.cpu.map(|limit| limit.to_string())),
        ("cpu_weight", limits.cpu_weight.map(|limit| limit.to_string())),
        ("memory", limits.memory.map(|limit| limit.to_string())),
        ("memory_high", limits.memory_high.map(|limit| limit.to_string())),
        ("swap", limits.swap.map(|limit| limit.to_string())),
        ("pids", limits.pids.map(|limit| limit.to_string())),
        ("timeout", timeout_msec.map(timeout)),
        ("output", output_limit.map(|limit| limit.to_string())),
    ];
    let io = limits.io.iter().map(|limit| ("io", Some(limit.to_string())));
    let given = single.into_iter().chain(io).filter_map(|(key, value)| Some((key, value?)));
    given.map(|(key, value)| format!("  {key} = {value}")).collect()
}
