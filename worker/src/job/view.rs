//! What can be said of a job at one moment: its folder, its group and its main process, read when asked.

use jobworker_limits::{Group, LimitsInForce, Usage};

use super::folder::{Folder, FolderError, SPEC};
use super::process::ProcessStatus;
use super::{Spec, State};
use crate::output::Extent;

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
        Self { spec, state: Some(state), live, output: Extent::default() }
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
        Ok(Some(Self { spec, state, live, output }))
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
        let process = match (&state.cgroup, &members) {
            (Some(_), None) => None,
            (_, members) => there(ProcessStatus::of(state, members.as_deref())).flatten(),
        };
        Self {
            pid: process.is_some().then_some(state.pid),
            process,
            processes: members.map(|members| members.len() as u64),
            limits: group.as_ref().map(Group::limits_in_force).and_then(there),
            usage: group.as_ref().map(Group::usage).and_then(there),
        }
    }
}

fn there<T, E: std::fmt::Display>(read: Result<T, E>) -> Option<T> {
    read.inspect_err(|error| tracing::debug!(%error, "a living job's group or process can't be read")).ok()
}
