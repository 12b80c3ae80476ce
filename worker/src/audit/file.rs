//! The audit log as a file: appended to, one write(2) a line, and left for another when it is renamed or removed.
//!
//! Lines are not synced one by one: the kernel has them, so nothing but the host's own end loses any.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::{AccessFlags, eaccess};

/// Its owner writes, its group reads, whatever the umask.
const MODE: u32 = 0o640;

/// The file that lines go to.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    /// None: the next line opens it.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Device and inode, which tell whether the path still leads here.
    is: (u64, u64),
    /// A part of a line is at its end, and could not be taken back.
    is_torn: bool,
}

impl LogFile {
    /// # Errors
    /// When it can't be opened or created, or is no regular file.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let mut file = Self { path, open: None };
        file.opened()?;
        Ok(file)
    }

    /// Whether it can be opened, or created; nothing is.
    ///
    /// # Errors
    /// Why it can't.
    pub(super) fn check(path: &Path) -> io::Result<()> {
        match Open::existing(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder =
                    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
                Ok(eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK)?)
            }
            found => found.map(drop),
        }
    }

    /// Appends a line.
    ///
    /// # Errors
    /// When it does not get there whole; then nothing of it is there, or what is makes no other line unreadable.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.opened()?.append(line)
    }

    /// Lets go of a file that is not at the path any more, or in any case.
    pub(super) fn follow(&mut self, in_any_case: bool) {
        let is = self.open.as_ref().map(|open| open.is);
        let has_moved = || match fs::metadata(&self.path) {
            Ok(there) => is.is_some_and(|is| is != (there.dev(), there.ino())),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if (in_any_case || has_moved())
            && let Some(open) = self.open.take()
        {
            // What it has counts as told once its successor is synced.
            if let Err(error) = open.file.sync_data() {
                tracing::warn!(%error, "the audit log's old file may not survive a loss of power");
            }
        }
    }

    /// # Errors
    /// When the disk says so.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.open.as_ref().map_or(Ok(()), |open| open.file.sync_data())
    }

    fn opened(&mut self) -> io::Result<&mut Open> {
        match &mut self.open {
            Some(open) => Ok(open),
            closed => Ok(closed.insert(Open::new(&self.path)?)),
        }
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        match Self::existing(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        match Self::options().create_new(true).mode(MODE).open(path) {
            Ok(new) => {
                new.set_permissions(Permissions::from_mode(MODE))?;
                Self::of(new)
            }
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::existing(path),
            Err(error) => Err(error),
        }
    }

    fn existing(path: &Path) -> io::Result<Self> {
        Self::of(Self::options().open(path)?)
    }

    /// A FIFO without a reader would keep us waiting; of a regular file that flag means nothing.
    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        options
    }

    fn of(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(Self { is: (metadata.dev(), metadata.ino()), file, is_torn: false })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let whole = match self.is_torn {
            true => &[b"\n", line].concat()[..],
            false => line,
        };
        let written = self.file.write(whole)?;
        if written == whole.len() {
            self.is_torn = false;
            return Ok(());
        }
        // A disk that was full after so many bytes. Why, a second attempt tells.
        self.take_back(written);
        match self.file.write(&whole[written..]) {
            Ok(more) => {
                self.take_back(more);
                Err(io::ErrorKind::WriteZero.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Cuts off the last bytes, unless another writer has added to them.
    fn take_back(&mut self, bytes: usize) {
        let mut cut = || -> io::Result<bool> {
            let end = self.file.stream_position()?;
            let is_last = self.file.metadata()?.len() == end;
            if is_last {
                self.file.set_len(end.saturating_sub(bytes as u64))?;
            }
            Ok(is_last)
        };
        self.is_torn = !cut().unwrap_or(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_for_owner_and_group_and_one_that_is_there_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        LogFile::open(path.clone()).unwrap().append(b"1\n").unwrap();
        assert_eq!(mode(&path), 0o640);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        LogFile::open(path.clone()).unwrap().append(b"2\n").unwrap();
        assert_eq!((mode(&path), fs::read_to_string(&path).unwrap().as_str()), (0o600, "1\n2\n"));
    }

    #[test]
    fn it_follows_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("audit.log"), folder.path().join("audit.log.1"));
        let mut log = LogFile::open(path.clone()).unwrap();
        let mut line = |text: &str| {
            log.follow(false);
            log.append(text.as_bytes()).unwrap();
        };
        line("1\n");
        fs::rename(&path, &old).unwrap();
        line("2\n");
        fs::remove_file(&path).unwrap();
        line("3\n");
        // As `copytruncate` does.
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        line("4\n");
        assert_eq!(fs::read_to_string(&old).unwrap(), "1\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "4\n");
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
        for odd in [&fifo, folder.path()] {
            LogFile::open(odd.to_owned()).unwrap_err();
        }
        drop(reader);
        LogFile::open(fifo).unwrap_err();
        assert!(LogFile::open("/dev/full".into()).unwrap_err().to_string().contains("not a regular file"));
    }

    #[test]
    fn a_check_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        LogFile::check(&path).unwrap();
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        LogFile::check(&path).unwrap();
        LogFile::check(&path.join("x")).unwrap_err();
        LogFile::check(&folder.path().join("x/y")).unwrap_err();
        LogFile::check(folder.path()).unwrap_err();
    }

    #[test]
    fn what_is_taken_back_leaves_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut log = Open::new(&path).unwrap();
        log.append(b"whole\n").unwrap();
        log.file.write_all(b"par").unwrap();
        log.take_back(3);
        log.append(b"next\n").unwrap();
        // Somebody else has added a line: then ours stays a part, on a line of its own.
        log.file.write_all(b"par").unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"!").unwrap();
        log.take_back(3);
        log.append(b"last\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\nnext\npar!\nlast\n");
    }
}
