//! What whoever waits for a job holds: the job's folder under watch, and for a follower its index, too.
//!
//! Output is told of by the index alone, which is written last: a watch of the whole folder would wake a follower
//! before there is anything to read, and its wake would often hold up the very writer that it waits for. Only a folder
//! whose index is still to come is watched with all that is in it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;
use nix::sys::inotify::{AddWatchFlags, WatchDescriptor};

use super::table::Receivers;
use super::{Change, Running};
use crate::job::folder::{Folder, INDEX};

/// A job's state and output under watch, as long as this lives.
pub struct Watch {
    job: Place,
    folder: Held,
    /// None: what is told of the folder tells of this, too.
    index: Option<Held>,
}

/// A job's state under watch, as long as this lives. Output costs its writer nothing.
pub struct StateWatch {
    job: Place,
    folder: Held,
}

/// A job's folder, and which one it was when its watch was made.
///
/// A folder that loses its name is being removed. But it also gets its name by a rename, and the kernel reports that one a
/// moment after the name can be looked up: to a watch that was made in between, it looks like a removal.
struct Place {
    folder: Folder,
    inode: (u64, u64),
}

/// A folder or a file that the kernel watches for us.
struct Held {
    hub: Arc<Running>,
    descriptor: WatchDescriptor,
    told: Receivers,
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

impl Place {
    fn of(folder: &Folder) -> Result<Self, WatchError> {
        let path = folder.path();
        match path.metadata() {
            Ok(metadata) => Ok(Self { folder: folder.clone(), inode: (metadata.dev(), metadata.ino()) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(WatchError::NotFound(path.to_owned()))
            }
            Err(reason) => Err(WatchError::Io { path: path.to_owned(), reason }),
        }
    }

    /// Watches the folder anew, if it is still where it was. Looks paths up, so it may block on a disk.
    fn watch_again<W>(&self, watch: impl FnOnce(&Folder) -> Result<W, WatchError>) -> Result<W, Gone> {
        let is_there = Self::of(&self.folder).is_ok_and(|now| now.inode == self.inode);
        if !is_there {
            return Err(Gone);
        }
        watch(&self.folder).map_err(|error| {
            tracing::debug!(%error, "can't watch a job's folder again");
            Gone
        })
    }
}

impl Watch {
    pub(super) fn new(hub: &Arc<Running>, folder: &Folder) -> Result<Self, WatchError> {
        let job = Place::of(folder)?;
        let held = Held::new(hub, folder.path(), of_folder())?;
        let index = match Held::new(hub, &folder.file(INDEX), AddWatchFlags::IN_MODIFY) {
            Ok(index) => Some(index),
            Err(WatchError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        if index.is_none() {
            // Adds to what is watched, so it is the same watch.
            Held::new(hub, folder.path(), of_folder() | AddWatchFlags::IN_MODIFY)?;
        }
        Ok(Self { job, folder: held, index })
    }

    /// Waits for a change since the last call, or since the watch was made. May tell of one that has been seen
    /// already; never misses one. Cancel safe.
    ///
    /// # Errors
    /// When the folder was removed.
    pub async fn changed(&mut self) -> Result<Change, Gone> {
        let Receivers { state, output } = &mut self.folder.told;
        let output = self.index.as_mut().map_or(output, |index| &mut index.told.output);
        let changed = tokio::select! {
            biased;
            changed = state.changed() => changed.map(|()| Change::State),
            changed = output.changed() => changed.map(|()| Change::Output),
        };
        match changed {
            Ok(change) => Ok(change),
            Err(_gone) => {
                *self = self.job.watch_again(|folder| Self::new(&self.folder.hub, folder))?;
                // What changed meanwhile was not told to anybody.
                self.folder.told.output.mark_changed();
                if let Some(index) = &mut self.index {
                    index.told.output.mark_changed();
                }
                Ok(Change::State)
            }
        }
    }
}

impl StateWatch {
    pub(super) fn new(hub: &Arc<Running>, folder: &Folder) -> Result<Self, WatchError> {
        Ok(Self { job: Place::of(folder)?, folder: Held::new(hub, folder.path(), of_folder())? })
    }

    /// As [`Watch::changed`], for [`Change::State`] only.
    ///
    /// # Errors
    /// When the folder was removed.
    pub async fn changed(&mut self) -> Result<(), Gone> {
        if self.folder.told.state.changed().await.is_err() {
            *self = self.job.watch_again(|folder| Self::new(&self.folder.hub, folder))?;
        }
        Ok(())
    }
}

/// What is asked of a folder: `state.json` is replaced, never written to. Who asks for less than another takes nothing
/// from that one.
fn of_folder() -> AddWatchFlags {
    let changes = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE_SELF;
    changes | AddWatchFlags::IN_ONLYDIR | AddWatchFlags::from_bits_retain(libc::IN_MASK_ADD)
}

impl Held {
    fn new(hub: &Arc<Running>, path: &Path, flags: AddWatchFlags) -> Result<Self, WatchError> {
        let add = || {
            hub.shared.inotify.get_ref().0.add_watch(path, flags).map_err(|errno| {
                let path = path.to_owned();
                match errno {
                    Errno::ENOENT => WatchError::NotFound(path),
                    Errno::ENOSPC => WatchError::UsedUp(path),
                    errno => WatchError::Io { path, reason: errno.into() },
                }
            })
        };
        let (descriptor, told) = hub.shared.table().watch(add)?;
        Ok(Self { hub: Arc::clone(hub), descriptor, told })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let shared = &self.hub.shared;
        shared.table().release(self.descriptor, |descriptor| shared.rm_watch(descriptor));
    }
}

#[cfg(test)]
impl Watch {
    /// The kernel's name for the watch of the folder.
    pub(super) fn descriptor(&self) -> WatchDescriptor {
        self.folder.descriptor
    }
}
