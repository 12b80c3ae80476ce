//! `jobs/` for those who write there: the spawner, and what it forks.

use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use nix::unistd::{Gid, Uid};

use super::Readers;
use crate::job::folder::{JOBS, JobsDir};
use crate::job::trusted_dir::{Made, TrustedDir};

/// `<state-dir>/jobs`, open and trusted. All that is written there is reached from it.
#[derive(Clone, Debug)]
pub struct JobsDirWriter {
    dir: Arc<TrustedDir>,
    reader: JobsDir,
}

impl JobsDirWriter {
    /// Opens the jobs' folder of a state folder, and makes both where they are missing: for `worker`, where it is another
    /// user, to read. One that is there keeps its mode.
    ///
    /// # Errors
    /// When one of them can be changed by somebody else, or can't be made or opened; with path, and what to do.
    pub fn make(state_dir: &Path, worker: Option<(Uid, Gid)>) -> io::Result<Self> {
        let readers = Readers { group: worker.map(|(_, gid)| gid) };
        let (state, made) = TrustedDir::make(state_dir, 0o700, worker)?;
        admit(readers, &state, made)?;
        let (jobs, made) = state.make_subdir(JOBS, 0o700)?;
        admit(readers, &jobs, made)?;
        let dir = Arc::new(jobs);
        Ok(Self { reader: JobsDir::below(Arc::clone(&dir)), dir })
    }

    /// The directory.
    pub fn dir(&self) -> &Arc<TrustedDir> {
        &self.dir
    }
}

impl Deref for JobsDirWriter {
    type Target = JobsDir;

    fn deref(&self) -> &JobsDir {
        &self.reader
    }
}

fn admit(readers: Readers, dir: &TrustedDir, made: Made) -> io::Result<()> {
    if made == Made::Now { readers.admit(dir, 0o750) } else { Ok(()) }
}
