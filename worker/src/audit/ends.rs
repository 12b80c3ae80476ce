//! Ends of jobs in the audit log: each told once, also those that happened while no worker ran.
//!
//! ```text
//!  census ──▶ an end ──▶ told before? ──no──▶ its line ──(written)──▶ `<state-dir>/worker/ends-told`
//! ```
//!
//! The file holds what was told, a line for each job, added after the job's own line is written: a worker that is killed
//! in between tells that end twice, never not at all. Jobs that are gone are left out when a worker starts. Without the
//! file nobody knows what was told, so ends from before the worker are not.
//!
//! A loss of power may take lines of the audit log that the kernel had taken, and leave those of this file. So what was
//! told since the audit log was last synced counts only in the same boot (`boot` and `synced` in the file).

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::emit_end;
use crate::job::JobId;
use crate::job::census::{JobEnd, Listener};
use crate::job::folder::JobsDir;
use crate::shim::clock;

/// In the state folder: what is the worker's own.
const FOLDER: &str = "worker";
const ENDS_TOLD: &str = "ends-told";
/// Held by the worker that keeps the file.
const LOCK: &str = "lock";

/// At least so long is the file before it is written anew while the worker runs, in bytes: some 80,000 ends.
const REWRITE_AT_BYTES: u64 = 4 << 20;

const BOOT: &str = "boot ";
const SYNCED: &str = "synced";

/// An end that was told. An id may be given anew, to a job that ends at another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) job: JobId,
    pub(super) at_unix_usec: u64,
}

/// Where it is noted what was told.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// None: not opened yet, or it can't be.
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    /// Its length when it is written anew without what is gone, in bytes.
    rewrite_at_bytes: u64,
    jobs: JobsDir,
    /// Whether a complaint was made.
    complained: bool,
    _lock: File,
}

/// What was told before this worker ran.
enum Past {
    /// Nobody knows.
    Unknown,
    Known(HashMap<JobId, u64>),
}

/// Tells the audit log of ends.
pub(crate) struct Ends {
    folder: PathBuf,
    jobs: JobsDir,
    /// The audit log can be synced, and is in time.
    is_synced: bool,
    book: Arc<Book>,
    past: Past,
}

impl Ends {
    pub(super) fn new(state_dir: &Path, is_synced: bool, book: Arc<Book>) -> Self {
        let (folder, jobs) = (state_dir.join(FOLDER), JobsDir::new(state_dir));
        Self { folder, jobs, is_synced, book, past: Past::Unknown }
    }

    /// Whether it is news, and if so whether it is to be told or just to be noted.
    fn is_to_be_told(&mut self, end: &JobEnd<'_>) -> bool {
        match &mut self.past {
            Past::Unknown => !end.is_from_before,
            Past::Known(told) => told.get(&end.job) != Some(&end.finished.at_unix_usec),
        }
    }

    fn open(&mut self) -> io::Result<()> {
        make_folder(&self.folder)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.folder.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another worker on this state folder does"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let boot = clock::boot_id();
        let path = self.folder.join(ENDS_TOLD);
        let (past, told) = match fs::read_to_string(&path) {
            Ok(text) => {
                let there: HashSet<_> = self.jobs.ids().map_err(io::Error::other)?.into_iter().collect();
                let told: HashMap<_, _> = told(&text, &boot).filter(|told| there.contains(&told.0)).collect();
                (Past::Known(told.clone()), told)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Past::Unknown, HashMap::new()),
            Err(error) => return Err(error),
        };
        let mut text: String = told.iter().map(|(job, at)| format!("{job} {at}\n")).collect();
        text += &format!("{SYNCED}\n");
        if self.is_synced {
            text += &format!("{BOOT}{boot}\n");
        }
        let file = replace(&path, &text)?;
        let (jobs, rewrite_at_bytes) = (self.jobs.clone(), rewrite_at(&text));
        *self.book.open() = Some(Open { path, file, rewrite_at_bytes, jobs, complained: false, _lock: lock });
        self.past = past;
        Ok(())
    }
}

impl Listener for Ends {
    fn begin(&mut self) {
        if let Err(error) = self.open() {
            let folder = self.folder.display();
            tracing::warn!(
                %error, %folder,
                "can't keep account of the ends that were told: those of jobs that end while no worker runs won't be"
            );
        }
    }

    fn ended(&mut self, end: &JobEnd<'_>) {
        let told = Told { job: end.job, at_unix_usec: end.finished.at_unix_usec };
        if self.is_to_be_told(end) {
            emit_end(end, told, &self.book);
        } else if matches!(self.past, Past::Unknown) {
            self.book.note(&told);
        }
    }
}

impl Book {
    /// From now on this end was told.
    pub(super) fn note(&self, told: &Told) {
        self.append(&format!("{} {}\n", told.job, told.at_unix_usec));
    }

    /// What was told until now was told for good.
    pub(super) fn synced(&self) {
        self.append(&format!("{SYNCED}\n"));
    }

    fn append(&self, line: &str) {
        let mut open = self.open();
        let Some(open) = &mut *open else { return };
        if let Err(error) = open.file.write_all(line.as_bytes())
            && !std::mem::replace(&mut open.complained, true)
        {
            tracing::error!(%error, "can't note which ends of jobs were told: after a restart they are told again");
        }
        if open.file.metadata().is_ok_and(|metadata| metadata.len() > open.rewrite_at_bytes)
            && let Err(error) = open.forget_the_gone()
        {
            open.rewrite_at_bytes *= 2;
            tracing::warn!(%error, "the file of the ends that were told can't be shortened yet");
        }
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Writes the file anew, without jobs that are not there any more.
    fn forget_the_gone(&mut self) -> io::Result<()> {
        let there: HashSet<_> = self.jobs.ids().map_err(io::Error::other)?.into_iter().collect();
        let text = without_gone(&fs::read_to_string(&self.path)?, &there);
        self.file = replace(&self.path, &text)?;
        self.rewrite_at_bytes = rewrite_at(&text);
        Ok(())
    }
}

fn rewrite_at(text: &str) -> u64 {
    REWRITE_AT_BYTES.max(2 * text.len() as u64)
}

/// The lines of jobs that are there, and between them what says how sure they are.
fn without_gone(text: &str, there: &HashSet<JobId>) -> String {
    let is_there = |job: &str| job.parse().is_ok_and(|job| there.contains(&job));
    let mut kept: Vec<&str> = Vec::new();
    for line in text.lines() {
        let is_kept = match line.split_once(' ') {
            _ if line.starts_with(BOOT) => true,
            Some((job, _)) => is_there(job),
            None => line == SYNCED && kept.last() != Some(&SYNCED),
        };
        if is_kept {
            kept.push(line);
        }
    }
    kept.iter().map(|line| format!("{line}\n")).collect()
}

/// What a file tells to be told. A line that is none of ours is passed over: a part of one, after a full disk.
fn told(text: &str, this_boot: &str) -> impl Iterator<Item = (JobId, u64)> {
    let (mut sure, mut unsure) = (Vec::new(), Vec::new());
    let mut is_lasting = true;
    for line in text.lines() {
        if line == SYNCED {
            sure.append(&mut unsure);
        } else if let Some(boot) = line.strip_prefix(BOOT) {
            is_lasting = boot == this_boot;
        } else if let Some((job, at)) = line.split_once(' ')
            && let (Ok(job), Ok(at)) = (job.parse(), at.parse())
        {
            if is_lasting { &mut sure } else { &mut unsure }.push((job, at));
        }
    }
    sure.into_iter()
}

fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn replace(path: &Path, text: &str) -> io::Result<File> {
    let new = path.with_extension("new");
    let options = |options: &mut OpenOptions| options.append(true).create(true).mode(0o600).open(&new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = options(&mut OpenOptions::new())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_in(text: &str) -> Vec<u64> {
        let job = "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f";
        told(&text.replace('J', job), "now").map(|(_, at)| at).collect()
    }

    #[test]
    fn what_a_loss_of_power_may_have_undone_was_not_told() {
        assert_eq!(told_in("J 1\nJ 2\n"), [1, 2]);
        assert_eq!(told_in("J 1\nboot then\nJ 2\nsynced\nJ 3\n"), [1, 2]);
        assert_eq!(told_in("boot then\nJ 1\nboot now\nJ 2\n"), [2]);
        assert_eq!(told_in("boot now\nJ 1\nsynced\nJ 2\n"), [1, 2]);
    }

    #[test]
    fn only_jobs_that_are_there_are_kept_and_how_sure_they_are() {
        let (here, gone) = (JobId::random(), JobId::random());
        let text = |text: &str| text.replace('H', &here.to_string()).replace('G', &gone.to_string());
        let there = HashSet::from([here]);
        let kept = |before: &str| without_gone(&text(before), &there);
        assert_eq!(
            kept("G 1\nH 2\nsynced\nboot b\nG 3\nsynced\nsynced\nH 4\n"),
            text("H 2\nsynced\nboot b\nsynced\nH 4\n")
        );
        assert_eq!(kept("G 1\nG 2\nsyn\n"), "");
    }

    #[test]
    fn parts_of_lines_are_nothing() {
        assert_eq!(told_in("J\nJ 1x\n\nJ 2\nJ 3 4\n3f2b 5\nJ 6"), [2, 6]);
    }
}
