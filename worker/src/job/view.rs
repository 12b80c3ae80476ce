//! What can be said of a job at one moment: its folder, its group and its main process, read when asked.

use jobworker_limits::{Group, LimitsInForce, Usage};

use super::folder::{Folder, FolderError, SPEC};
use super::process::{ProcessStatus, Remaining, children_of};
use super::{Outcome, Phase, Spec, State};
use crate::output::Extent;
use crate::shim::clock;

/// How many processes are told of that a job's end waits for.
const MAX_REMAINING: usize = 8;

/// A job as of now.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// What was asked, by whom.
    pub spec: Spec,
    /// How it is; none while it is starting.
    pub state: Option<State>,
    /// What only a living job has.
    pub live: Live,
    /// How much output there is so far.
    pub output: Extent,
    /// How long it has run, or ran, in microseconds; none where nobody knows.
    pub ran_usec: Option<u64>,
}

/// What the kernel tells of a job that is not finished. Each part is none where the kernel has nothing (any more).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Live {
    /// The main process's number, while it is no other's.
    pub pid: Option<i32>,
    /// The main process.
    pub process: Option<ProcessStatus>,
    /// Processes in the job's group.
    pub processes: Option<u64>,
    /// The main process is outside the job's group.
    pub main_is_outside: bool,
    /// What the job's end waits for, once it is to end.
    pub remaining: Vec<Remaining>,
    /// Limits of the group.
    pub limits: Option<LimitsInForce>,
    /// What the group has used.
    pub usage: Option<Usage>,
}

impl JobView {
    /// At its birth, when it has used and written nothing.
    pub fn started(spec: Spec, state: State) -> Self {
        let limits = Some(state.limits_in_force.clone());
        let live = Live { pid: Some(state.pid), limits, ..Live::default() };
        Self { spec, state: Some(state), live, output: Extent::default(), ran_usec: Some(0) }
    }

    /// Reads it; `None` when there is no such job (or not yet). May block.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn read(folder: &Folder) -> Result<Option<Self>, FolderError> {
        let Some(spec) = folder.spec()? else { return Ok(None) };
        let state = folder.state()?;
        // Removed in between, it is no job that is starting.
        if state.is_none() && !folder.file(SPEC).exists() {
            return Ok(None);
        }
        let live =
            state.as_ref().filter(|state| state.finished().is_none()).map(Live::read).unwrap_or_default();
        // After the state: of a finished job it is all of it.
        let output = extent(folder, state.as_ref());
        let ran_usec = state.as_ref().and_then(ran_usec);
        Ok(Some(Self { spec, state, live, output, ran_usec }))
    }

    /// As [`Self::read`]; `None` also while the job is not finished. May block.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn read_finished(folder: &Folder) -> Result<Option<Self>, FolderError> {
        // First the state alone: much of what can be read of a living job is the kernel's to count.
        match folder.state()?.as_ref().and_then(State::finished) {
            Some(_) => Ok(Self::read(folder)?.filter(Self::is_finished)),
            None => Ok(None),
        }
    }

    /// Whether the job has ended.
    pub fn is_finished(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.finished().is_some())
    }
}

/// By the clock that the shim kept. A job that an older build started has the time of day only: ours while it runs.
fn ran_usec(state: &State) -> Option<u64> {
    match state.finished() {
        None => {
            let by_day = || clock::unix_usec().saturating_sub(state.started_unix_usec);
            Some(state.ran_usec(clock::boot_usec()).unwrap_or_else(by_day))
        }
        // When it ended, nobody has seen.
        Some(finished) if matches!(finished.outcome, Outcome::Lost { .. }) => finished.ran_usec,
        Some(finished) => {
            let by_day = finished.at_unix_usec.saturating_sub(state.started_unix_usec);
            Some(finished.ran_usec.unwrap_or(by_day))
        }
    }
}

/// By the index; where that can't be read, by what the shim wrote at the end. `stream` says what is wrong with it.
fn extent(folder: &Folder, state: Option<&State>) -> Extent {
    let read = Extent::read(folder).unwrap_or_else(|error| {
        tracing::warn!(%error, "the extent of a job's output can't be read");
        Extent::default()
    });
    let told = state.and_then(State::finished).and_then(|finished| finished.output_bytes);
    Extent { bytes: read.bytes.max(told.unwrap_or(0)), ..read }
}

impl Live {
    /// The job may end meanwhile, so what can't be read is not there.
    fn read(state: &State) -> Self {
        let group = state.cgroup.as_deref().map(Group::open).and_then(there);
        let members = group.as_ref().map(Group::procs).and_then(there);
        let process = there(ProcessStatus::of(state)).flatten();
        let is_to_end = process.is_none() || matches!(state.phase, Phase::Stopping(_));
        Self {
            pid: process.is_some().then_some(state.pid),
            main_is_outside: process.is_some() && is_outside(state, group.as_ref(), state.pid),
            remaining: if is_to_end { remaining(state, members.as_deref()) } else { Vec::new() },
            process,
            processes: members.map(|members| members.len() as u64),
            limits: group.as_ref().map(Group::limits_in_force).and_then(there),
            usage: group.as_ref().map(Group::usage).and_then(there),
        }
    }
}

/// Whether a process is outside the job's group: also of one that is gone. What can't be told is not said.
fn is_outside(state: &State, group: Option<&Group>, pid: i32) -> bool {
    match group {
        Some(group) => there(group.holds(pid)).flatten() == Some(false),
        None => state.cgroup.as_deref().is_some_and(|group| matches!(group.try_exists(), Ok(false))),
    }
}

/// The processes that live: of the group, and children of the shim wherever they are.
fn remaining(state: &State, members: Option<&[i32]>) -> Vec<Remaining> {
    let members = members.unwrap_or_default();
    let children = there(children_of(state.shim_pid)).unwrap_or_default();
    let outside = children.into_iter().filter(|child| !members.contains(child));
    let all = members.iter().map(|pid| (*pid, false)).chain(outside.map(|pid| (pid, state.cgroup.is_some())));
    all.filter_map(|(pid, is_outside)| there(Remaining::of(pid, is_outside)).flatten())
        .take(MAX_REMAINING)
        .collect()
}

fn there<T, E: std::fmt::Display>(read: Result<T, E>) -> Option<T> {
    read.inspect_err(|error| tracing::debug!(%error, "a living job's group or process can't be read")).ok()
}
