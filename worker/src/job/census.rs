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
//! Nobody waits for it. It wakes `SETTLE` after the first of several news, when a start has been answered and a short
//! job has ended. inotify(7).

mod counts;
mod table;
mod watches;

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

pub use self::counts::{Counts, OutcomeKind};

use self::table::{Seen, Table};
use self::watches::{News, Watches};
use super::folder::{Folder, FolderError, JobsDir};
use super::{JobId, Phase, State};
use crate::job::state::Finished;
use crate::shim::clock;

/// From the first news until they are looked at, for what comes with them.
const SETTLE: Duration = Duration::from_millis(20);

/// How much nicer the thread is than those that answer calls (nice(2)): it takes a processor that nobody else wants.
const NICE: i32 = 10;

/// Between two attempts at what could not be watched or read.
const RETRY: Duration = Duration::from_secs(10);

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
    shared: Arc<Shared>,
    end: Arc<EventFd>,
}

struct Shared {
    jobs: JobsDir,
    began_unix_usec: u64,
    watches: Watches,
    known: Mutex<Known>,
    /// Beside `known`, which may be locked for as long as a disk takes.
    counts: Mutex<Counts>,
}

struct Known {
    table: Table,
    listeners: Vec<Box<dyn Listener>>,
    have_begun: bool,
    /// What could not be watched or read, and may be later.
    pending: HashSet<JobId>,
    /// That there is something pending was told.
    complained: bool,
}

impl Census {
    /// Begins, in a thread of its own.
    ///
    /// # Errors
    /// When there is no inotify instance or no thread to be had.
    pub fn start(jobs: JobsDir, listeners: Vec<Box<dyn Listener>>) -> io::Result<Self> {
        let end = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let known = Known {
            table: Table::default(),
            listeners,
            have_begun: false,
            pending: HashSet::new(),
            complained: false,
        };
        let shared = Arc::new(Shared {
            jobs,
            began_unix_usec: clock::unix_usec(),
            watches: Watches::new()?,
            known: Mutex::new(known),
            counts: Mutex::default(),
        });
        let thread = Arc::new(Thread { shared: Arc::clone(&shared), end: Arc::clone(&end) });
        thread::Builder::new().name("census".to_owned()).spawn(move || shared.run(&end))?;
        Ok(Self { thread })
    }

    /// How many jobs there are of each kind, as far as is known. Does not wait.
    pub fn counts(&self) -> Counts {
        *lock(&self.thread.shared.counts)
    }

    /// The jobs that have not ended, as far as is known. May block.
    pub fn unended(&self) -> Vec<JobId> {
        lock(&self.thread.shared.known).table.unended().collect()
    }

    /// Looks at a job now, before it is removed: if it has ended, that has been told when this returns. May block.
    pub fn look(&self, job: JobId) {
        self.thread.shared.look(job);
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

impl Shared {
    fn run(&self, end: &EventFd) {
        // Of this thread alone, on Linux. Where a sandbox forbids it, all works the same.
        let _ = rustix::process::nice(NICE);
        lock(&self.known).listeners();
        let mut is_watched = false;
        loop {
            is_watched = is_watched || self.begin();
            let retries = self.has_to_retry(is_watched);
            if self.wait(end, retries) {
                return;
            }
            let mut look_at = lock(&self.known).pending.iter().copied().collect::<Vec<_>>();
            for news in self.watches.read() {
                match news {
                    News::Job(job) => look_at.push(job),
                    News::Overflow => self.scan(),
                    News::JobsGone => is_watched = false,
                }
            }
            let mut looked = HashSet::new();
            for job in look_at.into_iter().filter(|job| looked.insert(*job)) {
                self.look(job);
            }
        }
    }

    /// Watched before it is looked through: what comes in between is not missed.
    fn begin(&self) -> bool {
        match self.watches.add_jobs(self.jobs.path()) {
            Ok(()) => {
                self.scan();
                let counts = *lock(&self.counts);
                let (unended, ended) = (counts.all() - counts.all_ended(), counts.all_ended());
                tracing::info!(unended, ended, "all jobs are counted; each end is told from now on");
                true
            }
            Err(error) => {
                let folder = self.jobs.path().display();
                self.complain(&format!("can't watch {folder}: {error}"));
                false
            }
        }
    }

    fn has_to_retry(&self, is_watched: bool) -> bool {
        let mut known = lock(&self.known);
        let retries = !is_watched || !known.pending.is_empty();
        known.complained &= retries;
        retries
    }

    /// Returns when there are news, or `retries` are due; whether to end.
    fn wait(&self, end: &EventFd, retries: bool) -> bool {
        let timeout = if retries {
            PollTimeout::try_from(RETRY).unwrap_or(PollTimeout::MAX)
        } else {
            PollTimeout::NONE
        };
        let mut fds = [
            PollFd::new(self.watches.as_fd(), PollFlags::POLLIN),
            PollFd::new(end.as_fd(), PollFlags::POLLIN),
        ];
        // Interrupted, it has found nothing.
        let _ = poll(&mut fds, timeout);
        let ends = fds[1].any().unwrap_or(false);
        if !ends {
            thread::sleep(SETTLE);
        }
        ends
    }

    /// Looks at every job that is there, or was.
    fn scan(&self) {
        let ids = match self.jobs.ids() {
            Ok(ids) => ids,
            Err(error) => return self.complain(&error.to_string()),
        };
        let mut all: HashSet<_> = lock(&self.known).table.ids().collect();
        all.extend(ids);
        for job in all {
            self.look(job);
        }
    }

    fn look(&self, job: JobId) {
        let folder = self.jobs.folder(job);
        let mut known = lock(&self.known);
        let mut is_pending = false;
        let mut found = read(&folder);
        let is_over = match &found {
            Ok(None) => true,
            Ok(Some(state)) => state.as_ref().is_some_and(|state| state.finished().is_some()),
            Err(_) => false,
        };
        if !is_over {
            match self.watches.add(job, folder.path()) {
                // What came before the watch.
                Ok(true) => found = read(&folder),
                Ok(false) => {}
                // It may be gone by now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => found = read(&folder),
                Err(error) => {
                    is_pending = true;
                    self.complain_of(
                        &mut known,
                        &format!("can't watch {}: {error}", folder.path().display()),
                    );
                }
            }
        }
        let seen = match &found {
            Ok(None) => Seen::Gone,
            Ok(Some(None)) => Seen::Starting,
            Ok(Some(Some(state))) => match &state.phase {
                Phase::Running => Seen::Running,
                Phase::Stopping(_) => Seen::Stopping,
                Phase::Finished(finished) => {
                    Seen::Ended { kind: finished.outcome.kind(), at_unix_usec: finished.at_unix_usec }
                }
            },
            Err(error) => {
                is_pending |= matches!(error, FolderError::Io { .. });
                tracing::debug!(%error, "a job's state can't be read");
                Seen::Unreadable
            }
        };
        if matches!(seen, Seen::Gone | Seen::Ended { .. }) {
            self.watches.remove(job);
        }
        match is_pending {
            true => known.pending.insert(job),
            false => known.pending.remove(&job),
        };
        let is_news = known.table.note(job, seen);
        *lock(&self.counts) = known.table.counts();
        if is_news
            && let Ok(Some(Some(state))) = &found
            && let Some(finished) = state.finished()
        {
            let is_from_before = finished.at_unix_usec < self.began_unix_usec;
            let end = JobEnd { job, folder: &folder, state, finished, is_from_before };
            known.listeners().iter_mut().for_each(|listener| listener.ended(&end));
        }
    }

    fn complain(&self, what: &str) {
        self.complain_of(&mut lock(&self.known), what);
    }

    /// Once: there may be a thousand of them.
    fn complain_of(&self, known: &mut Known, what: &str) {
        if !std::mem::replace(&mut known.complained, true) {
            let every_sec = RETRY.as_secs();
            tracing::error!(
                "{what}; until it can, ends of jobs are told late; tried again every {every_sec} s"
            );
        }
    }
}

impl Known {
    fn listeners(&mut self) -> &mut [Box<dyn Listener>] {
        if !std::mem::replace(&mut self.have_begun, true) {
            self.listeners.iter_mut().for_each(|listener| listener.begin());
        }
        &mut self.listeners
    }
}

/// None: there is no such job; in it, none: it has no state yet.
fn read(folder: &Folder) -> Result<Option<Option<State>>, FolderError> {
    match folder.state()? {
        None if !folder.path().exists() => Ok(None),
        state => Ok(Some(state)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
