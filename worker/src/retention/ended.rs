//! What is known of ended jobs. Nothing leaves `finished`, so each folder is read and measured once.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::rule::Ended;
use crate::job::folder::{Folder, JobsDir};
use crate::job::{JobId, State};

/// What the kernel counts `st_blocks` in, whatever the file system's blocks are (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// The jobs that were seen to have ended and are there; some 60 bytes for each.
#[derive(Debug, Default)]
pub(super) struct EndedJobs {
    known: HashMap<JobId, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    finished_unix_usec: u64,
    /// None: it could not be removed, and is left.
    bytes: Option<u64>,
}

impl EndedJobs {
    /// Learns which jobs have ended and which are gone. May block.
    pub(super) fn look(&mut self, jobs: &JobsDir) {
        let ids = match jobs.ids() {
            Ok(ids) => ids,
            Err(error) => {
                tracing::warn!(%error, "retention can't look for ended jobs; the next attempt follows");
                return;
            }
        };
        for job in &ids {
            if !self.known.contains_key(job)
                && let Some(known) = Known::of(&jobs.folder(*job))
            {
                self.known.insert(*job, known);
            }
        }
        let there: HashSet<_> = ids.into_iter().collect();
        self.known.retain(|job, _| there.contains(job));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// All that may be removed, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Ended> + '_ {
        self.known.iter().filter_map(|(job, known)| {
            let Known { finished_unix_usec, bytes } = *known;
            Some(Ended { job: *job, finished_unix_usec, bytes: bytes? })
        })
    }

    /// When a job ended, as far as is known.
    pub(super) fn finished_unix_usec(&self, job: JobId) -> Option<u64> {
        self.known.get(&job).map(|known| known.finished_unix_usec)
    }

    /// It is gone, or is not what it was.
    pub(super) fn forget(&mut self, job: JobId) {
        self.known.remove(&job);
    }

    /// It can't be removed, and is not tried again.
    pub(super) fn leave(&mut self, job: JobId) {
        if let Some(known) = self.known.get_mut(&job) {
            known.bytes = None;
        }
    }
}

impl Known {
    fn of(folder: &Folder) -> Option<Self> {
        let finished_unix_usec = finished_unix_usec(folder)?;
        let bytes = disk_bytes(folder.path()).inspect_err(|error| {
            tracing::warn!(folder = %folder.path().display(), %error, "retention can't measure a job's folder");
        });
        Some(Self { finished_unix_usec, bytes: Some(bytes.ok()?) })
    }
}

/// When a job ended; none when it has not, is gone, or can't be read. May block.
pub(super) fn finished_unix_usec(folder: &Folder) -> Option<u64> {
    let state = folder.state().inspect_err(|error| {
        tracing::debug!(%error, "retention leaves a job alone that it can't read");
    });
    state.ok()?.as_ref().and_then(State::finished).map(|finished| finished.at_unix_usec)
}

/// The bytes that a folder and its files use: a hole uses none, whatever the file's length.
fn disk_bytes(path: &Path) -> io::Result<u64> {
    let mut blocks = fs::symlink_metadata(path)?.blocks();
    for entry in fs::read_dir(path)? {
        match entry?.metadata() {
            Ok(metadata) => blocks += metadata.blocks(),
            // What does not last goes while this looks.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(blocks * BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::job::Outcome;
    use crate::job::fake::{self, FakeShim};

    fn job(jobs: &JobsDir) -> (JobId, FakeShim) {
        let job = JobId::random();
        (job, FakeShim::start(jobs, &fake::spec(job, "alice")))
    }

    #[test]
    fn only_what_has_ended_and_is_there_is_known() {
        let state_dir = tempfile::tempdir().unwrap();
        let jobs = JobsDir::new(state_dir.path());
        let ((ended, shim), (running, other)) = (job(&jobs), job(&jobs));
        let damaged = job(&jobs).1;
        fs::write(damaged.folder().file("state.json"), "{").unwrap();
        shim.finish(Outcome::Exited { code: 0 });
        let mut seen = EndedJobs::default();
        seen.look(&jobs);
        let all: Vec<_> = seen.iter().map(|seen| (seen.job, seen.finished_unix_usec)).collect();
        assert_eq!(all, [(ended, 2_000_000)]);

        other.exit(1);
        fs::remove_dir_all(shim.folder().path()).unwrap();
        seen.look(&jobs);
        assert_eq!(seen.iter().map(|seen| seen.job).collect::<Vec<_>>(), [running]);
    }

    #[test]
    fn a_folder_is_read_once() {
        let state_dir = tempfile::tempdir().unwrap();
        let jobs = JobsDir::new(state_dir.path());
        let (ended, shim) = job(&jobs);
        shim.exit(0);
        let mut seen = EndedJobs::default();
        seen.look(&jobs);
        // Nothing that ended changes; if it did, nobody would notice.
        let state = fs::read_to_string(shim.folder().file("state.json")).unwrap();
        fs::write(shim.folder().file("state.json"), state.replace("2000000", "3000000")).unwrap();
        seen.look(&jobs);
        assert_eq!(seen.iter().map(|seen| seen.job).collect::<Vec<_>>(), [ended]);
        assert_eq!(seen.finished_unix_usec(ended), Some(2_000_000));
        assert_eq!(finished_unix_usec(shim.folder()), Some(3_000_000), "the look before a job goes does");
        seen.leave(ended);
        assert_eq!((seen.iter().count(), seen.finished_unix_usec(ended)), (0, Some(2_000_000)));
        seen.forget(ended);
        assert_eq!(seen.finished_unix_usec(ended), None);
    }

    #[test]
    fn what_counts_is_what_is_allocated() {
        let folder = tempfile::tempdir().unwrap();
        let empty = disk_bytes(folder.path()).unwrap();
        let sparse = File::create(folder.path().join("output")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        assert!(disk_bytes(folder.path()).unwrap() < empty + (1 << 20), "a hole is nothing");
        sparse.write_all_at(&vec![b'x'; 2 << 20], 1 << 20).unwrap();
        sparse.sync_all().unwrap();
        let used = disk_bytes(folder.path()).unwrap() - empty;
        assert!((2 << 20..3 << 20).contains(&used), "{used}");
    }
}
