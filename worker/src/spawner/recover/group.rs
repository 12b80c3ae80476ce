//! The groups of shims that are gone.

use std::path::Path;
use std::time::Instant;

use jobworker_limits::{Base, Group, GroupError, Usage};

use crate::job::{JobId, State};
use crate::spawner::host::Host;

/// Ends groups.
pub(in crate::spawner) struct Groups<'a> {
    pub(in crate::spawner) host: &'a Host,
    /// When a killed group has to be empty.
    pub(in crate::spawner) until: Instant,
}

impl Groups<'_> {
    /// Kills and removes a job's group, if it is there. Returns what it had used.
    ///
    /// # Errors
    /// Why it has to be tried again. What won't get better is told in the log instead.
    pub(super) fn end(&self, job: JobId, state: Option<&State>) -> Result<Option<Usage>, String> {
        // A spawner that works in another subtree now can still reach it by the path.
        let recorded = state
            .filter(|state| state.boot_id == self.host.boot_id)
            .and_then(|state| state.cgroup.as_deref())
            .filter(|path| path.file_name().is_some_and(|name| *name == *job.to_string()))
            .filter(|path| Base::find(Some(path)).is_ok());
        match recorded {
            Some(path) => end(path, self.until),
            None => self.end_named(&job.to_string()),
        }
    }

    /// The same with the group of that name in our own subtree.
    ///
    /// # Errors
    /// As [`Self::end`].
    pub(in crate::spawner) fn end_named(&self, name: &str) -> Result<Option<Usage>, String> {
        let path = self.host.base.as_ref().and_then(|base| base.group(name).ok());
        path.map_or(Ok(None), |path| end(&path, self.until))
    }
}

fn end(path: &Path, until: Instant) -> Result<Option<Usage>, String> {
    if !path.exists() {
        return Ok(None);
    }
    let patience = until.saturating_duration_since(Instant::now());
    let ended = Group::open(path).and_then(|group| {
        group.kill()?;
        if !group.wait_empty(patience)? {
            return Err(GroupError::Busy { path: path.to_owned() });
        }
        let usage = group.usage()?;
        group.remove()?;
        Ok(usage)
    });
    match ended {
        Ok(usage) => Ok(Some(usage)),
        Err(error @ GroupError::Busy { .. }) => Err(error.to_string()),
        Err(error) => {
            tracing::error!(group = %path.display(), %error, "can't end a group that was left behind");
            Ok(None)
        }
    }
}

/// The groups that no folder tells of.
pub(super) fn strangers(host: &Host) -> Vec<String> {
    let Some(base) = &host.base else { return Vec::new() };
    let mut names = base.leftover_groups().unwrap_or_else(|error| {
        tracing::error!(%error, "can't look for groups that were left behind");
        Vec::new()
    });
    names.retain(|name| is_stranger(host, base, name));
    names
}

fn is_stranger(host: &Host, base: &Base, name: &str) -> bool {
    let folder = name.parse().map(|job| host.jobs.folder(job).exists());
    // One that can't be looked for may be there.
    if folder.is_ok_and(|exists| exists.unwrap_or(true)) {
        return false;
    }
    if base.group(name).is_ok_and(|group| has_shim(base, &group)) {
        let state_dir = host.jobs.path().display();
        tracing::warn!(group = name, %state_dir, "a group's shim lives, and no job's folder is here: it is left alone");
        return false;
    }
    tracing::warn!(group = name, "a group without a job's folder is killed and removed");
    true
}

/// Whether a process in a group is the child of one among the shims: another state folder's, or one whose folder was
/// removed by hand. What a dead shim leaves is the child of init.
fn has_shim(base: &Base, group: &Path) -> bool {
    let procs = |path: &Path| Group::open(path).and_then(|group| group.procs()).unwrap_or_default();
    let shims = procs(&base.shims());
    let parent = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<i32>().ok()
    };
    procs(group).into_iter().filter_map(parent).any(|parent| shims.contains(&parent))
}
