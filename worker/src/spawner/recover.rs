//! What is left of a shim that died: its job's processes are killed, its group is removed, and the job is told as
//! lost. A job that had not got as far as `running` was never told of, and leaves nothing.
//!
//! ```text
//!                      lock held ───────────▶ adopted: watched until its shim has ended, then looked at again
//!                     │
//!  a folder, looked at ┼─ ended, or newer ──▶ left as it is
//!                     │
//!                     ├─ malformed ─────────▶ set aside            ┐ group killed and removed;
//!                     ├─ starting ──────────▶ removed              ├ what can't be done yet is
//!                     └─ running, stopping ─▶ recorded as lost     ┘ tried again every second
//! ```
//! A new spawner looks at every folder before it says that it is ready ([`scan()`]), and leaves to recoverers, which are
//! forked like shims, what takes long ([`recover`]).

pub(super) mod group;
mod main_process;
mod scan;
mod unborn;
mod unreadable;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use jobworker_limits::Usage;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

pub use self::scan::{Found, Orphan, scan};

use self::group::Groups;
use self::unreadable::Told;
use super::host::Host;
use crate::job::folder::{Folder, FolderError};
use crate::job::state::Finished;
use crate::job::{JobId, Outcome, Phase, State};
use crate::output::salvage::{Cut, salvage};
use crate::shim::clock;
use crate::shim::record::JobFolder;

/// How long a killed group may take to become empty before that is told.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often what could not be done is tried again.
pub const RETRY: Duration = Duration::from_secs(1);

/// What is to be cleared up.
#[derive(Clone, Debug)]
pub struct Loss {
    what: Subject,
    /// For people: what is known of it.
    reason: String,
    /// What the job's group had used, once that was read and the group removed.
    usage: Option<Usage>,
    /// The main process was outside the group, and killed there.
    main_had_left: bool,
}

#[derive(Clone, Debug)]
enum Subject {
    /// A job whose shim is gone.
    Job(JobId),
    /// A group that no folder tells of, by its name.
    Group(String),
    /// The folder of a shim that is gone and may not have been any job's, by its pid.
    Unborn(i32),
}

/// What one attempt has come to.
#[derive(Debug, PartialEq, Eq)]
enum Recovered {
    /// All is done that can be.
    Done,
    /// The shim lives, or another recoverer is at work.
    Held,
    /// It has to be tried again, and why.
    NotYet(String),
}

impl Loss {
    /// Of a job, by the death of its shim.
    pub fn of(job: JobId, reason: String) -> Self {
        Self { what: Subject::Job(job), reason, usage: None, main_had_left: false }
    }

    /// Of a shim, by its pid, before it was any job's.
    pub fn of_unborn(shim: i32) -> Self {
        Self { what: Subject::Unborn(shim), reason: String::new(), usage: None, main_had_left: false }
    }
}

/// Clears up after one shim, in a process of its own, however long that takes. Nothing is done while the shim lives.
pub fn recover(host: &Host, mut loss: Loss) {
    // Blocked in the spawner, who reads them from a descriptor.
    let mut asked_to_end = SigSet::empty();
    asked_to_end.add(Signal::SIGTERM);
    asked_to_end.add(Signal::SIGINT);
    let _ = asked_to_end.thread_unblock();
    let mut told = String::new();
    loop {
        match loss.attempt(host, Instant::now() + PATIENCE) {
            Recovered::Done => return,
            Recovered::Held => match loss.wait_until_free(host) {
                Ok(()) => continue,
                Err(error) => tracing::warn!(%error, "can't wait for the end of a job's shim"),
            },
            Recovered::NotYet(why) if why != told => {
                tracing::error!("{why}; this is tried again every second");
                told = why;
            }
            Recovered::NotYet(_) => {}
        }
        thread::sleep(RETRY);
    }
}

impl Loss {
    fn wait_until_free(&self, host: &Host) -> io::Result<()> {
        match &self.what {
            Subject::Job(job) => JobFolder::wait_until_free(&host.jobs, &job.to_string()),
            Subject::Group(_) | Subject::Unborn(_) => Ok(()),
        }
    }

    /// Once. A group has until then to become empty.
    fn attempt(&mut self, host: &Host, until: Instant) -> Recovered {
        let groups = Groups { host, until };
        let job = match &self.what {
            Subject::Job(job) => *job,
            Subject::Unborn(shim) => {
                if unborn::remove_of(host, *shim) {
                    return Recovered::Done;
                }
                return Recovered::NotYet(format!("can't remove what the shim {shim} had made for a job"));
            }
            Subject::Group(name) => {
                return groups.end_named(name).map_or_else(Recovered::NotYet, |_usage| Recovered::Done);
            }
        };
        let folder = host.jobs.folder(job);
        let writer = match self.take_over(host, job, &folder) {
            Ok(writer) => writer,
            Err(recovered) => return recovered,
        };
        // Looked at under the lock: a shim may have written an outcome before it let go.
        let told = Told::by(&folder);
        if matches!(told, Told::Ended | Told::Newer(_)) {
            return Recovered::Done;
        }
        match groups.end(job, told.state()) {
            Ok(None) => {}
            Ok(usage) => self.usage = usage,
            Err(why) => return Recovered::NotYet(why),
        }
        if let Some(state) = told.state() {
            match main_process::end(host, state, until) {
                Ok(ended) => self.main_had_left |= ended,
                Err(why) => return Recovered::NotYet(why),
            }
        }
        match told {
            Told::Unfinished(state) => self.record(host, &writer, &folder, *state),
            Told::Starting => {
                tracing::warn!(%job, "a job that was never started is removed");
                writer.remove();
                Recovered::Done
            }
            Told::Malformed(reason) => {
                unreadable::set_aside(host, job, &reason);
                Recovered::Done
            }
            Told::Unclear(error) => {
                tracing::error!(%job, %error, "a job's folder can't be read; it stays as it is");
                Recovered::Done
            }
            Told::Ended | Told::Newer(_) => Recovered::Done,
        }
    }

    fn take_over(&self, host: &Host, job: JobId, folder: &Folder) -> Result<JobFolder, Recovered> {
        match Told::by(folder) {
            Told::Ended => return Err(Recovered::Done),
            Told::Newer(error) => {
                tracing::warn!(%error, "a job's folder is left as it is");
                return Err(Recovered::Done);
            }
            _ if matches!(folder.exists(), Ok(false)) => return Err(Recovered::Done),
            _ => {}
        }
        match JobFolder::take_over(&host.jobs, &job.to_string(), host.readers) {
            Ok(Some(writer)) => Ok(writer),
            Ok(None) => Err(Recovered::Held),
            Err(error) if will_pass(&error) => {
                let folder = folder.path().display();
                Err(Recovered::NotYet(format!("can't take over {folder}, whose shim is gone: {error}")))
            }
            Err(error) => {
                let folder = folder.path().display();
                tracing::error!(%folder, %error, "can't take over a job's folder; it stays as it is");
                Err(Recovered::Done)
            }
        }
    }

    fn record(&mut self, host: &Host, writer: &JobFolder, folder: &Folder, mut state: State) -> Recovered {
        let is_of_this_boot = state.boot_id == host.boot_id;
        let output_lost_bytes = salvage_output(folder);
        let reason = match (is_of_this_boot, &state.cgroup) {
            (false, _) => "the host was restarted".to_owned(),
            (true, Some(_)) if self.main_had_left => format!(
                "{}; its main process had left its group, so others that did may still run",
                self.reason
            ),
            (true, Some(_)) => self.reason.clone(),
            // Never pretend: the main process died with its shim, its descendants can't be found.
            (true, None) => {
                format!("{}; it had no group, so processes that it started may still run", self.reason)
            }
        };
        let (outcome, usage) =
            (Outcome::Lost { reason: reason.clone() }, self.usage.clone().unwrap_or_default());
        let finished = Finished {
            outcome,
            at_unix_usec: clock::unix_usec(),
            // Up to this moment, at most.
            ran_usec: None,
            escaped: None,
            usage,
            output_bytes: None,
            output_lost_bytes,
        };
        state.phase = Phase::Finished(Box::new(finished));
        let folder = folder.path().display();
        match writer.write_state(&state) {
            Ok(()) => {
                tracing::error!(%folder, reason, "a job is lost");
                Recovered::Done
            }
            Err(error) => {
                Recovered::NotYet(format!("can't record in {folder} that the job is lost: {error}"))
            }
        }
    }
}

/// Best effort: what can't be mended now, the readers will find. Returns how much the shim could not store, in bytes.
fn salvage_output(folder: &Folder) -> u64 {
    let path = folder.path().display();
    let cut = match salvage(folder) {
        Ok(cut) => cut,
        Err(error) if will_pass(&error) => return 0,
        Err(error) => {
            tracing::warn!(folder = %path, %error, "can't mend the index of a job's output");
            return 0;
        }
    };
    let Cut { index_bytes, output_bytes, gap_bytes } = cut;
    if index_bytes > 0 || output_bytes > 0 {
        tracing::warn!(folder = %path, index_bytes, output_bytes, "cut off what is of no use of a job's output");
    }
    gap_bytes
}

/// Whether an error says that the host lacks something now.
fn will_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let lacks = [StorageFull, QuotaExceeded, ReadOnlyFilesystem, OutOfMemory].contains(&error.kind());
    lacks || [Errno::EMFILE, Errno::ENFILE].iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

#[cfg(test)]
mod tests;
