//! The removal of an ended job, in a child of the spawner: it may have to wait, and large files take their time.
//!
//! ```text
//!  state.json ──▶ finished ──▶ lock ──▶ still finished? ──▶ renamed to .old.<id>.<pid> ──▶ deleted
//!       │                       │ held: its shim is about to end, or another removal is faster
//!       └─ not finished: left alone; not even locked, for the lock tells a recoverer that the shim lives
//! ```
//!
//! A job without a readable `state.json` is taken as ended when nobody holds its lock: its shim is gone, so nothing
//! better will ever be known of it. Processes that are left in its group are killed first.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::host::Host;
use super::protocol::RemoveReply;
use super::recover::group::Groups;
use crate::job::JobId;
use crate::job::folder::Folder;
use crate::shim::record::{JobFolder, OLD};

/// How long a lock may be held after the job's end is recorded: the shim's last act, which takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at a lock.
const PAUSE: Duration = Duration::from_millis(5);

/// What a job's folder says of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Recorded,
    /// The job lives, or its recoverer is on its way.
    NotYet,
    /// There is no state, or it can't be read.
    Unknown,
}

/// Removes a job, unless it lives.
pub(super) fn remove(host: &Host, job: JobId) -> RemoveReply {
    let writer = match claim(host, job) {
        Ok(writer) => writer,
        Err(reply) => return reply,
    };
    // Nothing is there, unless its shim could not remove it or did not live to do so.
    if let Err(why) = (Groups { host, until: Instant::now() + PATIENCE }).end_named(&job.to_string()) {
        return RemoveReply::Failed(why);
    }
    match writer.try_remove() {
        Ok(()) => RemoveReply::Removed,
        Err(error) => {
            tracing::error!(%job, %error, "a job can't be removed");
            RemoveReply::Failed(error.to_string())
        }
    }
}

/// The folder of a job that has ended, locked and still under its name.
fn claim(host: &Host, job: JobId) -> Result<JobFolder, RemoveReply> {
    let folder = host.jobs.folder(job);
    let failed = |error: &io::Error| {
        RemoveReply::Failed(format!("can't lock the folder {}: {error}", folder.path().display()))
    };
    let until = Instant::now() + PATIENCE;
    loop {
        let end = end(&folder);
        if end == End::NotYet {
            return Err(RemoveReply::NotEnded);
        }
        match JobFolder::take_over(&host.jobs, &job.to_string(), host.readers) {
            // It may be another folder than the one that was looked at: a new job's of the same id.
            Ok(Some(writer)) if self::end(&folder) != End::NotYet => return Ok(writer),
            Ok(Some(_)) => {}
            Ok(None) if end == End::Unknown => return Err(RemoveReply::NotEnded),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(RemoveReply::NoSuchJob),
            // Two that found none make the lock at once.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(&error)),
        }
        if until <= Instant::now() {
            return Err(failed(&io::Error::other("it is held, though the job has ended")));
        }
        thread::sleep(PAUSE);
    }
}

fn end(folder: &Folder) -> End {
    match folder.state() {
        Ok(Some(state)) if state.finished().is_some() => End::Recorded,
        Ok(Some(_)) => End::NotYet,
        Ok(None) | Err(_) => End::Unknown,
    }
}

/// The names of the folders that removals left which were cut off.
pub(super) fn leftovers(host: &Host) -> Vec<String> {
    let mut names = host.jobs.dir().names().unwrap_or_else(|error| {
        tracing::error!(%error, "can't look for removals that were cut off");
        Vec::new()
    });
    names.retain(|name| name.starts_with(OLD));
    names
}

/// Deletes them.
pub(super) fn clear(host: &Host, leftovers: &[String]) {
    let jobs = host.jobs.dir();
    for name in leftovers {
        let path = jobs.path().join(name);
        match jobs.delete(name) {
            Ok(()) => tracing::info!(path = %path.display(), "a removal that was cut off is done"),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "can't delete what is left of a removed job");
            }
        }
    }
}
