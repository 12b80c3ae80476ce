//! The jobs' places in the list, and whose each is, kept in memory: a page costs what is shown on it.
//!
//! The folder of all jobs is the truth. Its time of change (inode(7)) says whether a job has come or gone since it was
//! read last; only then are names read again, and of a job that is new, whose it is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::EngineError;
use super::page::{Cursor, Page, left_out};
use crate::job::folder::{FolderError, JobsDir};
use crate::job::{JobId, Owner, Whose};

/// A change of the folder within this time of another may not show: file systems count in ticks of some milliseconds.
const TICK: Duration = Duration::from_millis(50);

/// Knows of every job. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Places {
    known: Arc<Mutex<Known>>,
    /// Ids that may be about to be another job's. Beside `known`, which may be locked for as long as a disk takes.
    forgotten: Arc<Mutex<HashSet<JobId>>>,
}

#[derive(Default)]
struct Known {
    /// In the list's order.
    places: BTreeMap<Cursor, Arc<Whose>>,
    created_unix_usec: HashMap<JobId, u64>,
    /// Jobs have few owners; each is here once.
    owners: HashMap<(Owner, Option<String>), Arc<Whose>>,
    /// Jobs that can't be read, or not yet.
    unread: HashSet<JobId>,
    /// The folder's, when it was read; `None` where it has to be read again in any case.
    changed: Option<SystemTime>,
}

impl Places {
    /// The jobs of a page of those that `is_shown`; `None`: of all. And the place behind which the next page begins, if
    /// there is one. May block.
    ///
    /// # Errors
    /// When the folder of the jobs can't be read.
    pub(super) fn page(
        &self,
        jobs: &JobsDir,
        page: Page,
        is_shown: Option<&dyn Fn(&Whose) -> bool>,
    ) -> Result<(Vec<JobId>, Option<Cursor>), EngineError> {
        let mut known = lock(&self.known);
        for id in std::mem::take(&mut *lock(&self.forgotten)) {
            known.forget(id);
            known.changed = None;
        }
        known.refresh(jobs)?;
        Ok(known.page(page, is_shown))
    }

    /// The id may be about to be another job's. Does not wait for a disk.
    pub(super) fn forget(&self, id: JobId) {
        lock(&self.forgotten).insert(id);
    }
}

impl Known {
    fn page(&self, page: Page, is_shown: Option<&dyn Fn(&Whose) -> bool>) -> (Vec<JobId>, Option<Cursor>) {
        let after = page.after.map_or(Bound::Unbounded, Bound::Excluded);
        // Asked once for each owner.
        let mut answers: HashMap<*const Whose, bool> = HashMap::new();
        let mut is_shown = |whose: &Arc<Whose>| {
            is_shown
                .is_none_or(|is_shown| *answers.entry(Arc::as_ptr(whose)).or_insert_with(|| is_shown(whose)))
        };
        let places = self.places.range((after, Bound::Unbounded));
        let mut shown = places.filter(|(_, whose)| is_shown(whose)).map(|(place, _)| *place);
        let page: Vec<_> = shown.by_ref().take(page.size.unwrap_or(usize::MAX)).collect();
        let next = page.last().copied().filter(|_| shown.next().is_some());
        (page.iter().map(|place| place.id()).collect(), next)
    }

    fn refresh(&mut self, jobs: &JobsDir) -> Result<(), EngineError> {
        let path = jobs.path();
        let changed = match fs::metadata(path).and_then(|metadata| metadata.modified()) {
            Ok(changed) => changed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *self = Self::default();
                return Ok(());
            }
            Err(reason) => {
                let path = path.to_owned();
                return Err(FolderError::Io { operation: "examine", path, reason }.into());
            }
        };
        if self.changed == Some(changed) {
            let unread = std::mem::take(&mut self.unread);
            unread.into_iter().for_each(|id| self.read(jobs, id));
            return Ok(());
        }
        // The time first: what changes while names are read shows in the next one.
        let is_settled = SystemTime::now().duration_since(changed).is_ok_and(|age| age > TICK);
        let there: HashSet<_> = jobs.ids()?.into_iter().collect();
        let gone: Vec<_> = self.created_unix_usec.keys().filter(|id| !there.contains(id)).copied().collect();
        gone.into_iter().for_each(|id| self.forget(id));
        self.owners.retain(|_, whose| Arc::strong_count(whose) > 1);
        self.unread.clear();
        for id in there {
            if !self.created_unix_usec.contains_key(&id) {
                self.read(jobs, id);
            }
        }
        self.changed = is_settled.then_some(changed);
        Ok(())
    }

    fn read(&mut self, jobs: &JobsDir, id: JobId) {
        match jobs.folder(id).whose() {
            Ok(Some(whose)) => {
                self.created_unix_usec.insert(id, whose.created_unix_usec);
                let place = Cursor::new(whose.created_unix_usec, id);
                let owner = (whose.owner.clone(), whose.os_user.clone());
                let whose = self.owners.entry(owner).or_insert_with(|| Arc::new(whose));
                self.places.insert(place, Arc::clone(whose));
            }
            Ok(None) => drop(self.unread.insert(id)),
            Err(error) => {
                left_out(id, &error);
                self.unread.insert(id);
            }
        }
    }

    fn forget(&mut self, id: JobId) {
        if let Some(created_unix_usec) = self.created_unix_usec.remove(&id) {
            self.places.remove(&Cursor::new(created_unix_usec, id));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;

    use super::*;
    use crate::job::{Spec, fake, folder};

    fn add(jobs: &JobsDir, created_unix_usec: u64, owner: &str) -> JobId {
        let spec = Spec { created_unix_usec, ..fake::spec(JobId::random(), owner) };
        write(jobs, &spec);
        spec.id
    }

    fn write(jobs: &JobsDir, spec: &Spec) {
        let folder = jobs.folder(spec.id);
        fs::create_dir_all(folder.path()).unwrap();
        fs::write(folder.file(folder::SPEC), serde_json::to_vec(&spec).unwrap()).unwrap();
    }

    /// As if the folder had changed long ago.
    fn settle(jobs: &JobsDir, sec: u64) {
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(sec));
        fs::File::open(jobs.path()).unwrap().set_times(times).unwrap();
    }

    fn ids(places: &Places, jobs: &JobsDir) -> Vec<JobId> {
        places.page(jobs, Page::default(), None).unwrap().0
    }

    #[test]
    fn what_has_not_changed_is_not_read_again() {
        let state_dir = tempfile::tempdir().unwrap();
        let (jobs, places) = (JobsDir::new(state_dir.path()), Places::default());
        assert!(ids(&places, &jobs).is_empty(), "no folder, no jobs");
        let all: Vec<_> =
            (1..=1000).map(|at| add(&jobs, at, if at % 2 == 0 { "alice" } else { "bob" })).collect();
        settle(&jobs, 7);
        assert_eq!(ids(&places, &jobs), all);
        // A look at any of them now would show.
        for id in &all {
            fs::write(jobs.folder(*id).file(folder::SPEC), "{").unwrap();
        }
        assert_eq!(ids(&places, &jobs), all);
        let alices = |whose: &Whose| whose.owner.name == "alice";
        let page = Page { after: None, size: Some(3) };
        let (found, next) = places.page(&jobs, page, Some(&alices)).unwrap();
        assert_eq!(found, [all[1], all[3], all[5]]);
        let (found, _) = places.page(&jobs, Page { after: next, size: Some(1) }, Some(&alices)).unwrap();
        assert_eq!(found, [all[7]]);
        // One has come, one has gone: of those that were there none is read.
        let new = add(&jobs, 2000, "carol");
        fs::remove_dir_all(jobs.folder(all[0]).path()).unwrap();
        assert_eq!(ids(&places, &jobs), [&all[1..], &[new]].concat());
    }

    #[test]
    fn what_comes_or_goes_in_the_same_tick_shows() {
        let state_dir = tempfile::tempdir().unwrap();
        let (jobs, places) = (JobsDir::new(state_dir.path()), Places::default());
        let mut all = Vec::new();
        for at in 0..100 {
            all.push(add(&jobs, at, "alice"));
            assert_eq!(ids(&places, &jobs), all);
        }
        fs::remove_dir_all(jobs.folder(all[50]).path()).unwrap();
        all.remove(50);
        assert_eq!(ids(&places, &jobs), all);
    }

    #[test]
    fn an_id_that_is_used_again_is_another_job() {
        let state_dir = tempfile::tempdir().unwrap();
        let (jobs, places) = (JobsDir::new(state_dir.path()), Places::default());
        let (first, second) = (add(&jobs, 1, "alice"), add(&jobs, 2, "alice"));
        settle(&jobs, 7);
        assert_eq!(ids(&places, &jobs), [first, second]);
        places.forget(first);
        write(&jobs, &Spec { created_unix_usec: 3, ..fake::spec(first, "bob") });
        settle(&jobs, 7);
        assert_eq!(ids(&places, &jobs), [second, first]);
        let bobs = |whose: &Whose| whose.owner.name == "bob";
        assert_eq!(places.page(&jobs, Page::default(), Some(&bobs)).unwrap().0, [first]);
    }

    #[test]
    fn what_can_not_be_read_yet_is_tried_again() {
        let state_dir = tempfile::tempdir().unwrap();
        let (jobs, places) = (JobsDir::new(state_dir.path()), Places::default());
        let id = add(&jobs, 1, "alice");
        let spec = fs::read(jobs.folder(id).file(folder::SPEC)).unwrap();
        fs::write(jobs.folder(id).file(folder::SPEC), "{").unwrap();
        settle(&jobs, 7);
        assert!(ids(&places, &jobs).is_empty());
        fs::write(jobs.folder(id).file(folder::SPEC), spec).unwrap();
        assert_eq!(ids(&places, &jobs), [id]);
    }
}
