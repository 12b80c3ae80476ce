//! The worker's one inotify instance: who follows a job is woken when its folder changes.
//!
//! A watched file costs its writer, so a folder is watched only while somebody holds a [`Watch`] of it, once however
//! many do, and events that keep coming are drained about every millisecond (`pace`). Nothing runs while none come.
//! inotify(7).

mod pace;
mod table;
mod watch;

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;
use tokio::time::sleep_until;

pub use self::watch::{Gone, StateWatch, Watch, WatchError};

use self::pace::Pace;
use self::table::{News, Table};
use crate::job::folder::{CONTROL, Folder, INDEX, LOCK, OUTPUT, SPEC, STATE};
use crate::tasks::Tasks;

/// Reads per drain, of up to 4 KiB each: more than the kernel's default queue (`fs.inotify.max_queued_events`) holds
/// of events as short as ours.
const READS_PER_DRAIN: usize = 128;

/// What stays in a job's folder as long as the job is there.
const LASTING: [&str; 6] = [SPEC, STATE, OUTPUT, INDEX, CONTROL, LOCK];

/// Hands out [`Watch`]es. Clones are the same hub; its task ends with the last clone and the last watch.
#[derive(Clone)]
pub struct Hub {
    running: Arc<Running>,
}

/// What has changed in a job's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `state.json` was replaced.
    State,
    /// Anything else, most likely `output` and `index`.
    Output,
}

struct Running {
    shared: Arc<Shared>,
    drain: AbortHandle,
}

struct Shared {
    inotify: AsyncFd<Source>,
    table: Mutex<Table<WatchDescriptor>>,
}

struct Source(Inotify);

impl Hub {
    /// Opens the instance and begins to listen. Within a tokio runtime only.
    ///
    /// # Errors
    /// When the kernel gives no inotify instance.
    pub fn new(tasks: &Tasks) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(|errno| match errno {
            Errno::EMFILE => io::Error::other(
                "no inotify instance left for this user: raise the sysctl fs.inotify.max_user_instances, or ulimit -n",
            ),
            errno => errno.into(),
        })?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that don't always give one and the same fd"
        )]
        let inotify = AsyncFd::with_interest(Source(inotify), Interest::READABLE)?;
        let shared = Arc::new(Shared { inotify, table: Mutex::default() });
        let drain = tasks.spawn("watch of followed jobs", drain(Arc::clone(&shared)));
        Ok(Self { running: Arc::new(Running { shared, drain }) })
    }

    /// Watches a job's state and output. Whatever changes from now on is told. Looks paths up, so it may block on a disk.
    ///
    /// # Errors
    /// When the folder is not there or can't be watched.
    pub fn watch(&self, folder: &Folder) -> Result<Watch, WatchError> {
        Watch::new(&self.running, folder)
    }

    /// As [`Self::watch`], the state only.
    ///
    /// # Errors
    /// When the folder is not there or can't be watched.
    pub fn watch_state(&self, folder: &Folder) -> Result<StateWatch, WatchError> {
        StateWatch::new(&self.running, folder)
    }
}

#[cfg(test)]
impl Hub {
    /// How many folders and files are watched.
    pub(crate) fn watched(&self) -> usize {
        self.running.shared.table().len()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.drain.abort();
    }
}

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

async fn drain(shared: Arc<Shared>) {
    let mut pace = Pace::new(Instant::now());
    // An error means that the runtime ends.
    while let Ok(mut ready) = shared.inotify.readable().await {
        if let Some(at) = pace.take(Instant::now()) {
            sleep_until(at.into()).await;
        }
        for _ in 0..READS_PER_DRAIN {
            match ready.try_io(|source| Ok(source.get_ref().0.read_events()?)) {
                Ok(Ok(events)) => shared.tell(&events),
                Ok(Err(error)) => tracing::error!(%error, "can't read inotify events"),
                // Nothing more for now.
                Err(_) => break,
            }
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table<WatchDescriptor>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, events: &[InotifyEvent]) {
        self.table().tell(events.iter().filter_map(news), |descriptor| self.rm_watch(descriptor));
    }

    /// EINVAL: the folder was removed, and the watch with it. The kernel does not give the number out again before it
    /// has used all others.
    fn rm_watch(&self, descriptor: WatchDescriptor) {
        let _ = self.inotify.get_ref().0.rm_watch(descriptor);
    }
}

/// None: bytes alone are nothing to be read yet, their record comes right behind them; and a file on its way to its name
/// is nothing, either. What has no name is the index, watched itself.
fn news(event: &InotifyEvent) -> Option<News<WatchDescriptor>> {
    let is_named = |name: &str| event.name.as_deref().is_some_and(|named| named == name);
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        tracing::debug!("inotify's queue overflowed: everybody looks");
        Some(News::Overflow)
    } else if is_removal(event) {
        Some(News::Removed(event.wd))
    } else if event.name.is_none() || is_named(INDEX) {
        Some(News::Changed(event.wd, Change::Output))
    } else if is_named(STATE) {
        Some(News::Changed(event.wd, Change::State))
    } else {
        None
    }
}

/// Whether a folder is removed, or being removed, which begins with the loss of its name: the kernel does not tell of
/// its own end before the last of its files is closed, and followers keep them open.
fn is_removal(event: &InotifyEvent) -> bool {
    let is_lasting =
        || event.name.as_deref().is_some_and(|name| LASTING.iter().any(|lasting| name == *lasting));
    event.mask.intersects(AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF)
        || event.mask.contains(AddWatchFlags::IN_DELETE) && is_lasting()
}

#[cfg(test)]
mod tests;
