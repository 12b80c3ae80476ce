//! Who is in a group: its sub-groups (a job that runs as root may make some) and its processes.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::{GroupError, InterfaceError, SignalNumber};

/// How many pidfds are open at a time: few enough for any limit on descriptors.
const PIDFDS: usize = 128;

/// A group and all groups below it, every parent before its children.
pub(crate) fn groups(top: &Path) -> Result<Vec<PathBuf>, InterfaceError> {
    let mut found = vec![top.to_path_buf()];
    let mut next = 0;
    while let Some(group) = found.get(next).cloned() {
        match children(&group) {
            Ok(children) => found.extend(children),
            Err(error) if next > 0 && vanished(&error) => {}
            Err(reason) => return Err(InterfaceError::io("list", &group, reason)),
        }
        next += 1;
    }
    Ok(found)
}

fn children(group: &Path) -> io::Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// The processes of a group and of all groups below it, each once, in order.
pub(crate) fn processes(top: &Path) -> Result<Vec<i32>, InterfaceError> {
    let mut pids = Vec::new();
    for group in groups(top)? {
        match own_processes(&group) {
            Ok(own) => pids.extend(own),
            Err(error) if group != top && vanished(&error) => {}
            Err(reason) => return Err(InterfaceError::io("read", &group.join("cgroup.procs"), reason)),
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// The processes of a group itself.
pub(crate) fn own_processes(group: &Path) -> io::Result<Vec<i32>> {
    match fs::read_to_string(group.join("cgroup.procs")) {
        // 0 stands for a process that this pid namespace does not show.
        Ok(text) => {
            Ok(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0).collect())
        }
        // A threaded sub-group has no list of its own: its processes are in the group it is threaded in.
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether a process is in a group or one below it; `None` when it is gone. By the last two names of the group's path,
/// `jobs/<id>`: how the path begins in `/proc/PID/cgroup` depends on the namespaces and mounts of whoever looks.
pub(crate) fn is_in(group: &Path, pid: i32) -> Result<Option<bool>, InterfaceError> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    match fs::read(&path) {
        Ok(text) => Ok(Some(is_below(group, &String::from_utf8_lossy(&text)))),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(Errno::ESRCH as i32) =>
        {
            Ok(None)
        }
        Err(reason) => Err(InterfaceError::io("read", &path, reason)),
    }
}

/// `cgroup`: `0::PATH` among its lines (cgroups(7)).
fn is_below(group: &Path, cgroup: &str) -> bool {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    // Of a process that has exited the group may be removed.
    let own = Path::new(own.strip_suffix(" (deleted)").unwrap_or(own));
    let names = |path: &Path| Some((path.parent()?.file_name()?.to_owned(), path.file_name()?.to_owned()));
    let wanted = names(group);
    wanted.is_some() && own.ancestors().any(|above| names(above) == wanted)
}

fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

/// Sends a signal to every process that is in the group now; how many got it.
///
/// A listed pid may be another process by the time it is signalled. So it is pinned by a pidfd first, and only then
/// is the list read again: a pid that is still listed is the group's, and the pidfd can reach no other.
pub(crate) fn signal(top: &Path, signal: SignalNumber) -> Result<usize, GroupError> {
    let mut sent = 0;
    let mut failed = None;
    for pids in processes(top)?.chunks(PIDFDS) {
        let pinned: Vec<_> = pids.iter().map(|pid| (*pid, pin(*pid))).collect();
        let members: HashSet<i32> = processes(top)?.into_iter().collect();
        for (pid, pidfd) in pinned.into_iter().filter(|(pid, _)| members.contains(pid)) {
            match pidfd.and_then(|pidfd| Ok(pidfd_send_signal(&pidfd, signal.to_rustix())?)) {
                Ok(()) => sent += 1,
                // It ended by itself.
                Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
                Err(reason) => {
                    failed.get_or_insert(GroupError::Signal { signal, pid, path: top.to_path_buf(), reason });
                }
            }
        }
    }
    failed.map_or(Ok(sent), Err)
}

fn pin(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_its_group_however_the_path_is_shown() {
        let group = Path::new("/sys/fs/cgroup/system.slice/jobworker-jobs.service/jobs/1-2");
        for (cgroup, expected) in [
            ("0::/system.slice/jobworker-jobs.service/jobs/1-2\n", true),
            ("0::/system.slice/jobworker-jobs.service/jobs/1-2/inner/x\n", true),
            ("0::/system.slice/jobworker-jobs.service/jobs/1-2 (deleted)\n", true),
            ("1:cpu:/elsewhere\n0::/jobs/1-2\n", true),
            ("0::/../jobs/1-2\n", true),
            ("0::/\n", false),
            ("0::/user.slice/session-3.scope\n", false),
            ("0::/system.slice/jobworker-jobs.service/jobs\n", false),
            ("0::/jobs/1-3\n", false),
            ("0::/jobs/1-2x\n", false),
            ("0::/1-2\n", false),
            ("1:cpu:/jobs/1-2\n", false),
            ("", false),
        ] {
            assert_eq!(is_below(group, cgroup), expected, "{cgroup:?}");
        }
        assert_eq!(is_in(group, std::process::id().cast_signed()).unwrap(), Some(false));
        assert_eq!(is_in(group, 5_000_000).unwrap(), None);
    }
}
