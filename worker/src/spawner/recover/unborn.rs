//! Folders that were never given their job's name, of shims that are gone.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::job::folder::LOCK;
use crate::shim::record::{JobFolder, UNBORN};
use crate::spawner::host::Host;

/// Removes them.
pub(super) fn remove(host: &Host) {
    let entries = fs::read_dir(host.jobs.path()).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(rest) = name.and_then(|name| name.strip_prefix(UNBORN)) {
            clear(host, &path, rest);
        }
    }
}

/// Removes that of one shim, which is gone. Whether nothing is left of it.
pub(super) fn remove_of(host: &Host, shim: i32) -> bool {
    let path = JobFolder::unborn(&host.jobs, shim);
    if matches!(path.try_exists(), Ok(false)) {
        return true;
    }
    clear(host, &path, &shim.to_string());
    !matches!(path.try_exists(), Ok(true))
}

/// A shim names itself in the folder's name. Until it holds the lock, that is all there is to go by.
fn clear(host: &Host, path: &Path, rest: &str) {
    let shim = rest.rsplit('.').next().and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 0);
    if shim.is_some_and(lives) && matches!(path.join(LOCK).try_exists(), Ok(false)) {
        return;
    }
    match JobFolder::take_over(path, host.readers) {
        // What can't be removed is told there.
        Ok(Some(folder)) => _ = folder.remove(),
        Ok(None) => {}
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "can't clear up after a shim that is gone");
        }
    }
}

/// Another process may have its number by now; then the folder stays until the next time.
fn lives(pid: i32) -> bool {
    !matches!(kill(Pid::from_raw(pid), None), Err(Errno::ESRCH))
}
