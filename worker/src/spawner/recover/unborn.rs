//! Folders that were never given their job's name, of shims that are gone.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::job::folder::LOCK;
use crate::shim::record::{JobFolder, UNBORN};
use crate::spawner::host::Host;

/// Removes them.
pub(super) fn remove(host: &Host) {
    let names = host.jobs.dir().names().unwrap_or_else(|error| {
        tracing::error!(%error, "can't look for folders that were never a job's");
        Vec::new()
    });
    for name in names {
        if let Some(rest) = name.strip_prefix(UNBORN) {
            clear(host, &name, rest);
        }
    }
}

/// Removes that of one shim, which is gone. Whether nothing is left of it.
pub(super) fn remove_of(host: &Host, shim: i32) -> bool {
    let name = JobFolder::unborn(shim);
    if matches!(host.jobs.dir().has(&name), Ok(false)) {
        return true;
    }
    clear(host, &name, &shim.to_string());
    !matches!(host.jobs.dir().has(&name), Ok(true))
}

/// A shim names itself in the folder's name. Until it holds the lock, that is all there is to go by.
fn clear(host: &Host, name: &str, rest: &str) {
    let shim = rest.rsplit('.').next().and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 0);
    let has_lock = || host.jobs.dir().subdir(name).and_then(|dir| dir.has(LOCK));
    if shim.is_some_and(lives) && matches!(has_lock(), Ok(false)) {
        return;
    }
    match JobFolder::take_over(&host.jobs, name, host.readers) {
        // What can't be removed is told there.
        Ok(Some(folder)) => _ = folder.remove(),
        Ok(None) => {}
        Err(error) => {
            let path = host.jobs.path().join(name);
            tracing::error!(path = %path.display(), %error, "can't clear up after a shim that is gone");
        }
    }
}

/// Another process may have its number by now; then the folder stays until the next time.
fn lives(pid: i32) -> bool {
    !matches!(kill(Pid::from_raw(pid), None), Err(Errno::ESRCH))
}
