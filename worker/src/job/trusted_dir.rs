//! A directory that only root and this process's own user can change, and what is below it.
//!
//! A spawner that is root works in folders whose path a worker, or somebody who took it over, may know and wish to bend.
//! So it goes by descriptors, not by paths: each step is one name from an open directory, never through a symbolic link
//! (`openat2`, `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, Linux 5.6), and a directory that somebody else could change is
//! refused when it is opened.

mod walk;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, geteuid};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, fstat, mkdirat, mkfifoat, openat2,
    renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

/// How deep folders below one may be nested that is deleted: a job's hold none.
const MAX_DEPTH: usize = 8;

/// Write permission for the group.
const GROUP_WRITE: u32 = 0o020;
/// Write permission for everybody.
const ALL_WRITE: u32 = 0o002;
/// Whoever may write here may remove only what is their own (`S_ISVTX`).
const STICKY: u32 = 0o1000;

/// An open directory, which nobody but root and this process's own user can change.
#[derive(Debug)]
pub struct TrustedDir {
    fd: OwnedFd,
    /// For messages only: nothing is opened by it.
    path: PathBuf,
}

/// A directory that is not to be worked in.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// It is somebody else's.
    #[error("{} belongs to {owner}, who could lead {own} to other files through it; as root: chown {own} {0} && chmod go-w {0}", path.display())]
    Owner {
        /// Which one.
        path: PathBuf,
        /// The owner's name, or number.
        owner: String,
        /// The user that works in it.
        own: String,
    },
    /// Others may write to it.
    #[error(
        "{} has mode {mode:04o}: others than its owner can put files there; as root: chmod go-w {0}",
        path.display()
    )]
    Writable {
        /// Which one.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The worker's user can put another one in its place.
    #[error(
        "{} can be changed by {worker}, the worker's user, who could put something else in the place of what the spawner \
         uses below it; as root: chown root {0} && chmod go-w {0}, or use another folder",
        path.display()
    )]
    Above {
        /// The directory above.
        path: PathBuf,
        /// The worker's user.
        worker: String,
    },
}

impl From<Untrusted> for io::Error {
    fn from(error: Untrusted) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, error)
    }
}

impl TrustedDir {
    /// Opens the directory at a path, and makes it with `mode` if it is missing. `worker`: who must not be able to put
    /// another one in its place, on the way there either.
    ///
    /// # Errors
    /// [`Untrusted`], in an [`io::Error`]; or what the system says, with operation and path.
    pub fn make(path: &Path, mode: u32, worker: Option<(Uid, Gid)>) -> io::Result<(Self, Made)> {
        walk::make(path, mode, worker)
    }

    /// Takes an open directory, if it can be trusted.
    fn admit(fd: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let stat = fstat(&fd)?;
        check(&path, Uid::from_raw(stat.st_uid), stat.st_mode, geteuid())?;
        Ok(Self { fd, path })
    }

    /// Where it was opened; for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// After it was renamed.
    pub fn set_path(&mut self, path: PathBuf) {
        self.path = path;
    }

    /// A directory in this one.
    ///
    /// # Errors
    /// [`Untrusted`], in an [`io::Error`]; when it is a symbolic link or no directory; or what openat2(2) says.
    pub fn subdir(&self, name: &str) -> io::Result<Self> {
        let fd = self.open_at(name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Self::admit(fd, self.path.join(name))
    }

    /// The same; made, and given `mode`, if it is missing.
    ///
    /// # Errors
    /// As [`Self::subdir`], or what mkdirat(2) says.
    pub fn make_subdir(&self, name: &str, mode: u32) -> io::Result<(Self, Made)> {
        let made = match self.create_dir(name, mode) {
            Ok(()) => Made::Now,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Made::Before,
            Err(error) => return Err(error),
        };
        Ok((self.subdir(name)?, made))
    }

    /// Makes a directory, less the umask.
    ///
    /// # Errors
    /// When the name is taken, or what mkdirat(2) says.
    pub fn create_dir(&self, name: &str, mode: u32) -> io::Result<()> {
        Ok(mkdirat(&self.fd, one(name)?, Mode::from_raw_mode(mode))?)
    }

    /// Opens a file for reading. A FIFO is not waited for.
    ///
    /// # Errors
    /// When it is a symbolic link, or what openat2(2) says.
    pub fn open(&self, name: &str) -> io::Result<File> {
        Ok(self.open_at(name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?.into())
    }

    /// Opens a file, or a FIFO, for reading and writing.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_writable(&self, name: &str) -> io::Result<File> {
        Ok(self.open_at(name, OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?.into())
    }

    /// Creates a file of mode 0600, for reading and writing.
    ///
    /// # Errors
    /// When the name is taken, or what openat2(2) says.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        Ok(self.open_at(name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Makes a FIFO of mode 0600.
    ///
    /// # Errors
    /// When the name is taken, or what mknodat(2) says.
    pub fn create_fifo(&self, name: &str) -> io::Result<()> {
        Ok(mkfifoat(&self.fd, one(name)?, Mode::RUSR | Mode::WUSR)?)
    }

    /// What stands under a name; of a symbolic link what it is itself.
    ///
    /// # Errors
    /// When nothing does, or what fstatat(2) says.
    pub fn stat(&self, name: &str) -> io::Result<Stat> {
        Ok(statat(&self.fd, one(name)?, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// True if something stands under a name, be it a symbolic link to nowhere.
    ///
    /// # Errors
    /// When that can't be told.
    pub fn has(&self, name: &str) -> io::Result<bool> {
        match self.stat(name) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names in it, in no order; of those that are not UTF-8, which are not jobworker's, what can be shown.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.all_names()?.iter().map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn all_names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Renames what is in it, in place of what has the new name.
    ///
    /// # Errors
    /// What renameat(2) says.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, one(from)?, &self.fd, one(to)?)?)
    }

    /// Renames what is in it, never in place of another: then it fails with [`io::ErrorKind::AlreadyExists`].
    ///
    /// # Errors
    /// That, or what renameat2(2) says.
    pub fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat_with(&self.fd, one(from)?, &self.fd, one(to)?, RenameFlags::NOREPLACE)?)
    }

    /// Removes a file. A symbolic link goes itself.
    ///
    /// # Errors
    /// What unlinkat(2) says.
    pub fn remove_file(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.fd, one(name)?, AtFlags::empty())?)
    }

    /// Deletes what stands under a name, with all that is in it; nothing may stand there. No symbolic link is followed.
    ///
    /// # Errors
    /// When some of it stays, or folders are nested deeper than any of jobworker's.
    pub fn delete(&self, name: &str) -> io::Result<()> {
        self.delete_at(one(name)?.as_ref(), MAX_DEPTH)
    }

    fn delete_at(&self, name: &Path, depth: usize) -> io::Result<()> {
        match self.kind(name) {
            Err(Errno::NOENT) => return Ok(()),
            Ok(FileType::Directory) => {}
            _ => return without_missing(unlinkat(&self.fd, name, AtFlags::empty())),
        }
        let Some(depth) = depth.checked_sub(1) else {
            return Err(io::Error::other(format!("folders are nested deeper than {MAX_DEPTH}")));
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat2(&self.fd, name, flags, Mode::empty(), RESOLVE)?;
        let inner = Self { fd, path: self.path.join(name) };
        for entry in inner.all_names()? {
            inner.delete_at(entry.as_ref(), depth)?;
        }
        without_missing(unlinkat(&self.fd, name, AtFlags::REMOVEDIR))
    }

    fn kind(&self, name: &Path) -> Result<FileType, Errno> {
        Ok(FileType::from_raw_mode(statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode))
    }

    fn open_at(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        openat2(&self.fd, one(name)?, flags | OFlags::CLOEXEC, mode, RESOLVE).map_err(|errno| match errno {
            Errno::LOOP => io::Error::other(format!(
                "{} is a symbolic link, which the spawner never follows",
                self.path.join(name).display()
            )),
            errno => errno.into(),
        })
    }
}

/// Checks that `worker` can change neither the directory at a path nor the way there.
///
/// # Errors
/// [`Untrusted`], in an [`io::Error`]; or what the system says, with operation and path.
pub fn expect_firm(path: &Path, worker: Option<(Uid, Gid)>) -> io::Result<()> {
    walk::expect_firm(path, worker)
}

impl AsFd for TrustedDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a directory had to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It had.
    Now,
    /// It was there.
    Before,
}

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Only a name, so that each step is checked.
fn one(name: &str) -> io::Result<&str> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name of a file")));
    }
    Ok(name)
}

fn without_missing(removed: rustix::io::Result<()>) -> io::Result<()> {
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Decides whether a directory is changed by root and the user alone that works in it. An access list shows in the group's
/// bits.
///
/// # Errors
/// Why it is not, and what to do.
pub fn check(path: &Path, owner: Uid, mode: u32, own: Uid) -> Result<(), Untrusted> {
    let (mode, path) = (mode & 0o7777, path.to_owned());
    if !owner.is_root() && owner != own {
        return Err(Untrusted::Owner { path, owner: name(owner), own: name(own) });
    }
    if mode & (GROUP_WRITE | ALL_WRITE) != 0 {
        return Err(Untrusted::Writable { path, mode });
    }
    Ok(())
}

/// A user's name, or number where there is none.
fn name(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| format!("uid {uid}"), |user| user.name)
}

#[cfg(test)]
mod tests;
