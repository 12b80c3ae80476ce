//! The list of all jobs, a page at a time: what is held in memory does not grow with what the jobs were given.

use std::fmt;
use std::str::FromStr;

use super::EngineError;
use super::places::Places;
use crate::job::folder::JobsDir;
use crate::job::view::JobView;
use crate::job::{JobId, Whose};

/// A job's place in the list: the oldest first, and of those of one microsecond the one with the lowest id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    created_unix_usec: u64,
    id: JobId,
}

impl Cursor {
    pub(super) fn new(created_unix_usec: u64, id: JobId) -> Self {
        Self { created_unix_usec, id }
    }

    pub(super) fn id(self) -> JobId {
        self.id
    }
}

/// A text that is no [`Cursor`].
#[derive(Debug, thiserror::Error)]
#[error("is not what an answer's next_page_token said")]
pub struct InvalidCursor;

/// Which part of the list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page {
    /// What comes after this place; none: the list's beginning.
    pub after: Option<Cursor>,
    /// At most so many jobs; none: all of them.
    pub size: Option<usize>,
}

/// Reads a page of the jobs that `is_shown`; `None`: of all. Of the page, what `show` makes of each job is held; of the
/// other jobs, nothing is read.
pub(super) fn read<T>(
    places: &Places,
    jobs: &JobsDir,
    page: Page,
    is_shown: Option<&dyn Fn(&Whose) -> bool>,
    show: impl Fn(JobView) -> T,
) -> Result<(Vec<T>, Option<Cursor>), EngineError> {
    let (ids, next) = places.page(jobs, page, is_shown)?;
    let mut shown = Vec::with_capacity(ids.len());
    for id in ids {
        match JobView::read(&jobs.folder(id)) {
            Ok(view) => shown.extend(view.map(&show)),
            Err(error) => left_out(id, &error),
        }
    }
    Ok((shown, next))
}

pub(super) fn left_out(id: JobId, error: &dyn fmt::Display) {
    tracing::warn!(%id, %error, "a job is left out of the list");
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.created_unix_usec, self.id)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (created, id) = text.split_once('.').ok_or(InvalidCursor)?;
        let created_unix_usec = created.parse().map_err(|_| InvalidCursor)?;
        Ok(Self { created_unix_usec, id: id.parse().map_err(|_| InvalidCursor)? })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::job::{Spec, fake, folder};

    fn add(jobs: &JobsDir, created_unix_usec: u64) -> JobId {
        add_of(jobs, "alice", created_unix_usec)
    }

    fn add_of(jobs: &JobsDir, owner: &str, created_unix_usec: u64) -> JobId {
        let spec = Spec { created_unix_usec, ..fake::spec(JobId::random(), owner) };
        let folder = jobs.folder(spec.id);
        fs::create_dir_all(folder.path()).unwrap();
        fs::write(folder.file(folder::SPEC), serde_json::to_vec(&spec).unwrap()).unwrap();
        spec.id
    }

    fn jobs() -> (tempfile::TempDir, JobsDir) {
        let state_dir = tempfile::tempdir().unwrap();
        let jobs = JobsDir::new(state_dir.path());
        (state_dir, jobs)
    }

    fn pages(jobs: &JobsDir, size: usize) -> Vec<Vec<JobId>> {
        let (mut pages, mut after, places) = (Vec::new(), None, Places::default());
        loop {
            let (page, next) =
                read(&places, jobs, Page { after, size: Some(size) }, None, |view| view.spec.id).unwrap();
            pages.push(page);
            // Through its text, as clients send it back.
            after = next.map(|next| next.to_string().parse().unwrap());
            if after.is_none() {
                return pages;
            }
        }
    }

    #[test]
    fn pages_make_the_whole_list_in_order_whatever_their_size() {
        let (_state_dir, jobs) = jobs();
        let mut expected: Vec<_> = [3, 1, 2, 2, 2, 9, 4].map(|at| (at, add(&jobs, at))).to_vec();
        expected.sort_unstable();
        let expected: Vec<_> = expected.into_iter().map(|(_, id)| id).collect();
        for size in 1..=expected.len() + 1 {
            assert_eq!(pages(&jobs, size).concat(), expected, "{size} a page");
            assert!(pages(&jobs, size).iter().all(|page| page.len() <= size && !page.is_empty()));
        }
        let all = read(&Places::default(), &jobs, Page::default(), None, |view| view.spec.id).unwrap();
        assert_eq!((all.0, all.1), (expected, None));
    }

    #[test]
    fn what_is_not_shown_takes_no_place() {
        let (_state_dir, jobs) = jobs();
        let ids =
            [("bob", 1), ("alice", 2), ("bob", 3), ("alice", 4)].map(|(owner, at)| add_of(&jobs, owner, at));
        let is_shown = |whose: &Whose| whose.owner.name == "alice";
        let page = Page { after: None, size: Some(1) };
        let (shown, next) =
            read(&Places::default(), &jobs, page, Some(&is_shown), |view| view.spec.id).unwrap();
        assert_eq!((shown, next.is_some()), (vec![ids[1]], true));
        let page = Page { after: next, size: Some(1) };
        let (shown, next) =
            read(&Places::default(), &jobs, page, Some(&is_shown), |view| view.spec.id).unwrap();
        assert_eq!((shown, next), (vec![ids[3]], None));
    }

    #[test]
    fn a_job_that_can_not_be_read_is_left_out() {
        let (_state_dir, jobs) = jobs();
        let ids = [1, 2, 3].map(|at| add(&jobs, at));
        fs::write(jobs.folder(ids[1]).file(folder::SPEC), "{").unwrap();
        fs::create_dir(jobs.folder(JobId::random()).path()).unwrap();
        assert_eq!(pages(&jobs, 1).concat(), [ids[0], ids[2]]);
    }

    #[test]
    fn no_jobs_folder_means_no_jobs() {
        let (_state_dir, jobs) = jobs();
        assert_eq!(pages(&jobs, 5), [Vec::new()]);
    }

    #[test]
    fn texts_that_are_no_place_are_refused() {
        let id = JobId::random();
        for text in
            [String::new(), ".".into(), "1".into(), format!("x.{id}"), "1.x".into(), format!("-1.{id}")]
        {
            text.parse::<Cursor>().expect_err(&text);
        }
    }
}
