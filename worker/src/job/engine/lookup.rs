//! Which jobs there are, by their folders.

use super::EngineError;
use crate::job::JobId;
use crate::job::folder::{FolderError, JobsDir};
use crate::policy::{Among, Claim};

/// A whole id's length, in characters.
const ID_LENGTH: usize = 36;

/// Whether a text is as long as an id, not the beginning of one.
pub(super) fn is_whole(text: &str) -> bool {
    text.len() == ID_LENGTH
}

/// The job that `text` means: an id, or the beginning of just one among those that it is looked for among.
pub(super) fn resolve(jobs: &JobsDir, text: &str, among: &Among) -> Result<JobId, EngineError> {
    let invalid = || EngineError::InvalidJob { text: text.chars().take(64).collect() };
    let is_hex = |c: char| c.is_ascii_hexdigit();
    let begins_well = text.starts_with(is_hex) && text.chars().all(|c| is_hex(c) || c == '-');
    if !begins_well || text.len() > ID_LENGTH {
        return Err(invalid());
    }
    if is_whole(text) {
        let id: JobId = text.parse().map_err(|_| invalid())?;
        let path = jobs.folder(id).path().to_owned();
        return match path.try_exists() {
            Ok(true) => Ok(id),
            Ok(false) => Err(EngineError::not_found(id)),
            Err(reason) => Err(FolderError::Io { operation: "examine", path, reason }.into()),
        };
    }
    let lower = text.to_ascii_lowercase();
    let fitting = jobs.ids()?.into_iter().filter(|id| id.to_string().starts_with(&lower)).collect();
    let mut matches = known(jobs, fitting, among);
    matches.sort_unstable();
    match matches.as_slice() {
        [] => Err(EngineError::NotFound { text: text.to_owned() }),
        [id] => Ok(*id),
        _ => Err(EngineError::Ambiguous { text: text.to_owned(), matches }),
    }
}

/// A job that can't be read is nobody's own.
fn known(jobs: &JobsDir, fitting: Vec<JobId>, among: &Among) -> Vec<JobId> {
    let own = |claim: &Claim| -> Vec<_> {
        let is_own = |id: &&JobId| matches!(jobs.folder(**id).whose(), Ok(Some(whose)) if claim.owns(&whose));
        fitting.iter().filter(is_own).copied().collect()
    };
    match among {
        Among::All => fitting,
        Among::Own(claim) => own(claim),
        Among::OwnFirst(claim) => match own(claim) {
            none if none.is_empty() => fitting,
            own => own,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::job::fake;

    fn jobs(ids: &[&str]) -> (tempfile::TempDir, JobsDir) {
        let state_dir = tempfile::tempdir().unwrap();
        let jobs = JobsDir::new(state_dir.path());
        for id in ids {
            fs::create_dir_all(jobs.path().join(id)).unwrap();
        }
        (state_dir, jobs)
    }

    const A: &str = "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f";
    const B: &str = "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e70";
    const C: &str = "a0000000-0000-4000-8000-000000000000";

    #[test]
    fn an_id_or_a_unique_beginning_is_a_job() {
        let (_state_dir, jobs) = jobs(&[A, B, C, "not-a-job"]);
        let upper = A.to_uppercase();
        for (text, id) in [
            (A, A),
            (B, B),
            ("a", C),
            (&C[..35], C),
            (&A[..35], A),
            (&upper, A),
            (&upper[..35], A),
            ("A0000000-", C),
        ] {
            assert_eq!(resolve(&jobs, text, &Among::All).unwrap().to_string(), id, "{text}");
        }
    }

    #[test]
    fn an_ambiguous_beginning_tells_what_it_fits() {
        let (_state_dir, jobs) = jobs(&[A, B, C]);
        let error = resolve(&jobs, "3f", &Among::All).unwrap_err();
        assert_eq!(error.to_string(), format!("\"3f\" fits 2 jobs: {A}, {B}"));
        assert!(matches!(error, EngineError::Ambiguous { matches, .. } if matches.len() == 2));
    }

    #[test]
    fn at_most_five_are_named() {
        let ids: Vec<_> = (0..9).map(|n| format!("a0000000-0000-4000-8000-00000000000{n}")).collect();
        let (_state_dir, jobs) = jobs(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        let error = resolve(&jobs, "a0", &Among::All).unwrap_err().to_string();
        assert!(error.contains("fits 9 jobs") && error.ends_with(&format!("{}, …", ids[4])), "{error}");
    }

    #[test]
    fn what_is_not_there_is_not_found_and_what_can_not_be_is_invalid() {
        let (_state_dir, jobs) = jobs(&[A]);
        for text in ["b", C, &C[..35]] {
            assert!(
                matches!(resolve(&jobs, text, &Among::All), Err(EngineError::NotFound { text: t }) if t == text),
                "{text}"
            );
        }
        let too_long = format!("{A}0");
        for text in ["", "-", "x", "3G2B", "../..", "3f2b8c1e-9d4a-1c6b-8f0e-2a1b3c4d5e6f", &too_long, "é"] {
            let error = resolve(&jobs, text, &Among::All).unwrap_err();
            assert!(matches!(error, EngineError::InvalidJob { .. }), "{text}: {error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn among_ones_own_there_are_no_others() {
        let state_dir = tempfile::tempdir().unwrap();
        let jobs = JobsDir::new(state_dir.path());
        for (id, owner) in [(A, "alice"), (B, "bob"), (C, "bob")] {
            fake::FakeShim::prepare(&jobs, &fake::spec(id.parse().unwrap(), owner));
        }
        fs::create_dir_all(jobs.path().join("3f000000-0000-4000-8000-000000000000")).unwrap();
        let alices = || Claim::Name("alice".to_owned());
        let own = |text| resolve(&jobs, text, &Among::Own(alices())).map(|id| id.to_string());
        let own_first = |text| resolve(&jobs, text, &Among::OwnFirst(alices())).map(|id| id.to_string());
        for fits_both in ["3f", &A[..34]] {
            assert_eq!(
                (own(fits_both).unwrap(), own_first(fits_both).unwrap()),
                (A.to_owned(), A.to_owned())
            );
        }
        assert!(
            matches!(own("a"), Err(EngineError::NotFound { text }) if text == "a"),
            "as if it were not there"
        );
        assert_eq!(own_first("a").unwrap(), C);
        assert_eq!(own(C).unwrap(), C, "a whole id is found; the policy has the last word");
    }

    #[test]
    fn no_jobs_folder_means_no_jobs() {
        let state_dir = tempfile::tempdir().unwrap();
        let jobs = JobsDir::new(state_dir.path());
        assert!(matches!(resolve(&jobs, "a", &Among::All), Err(EngineError::NotFound { .. })));
    }
}
