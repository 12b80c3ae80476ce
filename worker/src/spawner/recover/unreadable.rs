//! Folders that can't be understood. What jobworker did not write, or only half, is set aside, where somebody can look
//! at it and no job is in its way.

use std::io;
use std::path::PathBuf;

use super::FolderError;
use crate::audit::shorten;
use crate::job::folder::{CONTROL, Folder, INDEX, LOCK, OUTPUT, SPEC};
use crate::job::{JobId, State};
use crate::spawner::host::Host;

/// What the names of folders begin with that were set aside. The job's id follows, and a number.
const UNREADABLE: &str = ".unreadable.";

/// The longest reason in the log, in bytes: it may quote the file.
const MAX_REASON_BYTES: usize = 500;

/// What a folder tells of its job.
pub(super) enum Told {
    /// It has ended; nothing is to be done.
    Ended,
    /// It got as far as `running`.
    Unfinished(Box<State>),
    /// It did not, or the folder is half removed by a shim that was refusing it.
    Starting,
    /// A file is not what jobworker writes, and why.
    Malformed(String),
    /// A file can't be read.
    Unclear(FolderError),
    /// A newer build wrote it.
    Newer(FolderError),
}

impl Told {
    /// Reads the folder.
    pub(super) fn by(folder: &Folder) -> Self {
        match (folder.spec(), folder.state()) {
            (Err(error @ FolderError::Newer { .. }), _) | (_, Err(error @ FolderError::Newer { .. })) => {
                Self::Newer(error)
            }
            (Err(error @ FolderError::Io { .. }), _) | (_, Err(error @ FolderError::Io { .. })) => {
                Self::Unclear(error)
            }
            (Err(error), _) | (_, Err(error)) => Self::Malformed(error.to_string()),
            (Ok(Some(_)), Ok(Some(state))) if state.finished().is_some() => Self::Ended,
            (Ok(Some(_)), Ok(Some(state))) => Self::Unfinished(Box::new(state)),
            (Ok(Some(_)), Ok(None)) => Self::Starting,
            (Ok(None), Ok(None)) if is_half_removed(folder) => Self::Starting,
            (Ok(None), _) => Self::Malformed(format!("{} is missing", folder.file(SPEC).display())),
        }
    }

    /// The state, where it can be read and is not the end.
    pub(super) fn state(&self) -> Option<&State> {
        match self {
            Self::Unfinished(state) => Some(state),
            _ => None,
        }
    }
}

/// Whether nothing is in a folder but what a shim puts there before there is any output.
fn is_half_removed(folder: &Folder) -> bool {
    let Ok(names) = folder.names() else { return false };
    let own =
        names.iter().all(|name| [CONTROL, INDEX, LOCK, OUTPUT].contains(&&**name) || name.ends_with(".new"));
    own && folder.output_length_bytes().is_ok_and(|bytes| bytes == 0)
}

/// Gives a folder a name that is no job's.
pub(super) fn set_aside(host: &Host, job: JobId, reason: &str) {
    let reason = shorten(reason, MAX_REASON_BYTES);
    match rename(host, job) {
        Ok(aside) => {
            let aside = aside.display();
            tracing::error!(%job, %reason, %aside, "a job's folder can't be read and is set aside");
        }
        Err(error) => {
            tracing::error!(%job, %reason, %error, "a job's folder can't be read, and can't be set aside");
        }
    }
}

/// Under the first number that is free.
fn rename(host: &Host, job: JobId) -> io::Result<PathBuf> {
    let jobs = host.jobs.dir();
    let mut number = 1u64;
    loop {
        let aside = format!("{UNREADABLE}{job}.{number}");
        match jobs.rename_new(&job.to_string(), &aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            renamed => return renamed.map(|()| jobs.path().join(aside)),
        }
    }
}
