//! The policy in force, and its file: read again on SIGHUP and when it changes.
//!
//! A new policy takes the old one's place at once and whole: who holds the old one decides by it, the next call by the
//! new one. A file that can't be read or is not right changes nothing, and one line of the log says why.
//!
//! Editors write another file and rename it into the place, so it is the folder that is watched (inotify(7)); a file
//! that is a symbolic link, in its target's folder, too. What is changed in place is read when its writer closes it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::{Policy, PolicyError, text_of};
use crate::job::engine::blocking;

/// After a change: an editor's renames come in a row, and in between there is no file.
const SETTLE: Duration = Duration::from_millis(100);

/// The policy in force, for those who decide by it. Clones are the same one, and each is told of the next.
#[derive(Clone, Debug)]
pub struct InForce(watch::Receiver<Arc<Policy>>);

impl InForce {
    /// A policy that never changes.
    pub fn fixed(policy: Policy) -> Self {
        Self(watch::channel(Arc::new(policy)).1)
    }

    /// The policy as of now. Later ones are news to [`Self::next`].
    pub fn now(&mut self) -> Arc<Policy> {
        Arc::clone(&self.0.borrow_and_update())
    }

    /// The next policy, when it comes into force.
    pub async fn next(&mut self) -> Arc<Policy> {
        if self.0.changed().await.is_err() {
            // Nobody is left who could change it.
            std::future::pending::<()>().await;
        }
        self.now()
    }
}

/// Brings a policy into force, and keeps to its file. Within a tokio runtime only.
///
/// # Errors
/// When the file can't be read or is not right; or its folder or SIGHUP can't be listened for.
pub fn load(path: Option<&Path>) -> anyhow::Result<InForce> {
    let mut hangups = signal(SignalKind::hangup()).context("can't listen for SIGHUP")?;
    let Some(path) = path else {
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                tracing::info!("SIGHUP: there is no --policy to read again; the built-in one stays in force");
            }
        });
        return Ok(InForce::fixed(Policy::built_in()));
    };
    // Watched before it is read: what comes in between is not missed.
    let folders = Folders::watch(path)?;
    let text = text_of(path)?;
    let policy = Policy::parse(&path.display().to_string(), &text)?;
    tracing::info!(policy = %path.display(), "policy read");
    warn_of(&policy, path);
    let (sender, receiver) = watch::channel(Arc::new(policy));
    let keeper = Keeper { path: path.to_owned(), sender, text, complaint: None };
    tokio::spawn(keep(keeper, folders, hangups));
    Ok(InForce(receiver))
}

fn warn_of(policy: &Policy, path: &Path) {
    for warning in policy.warnings_of_file(path) {
        tracing::warn!("policy: {warning}");
    }
}

struct Keeper {
    path: PathBuf,
    sender: watch::Sender<Arc<Policy>>,
    /// As it was when it was read last.
    text: String,
    /// What was wrong with it then.
    complaint: Option<String>,
}

async fn keep(mut keeper: Keeper, folders: Folders, mut hangups: Signal) {
    loop {
        let asked = tokio::select! {
            () = folders.changed(&keeper.path) => false,
            hangup = hangups.recv() => hangup.is_some(),
        };
        if !asked {
            tokio::time::sleep(SETTLE).await;
        }
        folders.add(&keeper.path);
        keeper = blocking(move || keeper.read_again(asked)).await;
    }
}

impl Keeper {
    /// `asked`: somebody waits for a line of the log.
    fn read_again(mut self, asked: bool) -> Self {
        match text_of(&self.path) {
            Ok(text) if text == self.text && self.complaint.is_none() && !asked => return self,
            Ok(text) => match Policy::parse(&self.path.display().to_string(), &text) {
                Ok(policy) => {
                    let policy = Arc::new(policy);
                    self.sender.send_replace(Arc::clone(&policy));
                    (self.text, self.complaint) = (text, None);
                    // Not before it is true.
                    tracing::info!(policy = %self.path.display(), "policy read again; it is in force now");
                    warn_of(&policy, &self.path);
                }
                Err(error) => self.complain(error, asked),
            },
            Err(error) => self.complain(error, asked),
        }
        self
    }

    /// Once, however often the file is touched.
    fn complain(&mut self, error: PolicyError, asked: bool) {
        let complaint = format!("{:#}", anyhow::Error::from(error));
        if asked || self.complaint.as_ref() != Some(&complaint) {
            tracing::error!("{complaint}; the policy that was read before stays in force");
        }
        self.complaint = Some(complaint);
    }
}

/// The folders in which a change of the file shows.
struct Folders {
    inotify: AsyncFd<Source>,
}

struct Source(Inotify);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Folders {
    fn watch(path: &Path) -> anyhow::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let inotify = inotify.context("can't watch the policy's folder: no inotify instance")?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that don't always give one and the same fd"
        )]
        let inotify = AsyncFd::with_interest(Source(inotify), Interest::READABLE)?;
        let folders = Self { inotify };
        folders.add(path);
        Ok(folders)
    }

    /// Again after each change: a link may lead elsewhere by then. A folder that is watched already stays so.
    fn add(&self, path: &Path) {
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE;
        let target = fs::canonicalize(path).ok();
        for file in [Some(path), target.as_deref()].into_iter().flatten() {
            let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
            let watched = self.inotify.get_ref().0.add_watch(folder, changes | AddWatchFlags::IN_ONLYDIR);
            if let Err(errno) = watched {
                let (folder, reason) = (folder.display(), errno.desc());
                tracing::warn!(%folder, reason, "can't watch the policy's folder; send SIGHUP after a change");
            }
        }
    }

    /// Returns when the file may have changed. Cancel safe.
    async fn changed(&self, path: &Path) {
        loop {
            let Ok(mut ready) = self.inotify.readable().await else { return std::future::pending().await };
            match ready.try_io(|source| Ok(source.get_ref().0.read_events()?)) {
                Ok(Ok(events)) if events.iter().any(|event| is_about(event, path)) => return,
                Ok(Err(error)) => tracing::error!(%error, "can't read inotify events"),
                _ => {}
            }
        }
    }
}

/// A file that was just created is empty, and its writer closes it in time. Of a link, anything may be the target.
fn is_about(event: &InotifyEvent, path: &Path) -> bool {
    let is_link = || path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    let is_named = event.name.as_deref() == path.file_name();
    event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
        || is_named && !event.mask.contains(AddWatchFlags::IN_CREATE)
        || is_link()
}
