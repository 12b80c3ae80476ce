//! What the kernel watches for the census: the folder of all jobs, and that of each job that has not ended.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use crate::job::JobId;
use crate::job::folder::STATE;

/// An inotify instance of its own.
pub(super) struct Watches {
    inotify: Inotify,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    jobs: Option<WatchDescriptor>,
    by_job: HashMap<JobId, WatchDescriptor>,
    by_descriptor: HashMap<WatchDescriptor, JobId>,
}

/// What the kernel has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A job has a new state, or its folder has come or gone.
    Job(JobId),
    /// The folder of all has gone, or has another name.
    JobsGone,
    /// There was more than the kernel could keep.
    Overflow,
}

impl Watches {
    /// # Errors
    /// When the kernel gives no inotify instance.
    pub(super) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(|errno| match errno {
            Errno::EMFILE => io::Error::other(
                "no inotify instance left for this user: raise the sysctl fs.inotify.max_user_instances, or ulimit -n",
            ),
            errno => errno.into(),
        })?;
        Ok(Self { inotify, watched: Mutex::default() })
    }

    /// Watches the folder of all jobs.
    ///
    /// # Errors
    /// When it is not there or can't be watched.
    pub(super) fn add_jobs(&self, path: &Path) -> io::Result<()> {
        // Folders get their name, and lose it, by rename; but somebody may delete one in place.
        let changes = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE;
        let changes = changes | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ONLYDIR;
        let descriptor = self.inotify.add_watch(path, changes)?;
        let before = self.watched().jobs.replace(descriptor);
        if let Some(before) = before.filter(|before| *before != descriptor) {
            // EINVAL: the folder was removed, and the watch with it.
            let _ = self.inotify.rm_watch(before);
        }
        Ok(())
    }

    /// Watches a job's folder; whether it was not watched before.
    ///
    /// # Errors
    /// When it is not there or can't be watched.
    pub(super) fn add(&self, job: JobId, path: &Path) -> io::Result<bool> {
        let mut watched = self.watched();
        let changes = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        let descriptor = self.inotify.add_watch(path, changes).map_err(|errno| match errno {
            Errno::ENOSPC => io::Error::other(
                "this user's inotify watches are used up: raise the sysctl fs.inotify.max_user_watches",
            ),
            errno => errno.into(),
        })?;
        match watched.by_job.insert(job, descriptor) {
            Some(before) if before == descriptor => return Ok(false),
            // An earlier job's of the same id.
            Some(before) => self.forget(&mut watched, before),
            None => {}
        }
        watched.by_descriptor.insert(descriptor, job);
        Ok(true)
    }

    /// Ends the watch of a job's folder, if there is one.
    pub(super) fn remove(&self, job: JobId) {
        let mut watched = self.watched();
        if let Some(descriptor) = watched.by_job.remove(&job) {
            self.forget(&mut watched, descriptor);
        }
    }

    fn forget(&self, watched: &mut Watched, descriptor: WatchDescriptor) {
        watched.by_descriptor.remove(&descriptor);
        // EINVAL: the folder was removed, and the watch with it.
        let _ = self.inotify.rm_watch(descriptor);
    }

    /// All that there is to be read, in its order. Does not wait.
    pub(super) fn read(&self) -> Vec<News> {
        let mut news = Vec::new();
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    let watched = self.watched();
                    news.extend(events.iter().filter_map(|event| watched.news(event)));
                }
                Err(Errno::EAGAIN) => return news,
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    tracing::error!(reason = errno.desc(), "can't read inotify events");
                    return news;
                }
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Watches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl Watched {
    fn news(&self, event: &InotifyEvent) -> Option<News> {
        let name = event.name.as_deref();
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            tracing::debug!("inotify's queue overflowed: the census looks at every job");
            Some(News::Overflow)
        } else if self.jobs != Some(event.wd) {
            let job = self.by_descriptor.get(&event.wd)?;
            name.is_some_and(|name| name == STATE).then_some(News::Job(*job))
        } else if event.mask.intersects(AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF) {
            Some(News::JobsGone)
        } else {
            // What is not a job yet, or no longer, has another name.
            Some(News::Job(name?.to_str()?.parse().ok()?))
        }
    }
}

#[cfg(test)]
impl Watches {
    /// How many jobs' folders are watched.
    pub(super) fn len(&self) -> usize {
        self.watched().by_job.len()
    }
}
