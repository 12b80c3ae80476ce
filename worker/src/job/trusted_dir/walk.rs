//! The way to a directory, name by name from the root: a worker that was taken over must not be able to bend it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Gid, Uid};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::{ALL_WRITE, GROUP_WRITE, Made, STICKY, TrustedDir, Untrusted, name};

/// Symbolic links on one way, as in the kernel.
const MAX_LINKS: usize = 40;

/// What a directory gets that is made on the way.
const ABOVE: Mode = Mode::from_raw_mode(0o755);

/// What a walk has come to.
struct End {
    fd: OwnedFd,
    at: PathBuf,
    made: Made,
}

/// See [`TrustedDir::make`].
pub(super) fn make(path: &Path, mode: u32, worker: Option<(Uid, Gid)>) -> io::Result<(TrustedDir, Made)> {
    let End { fd, at, made } = walk(path, Some(mode), worker)?;
    let fd = open_for_use(&fd, ".".as_ref()).map_err(|errno| told("open", &at, &errno.into()))?;
    Ok((TrustedDir::admit(fd, path.to_owned())?, made))
}

/// See [`super::expect_firm`].
pub(super) fn expect_firm(path: &Path, worker: Option<(Uid, Gid)>) -> io::Result<()> {
    let End { fd, at, .. } = walk(path, None, worker)?;
    Ok(check(&fstat(&fd)?, &at, worker)?)
}

/// Walks to a directory; one that is missing is made where a `mode` is given. Symbolic links are followed here: who could
/// bend one can change the directory that it is in, and that is checked.
fn walk(path: &Path, mode: Option<u32>, worker: Option<(Uid, Gid)>) -> io::Result<End> {
    let absolute = std::path::absolute(path).map_err(|error| told("find", path, &error))?;
    let mut left: VecDeque<OsString> = names(&absolute).collect();
    let mut at = PathBuf::from("/");
    let mut fd = openat(CWD, &at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let (mut links, mut made) = (0, Made::Before);
    while let Some(next) = left.pop_front() {
        check(&fstat(&fd)?, &at, worker)?;
        let there = at.join(&next);
        let is_last = left.is_empty();
        match statat(&fd, &next, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(told("open", path, &Errno::LOOP.into()));
                }
                let target = readlinkat(&fd, &next, Vec::new())?.into_bytes();
                let target = PathBuf::from(OsString::from_vec(target));
                if target.is_absolute() {
                    at = PathBuf::from("/");
                    fd = open(&fd, &at)?;
                }
                for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                    left.push_front(name);
                }
                continue;
            }
            Ok(_) => {}
            Err(Errno::NOENT) if let Some(mode) = mode => {
                let mode = if is_last { Mode::from_raw_mode(mode) } else { ABOVE };
                match mkdirat(&fd, &next, mode) {
                    Ok(()) => made = Made::Now,
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(told("make the folder", &there, &errno.into())),
                }
            }
            Err(errno) => return Err(told("look at", &there, &errno.into())),
        }
        // Not through a link that has taken its place since.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fd = openat(&fd, &next, flags, Mode::empty()).map_err(|errno| told("open", &there, &errno.into()))?;
        at = there;
    }
    Ok(End { fd, at, made })
}

fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn open(from: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    openat(from, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn open_for_use(from: &OwnedFd, name: &std::ffi::OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(from, name, flags, Mode::empty())
}

/// The worker's user must not be able to rename what is in a directory on the way.
fn check(stat: &Stat, path: &Path, worker: Option<(Uid, Gid)>) -> Result<(), Untrusted> {
    let Some((uid, gid)) = worker.filter(|(uid, _)| *uid != nix::unistd::geteuid()) else { return Ok(()) };
    let mode = stat.st_mode & 0o7777;
    let lets_rename = |bit: u32| mode & bit != 0 && mode & STICKY == 0;
    let by_group = stat.st_gid == gid.as_raw() && lets_rename(GROUP_WRITE);
    if stat.st_uid == uid.as_raw() || by_group || lets_rename(ALL_WRITE) {
        return Err(Untrusted::Above { path: path.to_owned(), worker: name(uid) });
    }
    Ok(())
}

fn told(operation: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("can't {operation} {}: {error}", path.display()))
}
