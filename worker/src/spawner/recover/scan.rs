//! A new spawner's look at every folder and group: what is quick is cleared up at once, the rest is told.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::unreadable::Told;
use super::{Loss, Recovered, Subject, group, unborn};
use crate::job::JobId;
use crate::job::folder::Folder;
use crate::shim::record::JobFolder;
use crate::spawner::host::Host;

/// How long a new spawner clears up by itself before it is ready; recoverers do the rest.
const SCAN_PATIENCE: Duration = Duration::from_secs(2);

/// A shim that an earlier spawner left, alive.
pub struct Orphan {
    /// Its job.
    pub job: JobId,
    /// Readable once it has ended.
    pub pidfd: OwnedFd,
}

/// What a new spawner has found and not dealt with.
#[derive(Default)]
pub struct Found {
    /// To be watched over.
    pub orphans: Vec<Orphan>,
    /// To be given to recoverers.
    pub losses: Vec<Loss>,
}

/// Looks through all folders and groups, as a new spawner does.
pub fn scan(host: &Host) -> Found {
    let until = Instant::now() + SCAN_PATIENCE;
    unborn::remove(host);
    let mut found = Found::default();
    let ids = host.jobs.ids().unwrap_or_else(|error| {
        tracing::error!(%error, "can't look for jobs that were left behind");
        Vec::new()
    });
    for job in ids {
        let folder = host.jobs.folder(job);
        match Told::by(&folder) {
            Told::Ended => {}
            Told::Newer(error) => tracing::warn!(%error, "a job's folder is left as it is"),
            _ => look_at(host, &folder, job, until, &mut found),
        }
    }
    for name in group::strangers(host) {
        let stranger = Loss {
            what: Subject::Group(name),
            reason: "no job's folder tells of it".to_owned(),
            usage: None,
            main_had_left: false,
        };
        settle(host, stranger, until, &mut found);
    }
    found
}

fn look_at(host: &Host, folder: &Folder, job: JobId, until: Instant, found: &mut Found) {
    // Pinned before the look at the lock: a shim that holds it then is the one that is pinned.
    let pid = shim_pid(folder);
    let pidfd = pid.and_then(Pid::from_raw).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if JobFolder::is_held(&host.jobs, &job.to_string()).unwrap_or(false) {
        match pidfd.filter(|_| shim_pid(folder) == pid) {
            Some(pidfd) => found.orphans.push(Orphan { job, pidfd }),
            // A recoverer waits for whoever it is.
            None => found
                .losses
                .push(Loss::of(job, "its shim, left by an earlier spawner, was killed".to_owned())),
        }
        return;
    }
    settle(host, Loss::of(job, "its shim was gone when the spawner started".to_owned()), until, found);
}

/// The shim that a folder names. Its lock says so before its state does; early builds left the lock empty.
fn shim_pid(folder: &Folder) -> Option<i32> {
    folder.last_writer().or_else(|| Some(folder.state().ok()??.shim_pid))
}

/// At once, if there is time.
fn settle(host: &Host, mut loss: Loss, until: Instant, found: &mut Found) {
    if Instant::now() < until {
        match loss.attempt(host, until) {
            Recovered::Done => return,
            Recovered::Held => {}
            Recovered::NotYet(why) => tracing::warn!("{why}; this is tried again every second"),
        }
    }
    found.losses.push(loss);
}
