//! A subtree that is used for a moment and then as it was: for whoever wants to know what a spawner would find in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::{JOBS, SHIMS, lists};
use crate::find::own_folder;
use crate::interface::write;
use crate::{Base, BaseError, Controller, InterfaceError, members};

/// A base prepared by this process, which undoes what it has changed when it is given back or dropped.
///
/// The process has to be single-threaded and without children in the base: what is found in `shims/` beside it is a
/// spawner, to which the base belongs from then on; nothing of it is undone then.
#[derive(Debug)]
pub struct Loan {
    base: Base,
    before: Before,
    is_back: bool,
}

/// How a subtree was.
#[derive(Debug)]
struct Before {
    path: PathBuf,
    had_jobs: bool,
    had_shims: bool,
    /// Those that were handed down to `jobs/`, and there to the jobs.
    enabled: [Vec<Controller>; 2],
    /// Where this process was; none where no mount shows that.
    own: Option<PathBuf>,
}

impl Loan {
    /// Prepares a base as a spawner does ([`Base::prepare`]).
    ///
    /// # Errors
    /// As [`Base::prepare`]; nothing is changed then.
    pub fn take(path: &Path) -> Result<Loan, BaseError> {
        let before = Before::look(path);
        match Base::prepare(path) {
            Ok(base) => Ok(Loan { base, before, is_back: false }),
            Err(error) => {
                // The error at hand says more than what would go wrong here for the same reason.
                let _ = before.restore();
                Err(error)
            }
        }
    }

    /// The base. No group may be left in it when it is given back.
    #[must_use]
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Puts the subtree, and this process, back as they were.
    ///
    /// # Errors
    /// What could not be put back.
    pub fn give_back(mut self) -> Result<(), InterfaceError> {
        self.is_back = true;
        self.before.restore()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if !self.is_back {
            // On the way out of something that has failed already.
            let _ = self.before.restore();
        }
    }
}

impl Before {
    fn look(path: &Path) -> Before {
        let (jobs, shims) = (path.join(JOBS), path.join(SHIMS));
        Before {
            path: path.to_path_buf(),
            had_jobs: jobs.exists(),
            had_shims: shims.exists(),
            enabled: [enabled(path), enabled(&jobs)],
            own: own_folder().ok(),
        }
    }

    fn restore(&self) -> Result<(), InterfaceError> {
        let (jobs, shims) = (self.path.join(JOBS), self.path.join(SHIMS));
        if is_anothers(&jobs, &shims) {
            return Ok(());
        }
        let [to_jobs, to_each] = &self.enabled;
        // From below: a controller that is handed down further can't be withdrawn.
        withdraw(&jobs, to_each)?;
        withdraw(&self.path, to_jobs)?;
        if !self.had_jobs {
            remove(&jobs)?;
        }
        if let Some(own) = &self.own
            && members::own_processes(&shims).is_ok_and(|pids| !pids.is_empty())
        {
            let moved = write(&own.join("cgroup.procs"), "0");
            // Where `shims/` stays, it does no harm if this process ends in there.
            if !self.had_shims {
                moved?;
            }
        }
        if self.had_shims { Ok(()) } else { remove(&shims) }
    }
}

/// Whether a spawner has come since, or a job.
fn is_anothers(jobs: &Path, shims: &Path) -> bool {
    let own = i32::try_from(std::process::id()).ok();
    let others = members::own_processes(shims).unwrap_or_default().into_iter().any(|pid| Some(pid) != own);
    others || members::groups(jobs).is_ok_and(|groups| groups.len() > 1)
}

/// The controllers that a group hands down; none where there is no such group.
fn enabled(group: &Path) -> Vec<Controller> {
    let control = group.join("cgroup.subtree_control");
    Controller::ALL.into_iter().filter(|controller| lists(&control, *controller) == Ok(true)).collect()
}

fn withdraw(group: &Path, before: &[Controller]) -> Result<(), InterfaceError> {
    for controller in enabled(group).into_iter().filter(|controller| !before.contains(controller)) {
        write(&group.join("cgroup.subtree_control"), &format!("-{controller}"))?;
    }
    Ok(())
}

fn remove(group: &Path) -> Result<(), InterfaceError> {
    match fs::remove_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(InterfaceError::io("remove", group, error))
        }
        _ => Ok(()),
    }
}
