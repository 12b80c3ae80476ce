//! The census: how each job in the state folder is, and the end of each, told once.
//!
//! ```text
//!  jobs/       a folder appears or goes ──┐
//!  jobs/<id>/  state.json is replaced ────┼─(inotify, a thread)──▶ look at that job ──▶ [`table`] ──▶ counts
//!  at start, or too much for the queue ───┘                          ▲                     └──(an end)──▶ listeners
//!                                      before a job is removed ──────┘
//! ```
//!
//! It learns by looking: news only say which job to look at, so a late, a double or a joined one does no harm. Folders
//! are watched until their job has ended, for what replaces `state.json` alone, which costs a job's output nothing. A
//! removal looks first, because there would be nothing left to see.
//!
//! Nobody waits for it. It wakes some milliseconds after the first of several news, when a start has been answered and a
//! short job has ended. inotify(7).

mod began;
mod counts;
mod lookout;
mod table;
mod watches;

use std::io;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

pub use self::counts::{Counts, OutcomeKind};

use self::lookout::Lookout;
use super::folder::{Folder, JobsDir};
use super::state::Finished;
use super::{JobId, State};
use crate::tasks::Tasks;

/// The end of a job, as the census tells it.
#[derive(Clone, Copy, Debug)]
pub struct JobEnd<'a> {
    /// Which job.
    pub job: JobId,
    /// Its folder, which is there until the listener returns, unless somebody else than the spawner removes it.
    pub folder: &'a Folder,
    /// How it was at its end.
    pub state: &'a State,
    /// The end in `state`.
    pub finished: &'a Finished,
    /// Whether it is found rather than seen: the job had ended before the census began.
    pub is_from_before: bool,
}

/// Who is told of ends: once of each, in the order in which they were seen. It must not wait for anything but a disk, and
/// not ask the census.
pub trait Listener: Send {
    /// Before the first.
    fn begin(&mut self) {}

    /// A job has ended.
    fn ended(&mut self, end: &JobEnd<'_>);
}

impl<F: FnMut(&JobEnd<'_>) + Send> Listener for F {
    fn ended(&mut self, end: &JobEnd<'_>) {
        self(end);
    }
}

/// Knows of every job. Clones are the same census; its thread ends with the last one.
#[derive(Clone)]
pub struct Census {
    thread: Arc<Thread>,
}

struct Thread {
    lookout: Arc<Lookout>,
    end: Arc<EventFd>,
}

impl Census {
    /// Begins, in a thread of its own.
    ///
    /// # Errors
    /// When there is no inotify instance or no thread to be had.
    pub fn start(jobs: JobsDir, listeners: Vec<Box<dyn Listener>>, tasks: &Tasks) -> io::Result<Self> {
        let end = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let lookout = Arc::new(Lookout::new(jobs, listeners)?);
        let thread = Arc::new(Thread { lookout: Arc::clone(&lookout), end: Arc::clone(&end) });
        tasks.thread("index of jobs", move || lookout.run(&end))?;
        Ok(Self { thread })
    }

    /// How many jobs there are of each kind, as far as is known. Does not wait.
    pub fn counts(&self) -> Counts {
        self.thread.lookout.counts()
    }

    /// The jobs that have not ended, as far as is known. May block.
    pub fn unended(&self) -> Vec<JobId> {
        self.thread.lookout.unended()
    }

    /// Looks at a job now, before it is removed: if it has ended, that has been told when this returns. May block.
    pub fn look(&self, job: JobId) {
        self.thread.lookout.look(job);
    }
}

impl std::fmt::Debug for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Census").field(&self.counts()).finish()
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // Fails only where it has been written to 2^64 - 2 times.
        let _ = self.end.write(1);
    }
}

#[cfg(test)]
mod tests;
