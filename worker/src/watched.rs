//! Files whose changes are to be known: the policy's, the certificates'.
//!
//! Editors and tools write another file and rename it into the place, so it is the folder that is watched (inotify(7));
//! a file that is a symbolic link, in its target's folder, too. What is changed in place is told when its writer closes
//! it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// After a change: renames come in a row, and in between there may be no file.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);

/// The folders in which a change of the files shows.
pub(crate) struct Watched {
    inotify: AsyncFd<Source>,
    files: Vec<PathBuf>,
    /// What they are, for the log.
    what: &'static str,
}

struct Source(Inotify);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watched {
    /// Within a tokio runtime only.
    ///
    /// # Errors
    /// When there is no inotify instance to be had. A folder that can't be watched is a line of the log.
    pub(crate) fn new(what: &'static str, files: Vec<PathBuf>) -> anyhow::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let inotify = inotify.with_context(|| format!("can't watch {what}: no inotify instance"))?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that don't always give one and the same fd"
        )]
        let inotify = AsyncFd::with_interest(Source(inotify), Interest::READABLE)?;
        let watched = Self { inotify, files, what };
        watched.look_again();
        Ok(watched)
    }

    /// Again after each change: a link may lead elsewhere by then. A folder that is watched already stays so.
    pub(crate) fn look_again(&self) {
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE;
        let targets = self.files.iter().filter_map(|file| fs::canonicalize(file).ok());
        let mut folders: Vec<_> =
            self.files.iter().cloned().chain(targets).map(|file| folder(&file)).collect();
        folders.sort();
        folders.dedup();
        for folder in folders {
            let watched = self.inotify.get_ref().0.add_watch(&folder, changes | AddWatchFlags::IN_ONLYDIR);
            if let Err(errno) = watched {
                let (folder, reason, what) = (folder.display(), errno.desc(), self.what);
                tracing::warn!(%folder, reason, "can't watch the folder of {what}; send SIGHUP after a change");
            }
        }
    }

    /// Returns when one of the files may have changed. Cancel safe.
    pub(crate) async fn changed(&self) {
        loop {
            let Ok(mut ready) = self.inotify.readable().await else { return std::future::pending().await };
            match ready.try_io(|source| Ok(source.get_ref().0.read_events()?)) {
                Ok(Ok(events)) if events.iter().any(|event| self.is_about(event)) => return,
                Ok(Err(error)) => tracing::error!(%error, "can't read inotify events"),
                _ => {}
            }
        }
    }

    fn is_about(&self, event: &InotifyEvent) -> bool {
        event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
            || self.files.iter().any(|file| is_about(event, file))
    }
}

fn folder(file: &Path) -> PathBuf {
    file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")).to_owned()
}

/// A file that was just created is empty, and its writer closes it in time. Of a link, anything may be the target.
fn is_about(event: &InotifyEvent, file: &Path) -> bool {
    let is_link = || file.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    let is_named = event.name.as_deref() == file.file_name();
    is_named && !event.mask.contains(AddWatchFlags::IN_CREATE) || is_link()
}
