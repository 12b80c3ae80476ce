//! The writing side of a job's folder. Only its shim has one, and the spawner for a job whose shim died.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, chown};
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
        let lock = create(&hidden.join(LOCK), readers).inspect_err(|_| remove_folder(&hidden))?;
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
        self.lock.try_lock()?;
        let control = self.path.join(CONTROL);
        mkfifo(&control, Mode::S_IRUSR | Mode::S_IWUSR)?;
        self.readers.admit(&control, 0o660)?;
        self.replace(SPEC, spec, false)?;
        self.readers.admit(&self.path, 0o750)
    }

    /// Takes over the folder of a shim that died; `None` when it lives.
    ///
    /// # Errors
    /// When the lock can't be opened or tried.
    pub fn take_over(path: &Path, readers: Readers) -> io::Result<Option<Self>> {
        let lock = match OpenOptions::new().read(true).write(true).open(path.join(LOCK)) {
            // A shim that died before it made the lock.
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path.join(LOCK), readers)?,
            other => other?,
        };
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), readers, lock })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
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

    /// Removes the folder with all that is in it.
    pub fn remove(self) {
        remove_folder(&self.path);
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
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)?)
}

/// Best effort: a folder that is half gone is no job.
fn remove_folder(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "can't remove a job's folder");
    }
}
