//! The thread that waits for news and looks, and what it knows: one owner, whoever asks.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::began::Began;
use super::table::{Seen, Table};
use super::watches::{News, Watches};
use super::{Counts, JobEnd, Listener};
use crate::job::folder::{Folder, FolderError, JobsDir};
use crate::job::{JobId, Phase, State};

/// From the first news until they are looked at, for what comes with them.
const SETTLE: Duration = Duration::from_millis(20);

/// How much nicer the thread is than those that answer calls (nice(2)): it takes a processor that nobody else wants.
const NICE: i32 = 10;

/// Between two attempts at what could not be watched or read.
const RETRY: Duration = Duration::from_secs(10);

/// None: there is no such job; in it, none: it has no state yet.
type Found = Result<Option<Option<State>>, FolderError>;

/// Looks at jobs, and knows of every one.
pub(super) struct Lookout {
    jobs: JobsDir,
    began: Began,
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

impl Lookout {
    /// Knows of none yet.
    ///
    /// # Errors
    /// When there is no inotify instance to be had.
    pub(super) fn new(jobs: JobsDir, listeners: Vec<Box<dyn Listener>>) -> io::Result<Self> {
        let known = Known {
            table: Table::default(),
            listeners,
            have_begun: false,
            pending: HashSet::new(),
            complained: false,
        };
        Ok(Self {
            jobs,
            began: Began::now(),
            watches: Watches::new()?,
            known: Mutex::new(known),
            counts: Mutex::default(),
        })
    }

    pub(super) fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    pub(super) fn unended(&self) -> Vec<JobId> {
        lock(&self.known).table.unended().collect()
    }

    /// How many folders are watched.
    #[cfg(test)]
    pub(super) fn watched(&self) -> usize {
        self.watches.len()
    }

    /// Waits and looks, until `end` is written to.
    pub(super) fn run(&self, end: &EventFd) {
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

    /// Looks at a job, and tells of its end if that is news.
    pub(super) fn look(&self, job: JobId) {
        let folder = self.jobs.folder(job);
        let mut known = lock(&self.known);
        let (found, is_watched) = self.find(job, &folder, &mut known);
        let seen = seen(&found);
        if matches!(seen, Seen::Gone | Seen::Ended { .. }) {
            self.watches.remove(job);
        }
        match !is_watched || matches!(found, Err(FolderError::Io { .. })) {
            true => known.pending.insert(job),
            false => known.pending.remove(&job),
        };
        let is_news = known.table.note(job, seen);
        *lock(&self.counts) = known.table.counts();
        if is_news
            && let Ok(Some(Some(state))) = &found
            && let Some(finished) = state.finished()
        {
            let is_from_before = self.began.is_after(state, finished);
            let end = JobEnd { job, folder: &folder, state, finished, is_from_before };
            known.listeners().iter_mut().for_each(|listener| listener.ended(&end));
        }
    }

    /// How a job is now, and whether it is watched as long as it has to be.
    fn find(&self, job: JobId, folder: &Folder, known: &mut Known) -> (Found, bool) {
        let found = read(folder);
        let is_over = match &found {
            Ok(None) => true,
            Ok(Some(state)) => state.as_ref().is_some_and(|state| state.finished().is_some()),
            Err(_) => false,
        };
        if is_over {
            return (found, true);
        }
        match self.watches.add(job, folder.path()) {
            // What came before the watch.
            Ok(true) => (read(folder), true),
            Ok(false) => (found, true),
            // It may be gone by now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => (read(folder), true),
            Err(error) => {
                self.complain_of(known, &format!("can't watch {}: {error}", folder.path().display()));
                (found, false)
            }
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

fn read(folder: &Folder) -> Found {
    match folder.state()? {
        None if !folder.path().exists() => Ok(None),
        state => Ok(Some(state)),
    }
}

fn seen(found: &Found) -> Seen {
    match found {
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
            tracing::debug!(%error, "a job's state can't be read");
            Seen::Unreadable
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
