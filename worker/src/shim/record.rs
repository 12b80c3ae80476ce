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

mod state;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Pid, mkfifo};
use serde::Serialize;

use crate::job::Spec;
use crate::job::folder::{CONTROL, JobsDir, LOCK, SPEC};

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
    path: PathBuf,
    readers: Readers,
    /// Locked as long as this lives.
    lock: File,
}

impl JobFolder {
    /// Makes a folder that is no job's yet: with its lock, held, the `control` FIFO and disk space for the outcome.
    ///
    /// # Errors
    /// What went wrong; nothing is left behind then.
    pub fn prepare(jobs: &JobsDir, readers: Readers) -> io::Result<Self> {
        let path = Self::unborn(jobs, Pid::this().as_raw());
        let make = || DirBuilder::new().mode(0o700).create(&path);
        make().or_else(|error| match error.kind() {
            // Left by a process that had our number: it is gone.
            io::ErrorKind::AlreadyExists => delete(&path).and_then(|()| make()),
            _ => Err(error),
        })?;
        let lock = create_lock(&path, readers).inspect_err(|_| _ = delete(&path))?;
        let folder = Self { path, readers, lock };
        match folder.fill() {
            Ok(()) => Ok(folder),
            Err(error) => {
                folder.remove();
                Err(error)
            }
        }
    }

    /// Where the folder of a shim is that has no job yet.
    pub fn unborn(jobs: &JobsDir, shim: i32) -> PathBuf {
        jobs.path().join(format!("{UNBORN}shim.{shim}"))
    }

    /// Makes it this job's: it appears under its name with `spec.json` inside, or not at all.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when the job has a folder, [`io::ErrorKind::NotFound`] when this one is there no
    /// more; else what went wrong. It is not renamed then.
    pub fn give_to(&mut self, jobs: &JobsDir, spec: &Spec) -> io::Result<()> {
        create(&self.path.join(SPEC), self.readers)?.write_all(&encode(spec)?)?;
        let path = jobs.folder(spec.id).path().to_owned();
        rename_new(&self.path, &path)?;
        self.path = path;
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn fill(&self) -> io::Result<()> {
        let control = self.path.join(CONTROL);
        mkfifo(&control, Mode::S_IRUSR | Mode::S_IWUSR)?;
        self.readers.admit(&control, 0o660)?;
        self.reserve()?;
        self.readers.admit(&self.path, 0o750)
    }

    /// Takes over the folder of a shim that died; `None` when it lives, or somebody else was faster.
    ///
    /// # Errors
    /// When the lock can't be opened or tried.
    pub fn take_over(path: &Path, readers: Readers) -> io::Result<Option<Self>> {
        loop {
            let lock = match open_lock(path) {
                // A shim that died before it made the lock.
                Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path.join(LOCK), readers)?,
                other => other?,
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
            let taken = Self { path: path.to_owned(), readers, lock };
            if taken.is_in_place()? {
                // Whom to watch, for the next spawner. A disk that does not take it now takes no outcome either.
                let _ = write_pid(&taken.lock);
                return Ok(Some(taken));
            }
        }
    }

    /// Whether somebody holds the lock of a folder.
    ///
    /// # Errors
    /// When the lock can't be opened or tried.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        match File::open(path.join(LOCK))?.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Waits until nobody holds the lock of a folder, or the folder is gone.
    ///
    /// # Errors
    /// When the lock can't be opened or waited for.
    pub fn wait_until_free(path: &Path) -> io::Result<()> {
        match open_lock(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            lock => lock?.lock(),
        }
    }

    /// A new file in the folder.
    ///
    /// # Errors
    /// When it can't be created, or is there already.
    pub fn file(&self, name: &str) -> io::Result<File> {
        create(&self.path.join(name), self.readers)
    }

    /// The reading side of `control`. Opened for writing too, so that it never comes to an end.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn control(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(self.path.join(CONTROL))
    }

    /// Whether this is the folder at its path: before it was locked another writer may have removed it, and a new job of
    /// the same id have made its own. After that nobody can.
    ///
    /// # Errors
    /// When that can't be told.
    pub fn is_in_place(&self) -> io::Result<bool> {
        let own = self.lock.metadata()?;
        match fs::metadata(self.path.join(LOCK)) {
            Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the folder with all that is in it, as well as it can. Whether nothing is left.
    pub fn remove(self) -> bool {
        let path = self.path.clone();
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
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let old = self.path.with_file_name(format!("{OLD}{name}.{}", std::process::id()));
        let renamed = fs::rename(&self.path, &old).or_else(|error| match error.kind() {
            // Left by a process that had our number: it is gone.
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                delete(&old).and_then(|()| fs::rename(&self.path, &old))
            }
            _ => Err(error),
        });
        renamed.map_err(|error| told("rename", &self.path, &error))?;
        delete(&old).map_err(|error| told("delete", &old, &error))
    }
}

impl Readers {
    /// Lets the worker's group at a path, with `mode`.
    ///
    /// # Errors
    /// When owner or mode can't be changed.
    pub fn admit(self, path: &Path, mode: u32) -> io::Result<()> {
        if let Some(group) = self.group {
            chown(path, None, Some(group.as_raw()))?;
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

/// A lock that is held, and says by whom, before it is there under its name.
fn create_lock(folder: &Path, readers: Readers) -> io::Result<File> {
    let new = folder.join(format!("{LOCK}.new"));
    let lock = create(&new, readers)?;
    lock.try_lock()?;
    write_pid(&lock)?;
    rename_new(&new, &folder.join(LOCK))?;
    Ok(lock)
}

/// For reading only where the disk is read-only: it can be held all the same.
fn open_lock(folder: &Path) -> io::Result<File> {
    let path = folder.join(LOCK);
    match OpenOptions::new().read(true).write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(&path),
        other => other,
    }
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

fn create(path: &Path, readers: Readers) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    readers.admit(path, 0o640)?;
    Ok(file)
}

/// Never in place of another: then it fails with [`io::ErrorKind::AlreadyExists`].
///
/// # Errors
/// That, or what renameat2(2) says.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)?)
}

/// Deletes a folder with all that is in it, if it is there.
///
/// # Errors
/// When some of it stays.
pub fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn told(operation: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("can't {operation} {}: {error}", path.display()))
}
