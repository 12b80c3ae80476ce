//! Jobs as of now: how many of each kind, and with `--metrics-per-job` what each running one uses and lacks.

use std::fmt;

use jobworker_limits::{Group, Pressure, Stalled, Usage};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::collect::each;
use super::labels::seconds;
use crate::job::JobId;
use crate::job::census::{Census, OutcomeKind};
use crate::job::folder::JobsDir;

/// The jobs that the census knows of.
#[derive(Debug)]
pub struct Jobs {
    /// How they are.
    pub census: Census,
    /// Where they are, if running ones are told of one by one.
    pub one_by_one: Option<JobsDir>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    state: &'static str,
    /// Empty, which is as if there were none, for those that have not ended.
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Job {
    job_id: String,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Lack {
    job_id: String,
    name: String,
    resource: &'static str,
    stalled: &'static str,
}

/// What the kernel tells of a running job's group.
struct Used {
    job: Job,
    usage: Usage,
    pressure: Pressure,
}

impl Collector for Jobs {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.census.counts();
        let kinds = [
            ("starting", "", counts.starting),
            ("running", "", counts.running),
            ("stopping", "", counts.stopping),
            ("unreadable", "", counts.unreadable),
        ];
        let ended = OutcomeKind::ALL.map(|kind| ("ended", kind.as_str(), counts.ended(kind)));
        let all = kinds.into_iter().chain(ended).map(|(state, outcome, count)| {
            (Kind { state, outcome }, ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)))
        });
        each(&mut encoder, "jobs", "Jobs that are there, ended ones until they are removed", all)?;
        let Some(jobs) = &self.one_by_one else { return Ok(()) };
        let running: Vec<_> = self.census.unended().into_iter().filter_map(|job| used(jobs, job)).collect();
        one_by_one(&mut encoder, &running)
    }
}

/// None of a job that has ended meanwhile, or has no group.
fn used(jobs: &JobsDir, id: JobId) -> Option<Used> {
    let folder = jobs.folder(id);
    let group = Group::open(&folder.state().ok()??.cgroup?).ok()?;
    let name = folder.spec().ok()??.request.name.unwrap_or_default();
    let job = Job { job_id: id.to_string(), name };
    Some(Used { job, usage: group.usage().ok()?, pressure: group.pressure().ok()? })
}

fn one_by_one(encoder: &mut DescriptorEncoder<'_>, running: &[Used]) -> fmt::Result {
    let cpu = |used: &Used| Some((used.job.clone(), ConstCounter::new(seconds(used.usage.cpu_usec?))));
    each(encoder, "job_cpu_seconds", "CPU time of a running job", running.iter().filter_map(cpu))?;
    let memory = |used: &Used| {
        let bytes = i64::try_from(used.usage.memory_current_bytes?).ok()?;
        Some((used.job.clone(), ConstGauge::new(bytes)))
    };
    let help = "Memory of a running job, page cache included";
    each(encoder, "job_memory_bytes", help, running.iter().filter_map(memory))?;
    let help = "How long some, or all, of a running job's processes stood still for want of a resource (PSI)";
    each(encoder, "job_pressure_seconds", help, running.iter().flat_map(lacks))
}

fn lacks(used: &Used) -> impl Iterator<Item = (Lack, ConstCounter<f64>)> + '_ {
    let Pressure { cpu, memory, io } = used.pressure;
    let resources = [("cpu", cpu), ("memory", memory), ("io", io)];
    resources.into_iter().filter_map(|(resource, stalled)| Some((resource, stalled?))).flat_map(
        move |(resource, Stalled { some_usec, full_usec })| {
            let usec = [("some", Some(some_usec)), ("full", full_usec)];
            usec.into_iter().filter_map(move |(stalled, usec)| {
                let Job { job_id, name } = used.job.clone();
                Some((Lack { job_id, name, resource, stalled }, ConstCounter::new(seconds(usec?))))
            })
        },
    )
}
