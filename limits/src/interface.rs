//! The interface files of a group: read, written and read back with errors that name the file and the value.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What goes wrong with an interface file or a group's folder.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// A system call on it failed.
    #[error("cannot {operation} {}: {reason}", path.display())]
    Io {
        /// What was tried: `read`, `create`, `poll`…
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        reason: io::Error,
    },
    /// The kernel refused a value.
    #[error("cannot write {value:?} to {}: {reason}", path.display())]
    Write {
        /// The interface file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The reason.
        reason: io::Error,
    },
    /// The kernel took a value, but another is in force.
    #[error("wrote {wrote:?} to {}, but {in_force:?} is in force", path.display())]
    NotInForce {
        /// The interface file.
        path: PathBuf,
        /// What was written.
        wrote: String,
        /// What the file says.
        in_force: String,
    },
    /// The file does not say what the kernel documents.
    #[error("{} says {text:?}, which is not the documented format", path.display())]
    Malformed {
        /// The interface file.
        path: PathBuf,
        /// Its text.
        text: String,
    },
}

impl InterfaceError {
    pub(crate) fn io(operation: &'static str, path: &Path, reason: impl Into<io::Error>) -> InterfaceError {
        InterfaceError::Io { operation, path: path.to_path_buf(), reason: reason.into() }
    }

    /// The operating system's reason, where there is one.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            InterfaceError::Io { reason, .. } | InterfaceError::Write { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// Reads a whole file, without the newline at its end.
pub(crate) fn read(path: &Path) -> Result<String, InterfaceError> {
    let mut text = fs::read_to_string(path).map_err(|reason| InterfaceError::io("read", path, reason))?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// Reads a file that is there only with its controller, or only in newer kernels; `None` where it is not.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, InterfaceError> {
    match read(path) {
        Err(InterfaceError::Io { reason, .. }) if reason.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Writes a value in one write(2), as the kernel wants it. Never creates a file.
pub(crate) fn write(path: &Path, value: &str) -> Result<(), InterfaceError> {
    use io::Write as _;
    let failed = |reason| InterfaceError::Write { path: path.to_path_buf(), value: value.to_owned(), reason };
    let mut file = fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
    file.write_all(value.as_bytes()).map_err(failed)
}

/// Reads back a file after `wrote` was written, and checks that it says exactly `expected`.
pub(crate) fn confirm(path: &Path, wrote: &str, expected: &str) -> Result<(), InterfaceError> {
    let in_force = read(path)?;
    if in_force == expected {
        return Ok(());
    }
    Err(InterfaceError::NotInForce { path: path.to_path_buf(), wrote: wrote.to_owned(), in_force })
}

/// A file of `KEY VALUE` lines, such as `cpu.stat` and `memory.events`.
#[derive(Debug, Default)]
pub(crate) struct FlatKeyed(String);

impl FlatKeyed {
    /// Reads such a file; a missing one has no keys.
    pub(crate) fn read(path: &Path) -> Result<FlatKeyed, InterfaceError> {
        Ok(FlatKeyed(read_optional(path)?.unwrap_or_default()))
    }

    /// The value of a key; `None` where it is missing.
    pub(crate) fn get(&self, key: &str) -> Option<u64> {
        let lines = self.0.lines().filter_map(|line| line.split_once(' '));
        lines.filter(|(name, _)| *name == key).find_map(|(_, value)| value.parse().ok())
    }
}

/// One line of a file such as `io.stat` or `io.max`: `254:0 rbps=1048576 wbps=max`.
#[derive(Debug)]
pub(crate) struct DeviceLine<'a> {
    pub(crate) device: &'a str,
    pairs: &'a str,
}

impl<'a> DeviceLine<'a> {
    /// The lines of such a text.
    pub(crate) fn all(text: &'a str) -> impl Iterator<Item = DeviceLine<'a>> {
        text.lines().filter_map(|line| {
            let (device, pairs) = line.split_once(' ').unwrap_or((line, ""));
            (!device.is_empty()).then_some(DeviceLine { device, pairs })
        })
    }

    /// The number of a key; `None` where it is `max` or missing.
    pub(crate) fn get(&self, key: &str) -> Option<u64> {
        let pairs = self.pairs.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(name, _)| *name == key).find_map(|(_, value)| value.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_other_than_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.max");
        fs::write(&file, "max\n").unwrap();
        let error = confirm(&file, "65536", "65536").unwrap_err().to_string();
        assert!(error.ends_with("memory.max, but \"max\" is in force"), "{error}");
        confirm(&file, "max", "max").unwrap();
    }

    #[test]
    fn a_write_never_creates_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("io.max");
        let error = write(&file, "8:0 rbps=1").unwrap_err().to_string();
        assert!(error.starts_with("cannot write \"8:0 rbps=1\" to "), "{error}");
        assert!(!file.exists());
    }

    #[test]
    fn keyed_files_are_read() {
        let stat = FlatKeyed("usage_usec 12\nuser_usec 7\n".to_owned());
        assert_eq!((stat.get("user_usec"), stat.get("user")), (Some(7), None));
        let text = "254:0 rbps=1048576 wbps=max riops=max wiops=100\n7:0 \n";
        let lines: Vec<_> =
            DeviceLine::all(text).map(|line| (line.device, line.get("rbps"), line.get("wbps"))).collect();
        assert_eq!(lines, [("254:0", Some(1_048_576), None), ("7:0", None, None)]);
    }
}
