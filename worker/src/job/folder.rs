//! A job's folder, `<state-dir>/jobs/<id>/`: where its files stand, and how they are read.
//!
//! | file         | written by       | what                                                            |
//! |--------------|------------------|-----------------------------------------------------------------|
//! | `spec.json`  | shim, once       | what was asked, by whom                                         |
//! | `state.json` | shim, by rename  | phase, outcome, evidence                                        |
//! | `output`     | shim, append     | the raw bytes of stdout and stderr in order of arrival          |
//! | `index`      | shim, append     | whose bytes they are and when they came ([`crate::output::index`]) |
//! | `control`    | FIFO, shim reads | one-line requests ([`crate::shim::control`])                    |
//! | `lock`       | flock by the shim | held: the shim lives; in it, the pid of who last held it. For the spawner alone (0600): who can open it can hold it |
//!
//! Names that end in `.new` do not last: a file about to be renamed, or the space set aside for the outcome.
//!
//! `spec.json` and `state.json` say by which version of the format they were written. Older ones are read as they are;
//! of a newer one nothing is known, so it is left alone.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};

use super::spec::FORMAT_VERSION;
use super::trusted_dir::TrustedDir;
use super::whose::Part;
use super::{JobId, Spec, State, Whose};

/// The folder of the jobs' folders, in the state folder.
pub const JOBS: &str = "jobs";
/// The file of [`Spec`].
pub const SPEC: &str = "spec.json";
/// The file of [`State`].
pub const STATE: &str = "state.json";
/// The bytes of stdout and stderr.
pub const OUTPUT: &str = "output";
/// The records beside [`OUTPUT`].
pub const INDEX: &str = "index";
/// The FIFO that the shim reads.
pub const CONTROL: &str = "control";
/// The file that the shim holds a lock on.
pub const LOCK: &str = "lock";

/// `<state-dir>/jobs`, which holds a folder for each job.
#[derive(Clone, Debug)]
pub struct JobsDir {
    path: PathBuf,
    access: Access,
}

/// One job's folder. It may be gone at any time.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    access: Access,
}

/// How files are reached.
#[derive(Clone, Debug)]
enum Access {
    /// The worker's way: it reads, with its own rights, what the spawner has written.
    Path,
    /// The spawner's way, which may be root: from `jobs/`, through no symbolic link.
    Below(Arc<TrustedDir>),
}

/// A folder's file that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The operating system said no.
    #[error("can't {operation} {path}: {reason}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        reason: io::Error,
    },
    /// The file is there and is not what it should be.
    #[error("{path} is not what jobworker writes: {reason}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        reason: serde_json::Error,
    },
    /// A newer build has written the file.
    #[error(
        "{path} is of format version {version}, written by a newer jobworker; this one reads up to {FORMAT_VERSION}"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The writer's [`FORMAT_VERSION`].
        version: u64,
    },
}

/// What a file of any version says of itself.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

impl JobsDir {
    /// The jobs of a state folder; nothing is read or made.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(JOBS), access: Access::Path }
    }

    /// The same, for the spawner: all is reached from this descriptor of it.
    pub fn below(jobs: Arc<TrustedDir>) -> Self {
        Self { path: jobs.path().to_owned(), access: Access::Below(jobs) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of a job, whether it is there or not.
    pub fn folder(&self, id: JobId) -> Folder {
        Folder { path: self.path.join(id.to_string()), access: self.access.clone() }
    }

    /// The ids of all folders, in no order. Names that are not ids are passed over.
    ///
    /// # Errors
    /// When the folder can't be read; one that does not exist yet holds no jobs.
    pub fn ids(&self) -> Result<Vec<JobId>, FolderError> {
        let failed = |reason| FolderError::Io { operation: "list", path: self.path.clone(), reason };
        if let Access::Below(jobs) = &self.access {
            let names = jobs.names().map_err(failed)?;
            return Ok(names.iter().filter_map(|name| name.parse().ok()).collect());
        }
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            if let Some(id) = entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse().ok()) {
                ids.push(id);
            }
        }
        Ok(ids)
    }
}

impl Folder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One of its files, by this module's constants.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What was asked; `None` when there is no such job (or not yet).
    ///
    /// # Errors
    /// When the file can't be read, or understood, or is another job's.
    pub fn spec(&self) -> Result<Option<Spec>, FolderError> {
        let Some(spec) = self.read_json::<Spec>(SPEC)? else { return Ok(None) };
        if self.path.file_name().is_none_or(|name| *name != *spec.id.to_string()) {
            let reason = serde_json::Error::custom(format!("it is of job {}", spec.id));
            return Err(FolderError::Malformed { path: self.file(SPEC), reason });
        }
        Ok(Some(spec))
    }

    /// When the job was asked for, in microseconds since the Unix epoch; `None` when there is no such job (or not yet).
    ///
    /// # Errors
    /// When the file can't be read, or understood.
    pub fn created_unix_usec(&self) -> Result<Option<u64>, FolderError> {
        #[derive(serde::Deserialize)]
        struct Created {
            created_unix_usec: u64,
        }
        Ok(self.read_json::<Created>(SPEC)?.map(|spec| spec.created_unix_usec))
    }

    /// Whose the job is; `None` when there is no such job (or not yet).
    ///
    /// # Errors
    /// When the file can't be read, or understood.
    pub fn whose(&self) -> Result<Option<Whose>, FolderError> {
        Ok(self.read_json::<Part>(SPEC)?.map(Whose::from))
    }

    /// How the job is; `None` while it is starting.
    ///
    /// # Errors
    /// When the file can't be read, or understood.
    pub fn state(&self) -> Result<Option<State>, FolderError> {
        self.read_json(STATE)
    }

    /// The pid of whoever held the lock last, be it held or not; `None` where the file does not say: early
    /// builds left it empty.
    pub fn last_writer(&self) -> Option<i32> {
        let mut text = String::new();
        self.open(LOCK).ok()?.take(32).read_to_string(&mut text).ok()?;
        text.trim().parse().ok().filter(|pid| *pid > 0)
    }

    /// How long `output` is now, whatever the index makes of it; 0 where there is none.
    ///
    /// # Errors
    /// When the file can't be examined.
    pub fn output_length_bytes(&self) -> Result<u64, FolderError> {
        let found = match &self.access {
            Access::Path => fs::metadata(self.file(OUTPUT)),
            Access::Below(_) => self.open(OUTPUT).and_then(|output| output.metadata()),
        };
        match found {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(reason) => Err(FolderError::Io { operation: "examine", path: self.file(OUTPUT), reason }),
        }
    }

    /// True if the folder is there.
    ///
    /// # Errors
    /// When that can't be told.
    pub fn exists(&self) -> io::Result<bool> {
        match &self.access {
            Access::Path => self.path.try_exists(),
            Access::Below(jobs) => jobs.has(&self.name()),
        }
    }

    /// The names in it, in no order; those that are not UTF-8 as far as they are.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        match &self.access {
            Access::Path => fs::read_dir(&self.path)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect(),
            Access::Below(jobs) => jobs.subdir(&self.name())?.names(),
        }
    }

    /// Opens one of its files for reading.
    ///
    /// # Errors
    /// What the system says; for the spawner also where the file is a symbolic link, or the folder somebody else's.
    pub fn open(&self, name: &str) -> io::Result<File> {
        match &self.access {
            Access::Path => File::open(self.file(name)),
            Access::Below(jobs) => jobs.subdir(&self.name())?.open(name),
        }
    }

    /// Opens one of its files for reading and writing.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_writable(&self, name: &str) -> io::Result<File> {
        match &self.access {
            Access::Path => File::options().read(true).write(true).open(self.file(name)),
            Access::Below(jobs) => jobs.subdir(&self.name())?.open_writable(name),
        }
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        if matches!(self.access, Access::Path) {
            return fs::read(self.file(name));
        }
        let mut bytes = Vec::new();
        self.open(name)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, FolderError> {
        let path = self.file(name);
        match self.read(name) {
            Ok(bytes) => parse(&path, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(reason) => Err(FolderError::Io { operation: "read", path, reason }),
        }
    }
}

/// The version first: what a newer build writes may not even look like what this one expects.
fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, FolderError> {
    let malformed = |reason| FolderError::Malformed { path: path.to_owned(), reason };
    let Versioned { version } = serde_json::from_slice(bytes).map_err(malformed)?;
    if version > u64::from(FORMAT_VERSION) {
        return Err(FolderError::Newer { path: path.to_owned(), version });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}
