//! The writing side of a job's folder. Only its shim has one, and the spawner for a job whose shim died.
//!
//! Whoever holds the folder's `lock` is that one writer. Its pid stands in the file, so that a spawner which has just
//! started knows whom to watch.
//!
//! ```text
//!  .new.shim.<pid>/          ── spec.json, renamed ──▶   <id>/
//!    lock (held), control,        (in place of none)
//!    space for the outcome,
//!    output, index
//! ```

mod jobs;
mod state;

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use nix::unistd::{Gid, Pid};
use rustix::fs::{Mode, fchmod, fchown};
use serde::Serialize;

pub use self::jobs::JobsDirWriter;

use crate::job::Spec;
use crate::job::folder::{CONTROL, LOCK, SPEC};
use crate::job::trusted_dir::TrustedDir;

/// What the names of folders begin with that are not jobs yet; what is left of one belongs to a shim that died.
pub const UNBORN: &str = ".new.";

/// What the names of folders begin with that are jobs no longer; what is left of one is of a removal that was cut off.
pub const OLD: &str = ".old.";

/// Who reads the folders besides their writer: the worker's group.
#[derive(Clone, Copy, Debug)]
pub struct Readers {
    /// The worker's group; none when the worker runs as the same user.
    pub group: Option<Gid>,
}

/// A job's folder, open for its one writer.
pub struct JobFolder {
    /// Where it is.
    jobs: Arc<TrustedDir>,
    /// Its name there.
    name: String,
    dir: TrustedDir,
    readers: Readers,
    /// Locked as long as this lives.
    lock: File,
}

impl JobFolder {
    /// Makes a folder that is no job's yet: with its lock, held, the `control` FIFO and disk space for the outcome.
    ///
    /// # Errors
    /// What went wrong; nothing is left behind then.
    pub fn prepare(jobs: &JobsDirWriter, readers: Readers) -> io::Result<Self> {
        let (name, jobs) = (Self::unborn(Pid::this().as_raw()), Arc::clone(jobs.dir()));
        let make = || jobs.create_dir(&name, 0o700);
        make().or_else(|error| match error.kind() {
            // Left by a process that had our number: it is gone.
            io::ErrorKind::AlreadyExists => jobs.delete(&name).and_then(|()| make()),
            _ => Err(error),
        })?;
        let opened = jobs.subdir(&name).and_then(|dir| Ok((create_lock(&dir)?, dir)));
        let (lock, dir) = opened.inspect_err(|_| _ = jobs.delete(&name))?;
        let folder = Self { jobs, name, dir, readers, lock };
        match folder.fill() {
            Ok(()) => Ok(folder),
            Err(error) => {
                folder.remove();
                Err(error)
            }
        }
    }

    /// What the folder of a shim is called that has no job yet.
    pub fn unborn(shim: i32) -> String {
        format!("{UNBORN}shim.{shim}")
    }

    /// Makes it this job's: it appears under its name with `spec.json` inside, or not at all.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when the job has a folder, [`io::ErrorKind::NotFound`] when this one is there no
    /// more; else what went wrong. It is not renamed then.
    pub fn give_to(&mut self, spec: &Spec) -> io::Result<()> {
        self.file(SPEC)?.write_all(&encode(spec)?)?;
        let name = spec.id.to_string();
        self.jobs.rename_new(&self.name, &name)?;
        self.name = name;
        // The descriptor is the same folder's; what it is called in messages is not.
        self.dir.set_path(self.jobs.path().join(&self.name));
        Ok(())
    }

    /// Where it is; for messages.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn fill(&self) -> io::Result<()> {
        self.dir.create_fifo(CONTROL)?;
        if self.readers.group.is_some() {
            self.readers.admit(&self.control()?, 0o660)?;
        }
        self.reserve()?;
        self.readers.admit(&self.dir, 0o750)
    }

    /// Takes over the folder of that name, of a shim that died; `None` when it lives, or somebody else was faster.
    ///
    /// # Errors
    /// When the folder can't be trusted, or the lock can't be opened or tried.
    pub fn take_over(jobs: &JobsDirWriter, name: &str, readers: Readers) -> io::Result<Option<Self>> {
        loop {
            let dir = jobs.dir().subdir(name)?;
            let lock = match open_lock(&dir) {
                // A shim that died before it made the lock.
                Err(error) if error.kind() == io::ErrorKind::NotFound => dir.create(LOCK)?,
                other => other?,
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
            let taken = Self { jobs: Arc::clone(jobs.dir()), name: name.to_owned(), dir, readers, lock };
            if taken.is_in_place()? {
                // Whom to watch, for the next spawner. A disk that does not take it now takes no outcome either.
                let _ = write_pid(&taken.lock);
                return Ok(Some(taken));
            }
        }
    }

    /// True if somebody holds the lock of the folder of that name.
    ///
    /// # Errors
    /// When the lock can't be opened or tried.
    pub fn is_held(jobs: &JobsDirWriter, name: &str) -> io::Result<bool> {
        match jobs.dir().subdir(name)?.open(LOCK)?.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Waits until nobody holds the lock of the folder of that name, or the folder is gone.
    ///
    /// # Errors
    /// When the lock can't be opened or waited for.
    pub fn wait_until_free(jobs: &JobsDirWriter, name: &str) -> io::Result<()> {
        match jobs.dir().subdir(name).and_then(|dir| open_lock(&dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            lock => lock?.lock(),
        }
    }

    /// A new file in the folder, which the worker may read.
    ///
    /// # Errors
    /// When it can't be created, or is there already.
    pub fn file(&self, name: &str) -> io::Result<File> {
        let file = self.dir.create(name)?;
        self.readers.admit(&file, 0o640)?;
        Ok(file)
    }

    /// The reading side of `control`. Opened for writing too, so that it never comes to an end.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn control(&self) -> io::Result<File> {
        self.dir.open_writable(CONTROL)
    }

    /// True if this is the folder under its name: before it was locked another writer may have removed it, and a new job of
    /// the same id have made its own. After that nobody can.
    ///
    /// # Errors
    /// When that can't be told.
    pub fn is_in_place(&self) -> io::Result<bool> {
        let own = self.lock.metadata()?;
        match self.jobs.subdir(&self.name).and_then(|dir| dir.stat(LOCK)) {
            Ok(there) => Ok((there.st_dev, there.st_ino) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the folder with all that is in it, as well as it can. Whether nothing is left.
    pub fn remove(self) -> bool {
        let path = self.path().to_owned();
        let removed = self.try_remove();
        if let Err(error) = &removed {
            tracing::warn!(path = %path.display(), %error, "can't remove a job's folder");
        }
        removed.is_ok()
    }

    /// Removes the folder with all that is in it. First its name goes, at one stroke: what is half removed is no job.
    ///
    /// # Errors
    /// When it can't be renamed, and nothing has changed; or when not all of it can be deleted.
    pub fn try_remove(self) -> io::Result<()> {
        let (jobs, name) = (&self.jobs, &self.name);
        let old = format!("{OLD}{name}.{}", std::process::id());
        let renamed = jobs.rename(name, &old).or_else(|error| match error.kind() {
            // Left by a process that had our number: it is gone.
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                jobs.delete(&old).and_then(|()| jobs.rename(name, &old))
            }
            _ => Err(error),
        });
        renamed.map_err(|error| told("rename", self.path(), &error))?;
        jobs.delete(&old).map_err(|error| told("delete", &jobs.path().join(&old), &error))
    }
}

impl Readers {
    /// Lets the worker's group at a file, with `mode`.
    ///
    /// # Errors
    /// When owner or mode can't be changed.
    pub fn admit(self, file: &impl AsFd, mode: u32) -> io::Result<()> {
        if let Some(group) = self.group {
            fchown(file, None, Some(rustix::fs::Gid::from_raw(group.as_raw())))?;
            fchmod(file, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }
}

/// A lock that is held, and says by whom, before it is there under its name. For the spawner alone: a reader of it could
/// hold it, and the job would seem to live.
fn create_lock(dir: &TrustedDir) -> io::Result<File> {
    let new = format!("{LOCK}.new");
    let lock = dir.create(&new)?;
    lock.try_lock()?;
    write_pid(&lock)?;
    dir.rename_new(&new, LOCK)?;
    Ok(lock)
}

/// For reading only where the disk is read-only: it can be held all the same.
fn open_lock(dir: &TrustedDir) -> io::Result<File> {
    let lock = match dir.open_writable(LOCK) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return dir.open(LOCK),
        other => other?,
    };
    // Older builds let the worker's group read it.
    if lock.metadata()?.mode() & 0o077 != 0 {
        lock.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(lock)
}

/// Always as long, so that another's pid can be written over it without new space.
fn write_pid(lock: &File) -> io::Result<()> {
    lock.write_all_at(format!("{:>10}\n", std::process::id()).as_bytes(), 0)
}

fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn told(operation: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("can't {operation} {}: {error}", path.display()))
}
