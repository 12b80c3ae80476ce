//! Where the audit log goes: `--audit-log FILE|stdout|journald|log`.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;

use super::file::LogFile;
use super::journald::Journal;
use super::writer::Item;

/// What an operator may choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// Among the log, on stderr.
    #[default]
    Log,
    /// stdout, which has nothing else.
    Stdout,
    /// The journal, with fields to look lines up by.
    Journald,
    /// A file, to be appended to.
    File(PathBuf),
}

/// One that lines are written to, open.
#[derive(Debug)]
pub(super) enum Output {
    Stdout(File),
    Journald(Journal),
    File(LogFile),
}

/// One that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("can't write the audit log to {destination}: {reason}")]
pub struct Unusable {
    destination: Destination,
    reason: io::Error,
}

/// None of them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither log, stdout nor journald, nor a file's path with a slash, like /var/log/jobworker/audit.log"
)]
pub struct NoDestination(String);

impl FromStr for Destination {
    type Err = NoDestination;

    fn from_str(text: &str) -> Result<Self, NoDestination> {
        Ok(match text {
            "log" => Self::Log,
            "stdout" => Self::Stdout,
            "journald" => Self::Journald,
            // A misspelt word must not become a file's name.
            path if path.contains('/') => Self::File(path.into()),
            other => return Err(NoDestination(other.to_owned())),
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str("the log"),
            Self::Stdout => f.write_str("stdout"),
            Self::Journald => f.write_str("the journal"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Destination {
    /// Opens it; none: the log, which is open.
    ///
    /// # Errors
    /// When it can't be written to.
    pub(super) fn open(&self) -> Result<Option<Output>, Unusable> {
        let output = match self {
            Self::Log => return Ok(None),
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned().map(|fd| Output::Stdout(fd.into())),
            Self::Journald => Journal::open().map(Output::Journald),
            Self::File(path) => LogFile::open(path.clone()).map(Output::File),
        };
        match output {
            Ok(output) => Ok(Some(output)),
            Err(reason) => Err(Unusable { destination: self.clone(), reason }),
        }
    }
}

impl Destination {
    /// Whether it can be opened, as far as that shows without making anything.
    ///
    /// # Errors
    /// Why it can't.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self {
            Self::Log | Self::Stdout => Ok(()),
            Self::Journald => Journal::open().map(drop),
            Self::File(path) => LogFile::check(path),
        }
    }
}

impl Output {
    /// Writes one line, whole or not at all.
    ///
    /// # Errors
    /// When it is not taken.
    pub(super) fn write(&mut self, item: &Item) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.write_all(item.json.as_bytes()),
            Self::Journald(journal) => journal.send(item),
            Self::File(file) => file.append(item.json.as_bytes()),
        }
    }

    /// Before some lines: goes where the path leads now. `asked`: even if nothing has changed.
    pub(super) fn follow(&mut self, asked: bool) {
        if let Self::File(file) = self {
            file.follow(asked);
        }
    }

    /// What was written survives a loss of power from now on, as far as that is in our hands.
    ///
    /// # Errors
    /// When the disk does not say so.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync(),
            Self::Stdout(_) | Self::Journald(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_is_no_file() {
        assert_eq!("journald".parse(), Ok(Destination::Journald));
        assert_eq!("./audit.log".parse(), Ok(Destination::File("./audit.log".into())));
        for text in ["", "syslog", "journal", "audit.log", "Stdout"] {
            let error = text.parse::<Destination>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is neither log, stdout nor journald")), "{error}");
        }
    }
}
