//! The worker's one inotify instance: who follows a job is woken when its folder changes.
//!
//! A watched file costs its writer, so a folder is watched only while somebody holds a [`Watch`] of it, once however
//! many do, and events are drained about every millisecond while they come. Nothing runs while none come. inotify(7).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::job::folder::{CONTROL, Folder, INDEX, LOCK, OUTPUT, SPEC, STATE};

/// Between two drains: a busy writer's events are taken many at a time.
const DRAIN_PAUSE: Duration = Duration::from_millis(1);

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
    output: watch::Receiver<()>,
    state: watch::Receiver<()>,
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
    folders: Mutex<Folders>,
}

type Folders = HashMap<WatchDescriptor, Watched>;

/// A folder that somebody watches.
struct Watched {
    output: watch::Sender<()>,
    state: watch::Sender<()>,
    watches: usize,
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
        let shared = Arc::new(Shared { inotify, folders: Mutex::default() });
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
        // Locked before the kernel is asked: it gives the descriptor of a watch that is there already, which must
        // not be dropped in between.
        let mut folders = shared.folders();
        let descriptor = shared.inotify.get_ref().0.add_watch(folder.path(), flags).map_err(|errno| {
            let path = folder.path().to_owned();
            match errno {
                Errno::ENOENT => WatchError::NotFound(path),
                Errno::ENOSPC => WatchError::UsedUp(path),
                errno => WatchError::Io { path, reason: errno.into() },
            }
        })?;
        let watched = folders.entry(descriptor).or_insert_with(Watched::new);
        watched.watches += 1;
        Ok(Watch {
            hub: Arc::clone(&self.running),
            descriptor,
            output: watched.output.subscribe(),
            state: watched.state.subscribe(),
        })
    }
}

#[cfg(test)]
impl Hub {
    /// How many folders are watched.
    pub(crate) fn watched(&self) -> usize {
        self.running.shared.folders().len()
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
            changed = self.state.changed() => changed.map(|()| Change::State).map_err(|_| Gone),
            changed = self.output.changed() => changed.map(|()| Change::Output).map_err(|_| Gone),
        }
    }

    /// As [`Self::changed`], for [`Change::State`] only: output wakes nobody here.
    ///
    /// # Errors
    /// When the folder was removed.
    pub async fn state_changed(&mut self) -> Result<(), Gone> {
        self.state.changed().await.map_err(|_| Gone)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let shared = &self.hub.shared;
        let mut folders = shared.folders();
        let Some(watched) = folders.get_mut(&self.descriptor) else { return };
        watched.watches -= 1;
        if watched.watches == 0 {
            folders.remove(&self.descriptor);
            // EINVAL: the folder was removed, and the watch with it. The kernel does not give the number out again
            // before it has used all others.
            let _ = shared.inotify.get_ref().0.rm_watch(self.descriptor);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.drain.abort();
    }
}

impl Watched {
    fn new() -> Self {
        Self { output: watch::Sender::new(()), state: watch::Sender::new(()), watches: 0 }
    }

    fn tell(&self, change: Change) {
        match change {
            Change::State => self.state.send_replace(()),
            Change::Output => self.output.send_replace(()),
        }
    }
}

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

async fn drain(shared: Arc<Shared>) {
    // An error means that the runtime ends.
    while let Ok(mut ready) = shared.inotify.readable().await {
        for _ in 0..READS_PER_DRAIN {
            match ready.try_io(|source| Ok(source.get_ref().0.read_events()?)) {
                Ok(Ok(events)) => shared.tell(&events),
                Ok(Err(error)) => tracing::error!(%error, "can't read inotify events"),
                // Nothing more for now.
                Err(_) => break,
            }
        }
        drop(ready);
        tokio::time::sleep(DRAIN_PAUSE).await;
    }
}

impl Shared {
    fn folders(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, events: &[InotifyEvent]) {
        let mut folders = self.folders();
        let mut told = None;
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                tracing::debug!("inotify's queue overflowed: everybody looks");
                folders.values().for_each(|watched| {
                    watched.tell(Change::State);
                    watched.tell(Change::Output);
                });
            } else if is_removal(event) {
                // Whoever waits sees its sender gone.
                if folders.remove(&event.wd).is_some() {
                    let _ = self.inotify.get_ref().0.rm_watch(event.wd);
                }
            } else {
                let replaced = event.name.as_deref().is_some_and(|name| name == STATE);
                let change = if replaced { Change::State } else { Change::Output };
                if told.replace((event.wd, change)) != Some((event.wd, change))
                    && let Some(watched) = folders.get(&event.wd)
                {
                    watched.tell(change);
                }
            }
        }
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
