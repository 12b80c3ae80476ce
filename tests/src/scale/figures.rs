//! What was measured: a table for people, a line of JSON for programs.

use std::fmt;
use std::time::Duration;

use super::Options;
use crate::census;

/// A process's memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// All that it has in use (`VmRSS`), what it shares with others included.
    pub resident_bytes: u64,
    /// What no other process has in use, too (`Private_*` of `smaps_rollup`).
    pub private_bytes: u64,
}

/// The figures, in the order in which they were measured.
#[derive(Clone, Debug)]
pub struct Figures {
    options: Options,
    pub(super) ready_without_jobs: Duration,
    pub(super) worker_without_jobs: Memory,
    pub(super) worker_before_growth: Memory,
    pub(super) worker_after_growth: Memory,
    pub(super) growth_jobs: usize,
    pub(super) shim_idle: Memory,
    pub(super) shim_after_output: Memory,
    pub(super) streaming: Duration,
    pub(super) worker_streaming: Memory,
    pub(super) ready_with_jobs: Duration,
    pub(super) worker_with_jobs: Memory,
    pub(super) spawner_with_jobs: Memory,
    pub(super) list: Duration,
    pub(super) worker_after_list: Memory,
}

/// A line of the table.
struct Row {
    name: &'static str,
    /// Its last word is the unit.
    key: &'static str,
    value: u64,
    goal: Option<u64>,
}

impl Memory {
    pub(super) fn of(pid: u32) -> Self {
        Self { private_bytes: census::private_bytes(pid), ..Self::resident_of(pid) }
    }

    /// Without a look at every page.
    pub(super) fn resident_of(pid: u32) -> Self {
        Self { resident_bytes: census::resident_bytes(pid), private_bytes: 0 }
    }

    pub(super) fn max(self, other: Self) -> Self {
        Self {
            resident_bytes: self.resident_bytes.max(other.resident_bytes),
            private_bytes: self.private_bytes.max(other.private_bytes),
        }
    }
}

impl Figures {
    pub(super) fn new(options: Options) -> Self {
        let (time, memory) = (Duration::ZERO, Memory::default());
        Self {
            options,
            ready_without_jobs: time,
            worker_without_jobs: memory,
            worker_before_growth: memory,
            worker_after_growth: memory,
            growth_jobs: 0,
            shim_idle: memory,
            shim_after_output: memory,
            streaming: time,
            worker_streaming: memory,
            ready_with_jobs: time,
            worker_with_jobs: memory,
            spawner_with_jobs: memory,
            list: time,
            worker_after_list: memory,
        }
    }

    fn rows(&self) -> Vec<Row> {
        let row = |name, key, value| Row { name, key, value, goal: None };
        let goal = |name, key, value, goal| Row { name, key, value, goal: Some(goal) };
        let msec = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let kib = |bytes: u64| bytes / 1024;
        let grown_bytes =
            self.worker_after_growth.resident_bytes.saturating_sub(self.worker_before_growth.resident_bytes);
        let streamed_mib = (self.options.stream_bytes as u64 >> 20) * self.options.clients as u64;
        let hundred_mb_kib = kib(100_000_000);
        vec![
            row("ended jobs", "ended_jobs", self.options.jobs as u64),
            row("no jobs: exec to listening", "ready_without_jobs_msec", msec(self.ready_without_jobs)),
            row("no jobs: worker", "worker_without_jobs_kib", kib(self.worker_without_jobs.resident_bytes)),
            row("  its own", "worker_without_jobs_private_kib", kib(self.worker_without_jobs.private_bytes)),
            goal("with jobs: exec to listening", "ready_with_jobs_msec", msec(self.ready_with_jobs), 2_000),
            goal(
                "with jobs: worker",
                "worker_with_jobs_kib",
                kib(self.worker_with_jobs.resident_bytes),
                hundred_mb_kib,
            ),
            row("  its own", "worker_with_jobs_private_kib", kib(self.worker_with_jobs.private_bytes)),
            row("with jobs: spawner", "spawner_with_jobs_kib", kib(self.spawner_with_jobs.resident_bytes)),
            row("jobctl list of them", "list_msec", msec(self.list)),
            goal(
                "worker after the list",
                "worker_after_list_kib",
                kib(self.worker_after_list.resident_bytes),
                hundred_mb_kib,
            ),
            row("jobs run", "runs", self.options.runs as u64),
            goal(
                "worker's growth by each job",
                "growth_per_job_bytes",
                grown_bytes / (self.growth_jobs.max(1) as u64),
                4096,
            ),
            goal("idle shim: its own", "shim_private_kib", kib(self.shim_idle.private_bytes), 300),
            row("  with what it shares", "shim_resident_kib", kib(self.shim_idle.resident_bytes)),
            goal(
                "shim after 64 MiB: its own",
                "shim_after_output_private_kib",
                kib(self.shim_after_output.private_bytes),
                300,
            ),
            row("clients reading", "clients", self.options.clients as u64),
            row("streamed, in all", "streamed_mib", streamed_mib),
            row("  within", "streaming_msec", msec(self.streaming)),
            row(
                "worker while streaming: peak",
                "worker_streaming_kib",
                kib(self.worker_streaming.resident_bytes),
            ),
        ]
    }

    /// One line, for programs.
    pub fn json(&self) -> String {
        let all: serde_json::Map<_, _> =
            self.rows().into_iter().map(|row| (row.key.to_owned(), row.value.into())).collect();
        serde_json::Value::from(all).to_string()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Row { name, key, value, goal } in self.rows() {
            let unit = ["msec", "kib", "mib", "bytes"].into_iter().find(|unit| key.ends_with(unit));
            let unit = unit.unwrap_or_default();
            let goal = goal.map(|goal| format!("   goal: below {goal}")).unwrap_or_default();
            writeln!(f, "{}", format!("{name:<32}{value:>12} {unit:<5}{goal}").trim_end())?;
        }
        Ok(())
    }
}
