//! The worker's one inotify instance: who follows a job is woken when its folder changes.
//!
//! A watched file costs its writer, so a folder is watched only while somebody holds a [`Watch`] of it, once however
//! many do, and events that keep coming are drained about every millisecond ([`pace`]). Nothing runs while none come.
//! inotify(7).

mod pace;
mod table;

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;
use tokio::time::sleep_until;

use self::pace::Pace;
use self::table::{News, Receivers, Table};
use crate::job::folder::{CONTROL, Folder, INDEX, LOCK, OUTPUT, SPEC, STATE};

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

/// A folder under watch, as long as this lives.
pub struct Watch {
    hub: Arc<Running>,
    descriptor: WatchDescriptor,
    told: Receivers,
}

/// What has changed in a job's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `state.json` was replaced.
    State,
    /// Anything else, most likely `output` and `index`.
    Output,
}

/// The folder was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job's folder was removed")]
pub struct Gone;

/// A folder that can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// It is not there.
    #[error("can't watch {0}: no such folder")]
    NotFound(PathBuf),
    /// The kernel gives this user no more watches.
    #[error(
        "can't watch {0}: this user's inotify watches are used up; raise the sysctl fs.inotify.max_user_watches"
    )]
    UsedUp(PathBuf),
    /// The operating system said no.
    #[error("can't watch {path}: {reason}")]
    Io {
        /// Which folder.
        path: PathBuf,
        /// What it said.
        reason: io::Error,
    },
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
    pub fn new() -> io::Result<Self> {
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
        let drain = tokio::spawn(drain(Arc::clone(&shared))).abort_handle();
        Ok(Self { running: Arc::new(Running { shared, drain }) })
    }

    /// Watches a job's folder. Whatever changes from now on is told. Looks the path up, so it may block on a disk.
    ///
    /// # Errors
    /// When the folder is not there or can't be watched.
    pub fn watch(&self, folder: &Folder) -> Result<Watch, WatchError> {
        let shared = &self.running.shared;
        let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE;
        let flags = changes | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ONLYDIR;
        let add = || {
            shared.inotify.get_ref().0.add_watch(folder.path(), flags).map_err(|errno| {
                let path = folder.path().to_owned();
                match errno {
                    Errno::ENOENT => WatchError::NotFound(path),
                    Errno::ENOSPC => WatchError::UsedUp(path),
                    errno => WatchError::Io { path, reason: errno.into() },
                }
            })
        };
        let (descriptor, told) = shared.table().watch(add)?;
        Ok(Watch { hub: Arc::clone(&self.running), descriptor, told })
    }
}

#[cfg(test)]
impl Hub {
    /// How many folders are watched.
    pub(crate) fn watched(&self) -> usize {
        self.running.shared.table().len()
    }
}

impl Watch {
    /// Waits for a change since the last call, or since the watch was made. May tell of one that has been seen
    /// already; never misses one. Cancel safe.
    ///
    /// # Errors
    /// When the folder was removed.
    pub async fn changed(&mut self) -> Result<Change, Gone> {
        tokio::select! {
            biased;
            changed = self.told.state.changed() => changed.map(|()| Change::State).map_err(|_| Gone),
            changed = self.told.output.changed() => changed.map(|()| Change::Output).map_err(|_| Gone),
        }
    }

    /// As [`Self::changed`], for [`Change::State`] only: output wakes nobody here.
    ///
    /// # Errors
    /// When the folder was removed.
    pub async fn state_changed(&mut self) -> Result<(), Gone> {
        self.told.state.changed().await.map_err(|_| Gone)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let shared = &self.hub.shared;
        shared.table().release(self.descriptor, |descriptor| shared.rm_watch(descriptor));
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

/// None: bytes alone are nothing to be read yet, their record comes right behind them.
fn news(event: &InotifyEvent) -> Option<News<WatchDescriptor>> {
    let is_named = |name: &str| event.name.as_deref().is_some_and(|named| named == name);
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        tracing::debug!("inotify's queue overflowed: everybody looks");
        Some(News::Overflow)
    } else if is_removal(event) {
        Some(News::Removed(event.wd))
    } else if is_named(STATE) {
        Some(News::Changed(event.wd, Change::State))
    } else if is_named(INDEX) {
        Some(News::Changed(event.wd, Change::Output))
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
