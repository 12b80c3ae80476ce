//! What is left of a shim that died: its job's processes are killed, its group is removed, and the job is told as
//! lost. A job that had not got as far as `running` was never told of, and leaves nothing.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use jobworker_limits::{Group, Usage};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::host::Host;
use crate::job::folder::Folder;
use crate::job::state::Finished;
use crate::job::{JobId, Outcome, Phase, State};
use crate::shim::clock;
use crate::shim::record::{JobFolder, UNBORN};

/// How long a killed group may take to become empty.
const PATIENCE: Duration = Duration::from_secs(30);

/// A shim that an earlier spawner left, alive.
pub struct Orphan {
    /// Its job.
    pub job: JobId,
    /// Readable once it has ended.
    pub pidfd: OwnedFd,
}

/// Looks through all folders and groups, as a new spawner does. Returns the shims that live.
pub fn scan(host: &Host) -> Vec<Orphan> {
    remove_unborn(host);
    let mut orphans = Vec::new();
    let ids = host.jobs.ids().unwrap_or_else(|error| {
        tracing::error!(%error, "can't look for jobs that were left behind");
        Vec::new()
    });
    for job in ids {
        if !ended(&host.jobs.folder(job)) {
            // Pinned before the look at the lock: a shim that holds it then is the one that is pinned.
            let pidfd = shim(&host.jobs.folder(job));
            let recovered = recover(host, job, "its shim was gone when the spawner started");
            orphans
                .extend(pidfd.filter(|_| recovered == Recovered::Alive).map(|pidfd| Orphan { job, pidfd }));
        }
    }
    end_strangers(host);
    orphans
}

/// The shim that a folder names, if there is such a process.
fn shim(folder: &Folder) -> Option<OwnedFd> {
    let shim_pid = folder.state().ok()??.shim_pid;
    pidfd_open(Pid::from_raw(shim_pid)?, PidfdFlags::empty()).ok()
}

/// Ends the groups that no folder tells of.
fn end_strangers(host: &Host) {
    let Some(base) = &host.base else { return };
    let groups = base.leftover_groups().unwrap_or_else(|error| {
        tracing::error!(%error, "can't look for groups that were left behind");
        Vec::new()
    });
    for name in groups {
        let known = name.parse().is_ok_and(|job| host.jobs.folder(job).path().exists());
        if !known {
            tracing::warn!(group = name, "a group without a job's folder is killed and removed");
            end_group(host, &name);
        }
    }
}

/// A folder that was never given its job's name, of a shim that is gone.
fn remove_unborn(host: &Host) {
    let entries = fs::read_dir(host.jobs.path()).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let unborn =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(UNBORN));
        if !unborn {
            continue;
        }
        match JobFolder::take_over(&path, host.readers) {
            Ok(Some(folder)) => folder.remove(),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "can't clear up after a shim that is gone");
            }
        }
    }
}

fn ended(folder: &Folder) -> bool {
    matches!(folder.state(), Ok(Some(state)) if state.finished().is_some())
}

/// What [`recover`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// The shim lives: nothing was to be done.
    Alive,
    /// It does not: what could be done is done.
    Gone,
}

/// Clears up after one shim, unless it lives.
pub fn recover(host: &Host, job: JobId, reason: &str) -> Recovered {
    let folder = host.jobs.folder(job);
    if !folder.path().exists() || ended(&folder) {
        return Recovered::Gone;
    }
    let writer = match JobFolder::take_over(folder.path(), host.readers) {
        Ok(Some(writer)) => writer,
        Ok(None) => return Recovered::Alive,
        Err(error) => {
            tracing::error!(%job, %error, "can't take over the folder of a job whose shim is gone");
            return Recovered::Gone;
        }
    };
    let usage = end_group(host, &job.to_string());
    match folder.state() {
        Ok(Some(state)) => record_lost(&writer, &folder, state, usage, reason),
        Ok(None) => {
            tracing::warn!(%job, "a job that was never started is removed");
            writer.remove();
        }
        Err(error) => tracing::error!(%job, %error, "a job's state can't be read"),
    }
    Recovered::Gone
}

fn record_lost(writer: &JobFolder, folder: &Folder, mut state: State, usage: Usage, reason: &str) {
    // Never pretend: the main process died with its shim, its descendants can't be found.
    let reason = match state.cgroup {
        Some(_) => reason.to_owned(),
        None => format!("{reason}; it had no group, so processes that it started may still run"),
    };
    let outcome = Outcome::Lost { reason: reason.clone() };
    let finished = Finished { outcome, at_unix_usec: clock::unix_usec(), usage, output_lost_bytes: 0 };
    state.phase = Phase::Finished(Box::new(finished));
    let folder = folder.path().display();
    match writer.write_state(&state) {
        Ok(()) => tracing::error!(%folder, reason, "a job is lost"),
        Err(error) => tracing::error!(%folder, %error, "can't record that a job is lost"),
    }
}

/// Kills and removes a group, if it is there. Returns what it had used.
pub(super) fn end_group(host: &Host, name: &str) -> Usage {
    let Some(base) = &host.base else { return Usage::default() };
    let Some(path) = base.group(name).ok().filter(|path| path.exists()) else { return Usage::default() };
    let ended = Group::open(&path).and_then(|group| {
        group.kill()?;
        group.wait_empty(PATIENCE)?;
        let usage = group.usage()?;
        group.remove()?;
        Ok(usage)
    });
    ended.unwrap_or_else(|error| {
        tracing::error!(group = %path.display(), %error, "can't end a group that was left behind");
        Usage::default()
    })
}
