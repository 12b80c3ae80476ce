//! The writing side of a job's folder. Only its shim has one, and the spawner for a job whose shim died.
//!
//! Whoever holds the folder's `lock` is that one writer. Its pid stands in the file, so that a spawner which has just
//! started knows whom to watch.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, posix_fallocate, renameat2};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, mkfifo};
use serde::Serialize;

use crate::job::folder::{CONTROL, LOCK, SPEC, STATE};
use crate::job::{Spec, State};

/// What the names of folders begin with that are not jobs yet; what is left of one belongs to a shim that died.
pub const UNBORN: &str = ".new.";

/// What the names of folders begin with that are jobs no longer; what is left of one is of a removal that was cut off.
pub const OLD: &str = ".old.";

/// The file that keeps space for the outcome. Named like all that does not last in a job's folder.
const RESERVE: &str = "state.json.reserve.new";

/// Above any outcome's length: some 2 KiB, and 120 bytes for each disk that the job used.
const RESERVE_BYTES: libc::off_t = 16 << 10;

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
    /// Makes the folder with its lock, held, the `control` FIFO and `spec.json`. It appears under its name with all
    /// of that inside, or not at all.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when the folder is there; else what went wrong, with nothing left behind.
    pub fn create(path: &Path, readers: Readers, spec: &Spec) -> io::Result<Self> {
        let hidden = path.with_file_name(format!("{UNBORN}{}.{}", spec.id, std::process::id()));
        DirBuilder::new().mode(0o700).create(&hidden)?;
        let lock = create_lock(&hidden, readers).inspect_err(|_| _ = delete(&hidden))?;
        let filled = Self { path: hidden.clone(), readers, lock };
        let made = filled.fill(spec).and_then(|()| rename_new(&hidden, path));
        match made {
            Ok(()) => Ok(Self { path: path.to_owned(), ..filled }),
            Err(error) => {
                filled.remove();
                Err(error)
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn fill(&self, spec: &Spec) -> io::Result<()> {
        let control = self.path.join(CONTROL);
        mkfifo(&control, Mode::S_IRUSR | Mode::S_IWUSR)?;
        self.readers.admit(&control, 0o660)?;
        self.replace(SPEC, spec, false)?;
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

    /// Sets disk space aside for the outcome, so that a job that fills the disk still gets its verdict.
    ///
    /// # Errors
    /// When there is no space for it even now.
    pub fn reserve(&self) -> io::Result<()> {
        let reserve = self.file(RESERVE)?;
        Ok(posix_fallocate(reserve, 0, RESERVE_BYTES)?)
    }

    /// Writes `state.json`. A job's end goes to the disk before anybody hears of it, into what was set aside for it
    /// where there is nothing else left.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_state(&self, state: &State) -> io::Result<()> {
        let reserve = self.path.join(RESERVE);
        if state.finished().is_none() {
            return self.replace(STATE, state, false);
        }
        self.replace(STATE, state, true).or_else(|error| self.spend(&reserve, state).map_err(|_| error))?;
        // Spent, or no longer needed.
        let _ = fs::remove_file(&reserve);
        Ok(())
    }

    /// Writes in place, which needs no new space, and only then makes it `state.json`.
    fn spend(&self, reserve: &Path, state: &State) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(reserve)?;
        let bytes = encode(state)?;
        file.write_all_at(&bytes, 0)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()?;
        fs::rename(reserve, self.path.join(STATE))
    }

    /// Whether this is the folder at its path: before it was locked another writer may have removed it, and a new job of
    /// the same id have made its own. After that nobody can.
    fn is_in_place(&self) -> io::Result<bool> {
        let own = self.lock.metadata()?;
        match fs::metadata(self.path.join(LOCK)) {
            Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the folder with all that is in it, as well as it can.
    pub fn remove(self) {
        let path = self.path.clone();
        if let Err(error) = self.try_remove() {
            tracing::warn!(path = %path.display(), %error, "can't remove a job's folder");
        }
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

    fn replace<T: Serialize>(&self, name: &str, value: &T, durable: bool) -> io::Result<()> {
        let (new, path) = (self.path.join(format!("{name}.new")), self.path.join(name));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = create(&new, self.readers)?;
        file.write_all(&encode(value)?)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&new, &path)
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
