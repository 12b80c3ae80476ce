//! How many jobs of one owner have not ended, for policies that bound their number (`running`). An owner is a name here,
//! whatever the policy calls a client's own: a renewed certificate, or another OS user, is nobody else.
//!
//! Counted in the jobs' folders, like everything: after a restart of the worker it is right at once. Two starts at
//! the same moment can't both take the last place: whoever counts holds the lock, counts those that are about to start
//! as well, and is one of them itself before the lock is given up. A start that took a place keeps it until the
//! spawner has answered, whether its client still waits or not; from then on its folder tells.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::Mutex;

use super::{Engine, EngineError, JobView, blocking};
use crate::job::folder::{Folder, JobsDir};
use crate::job::{JobId, Spec, State};
use crate::policy::{Claim, MaxRunning};

/// Who counts, and what need not be read again.
#[derive(Clone, Default)]
pub(super) struct Running(Arc<Mutex<Counted>>);

#[derive(Default)]
struct Counted {
    /// With their owners' names.
    starting: HashMap<JobId, String>,
    /// Jobs that have ended never run again; but an id can be given anew.
    ended: HashSet<JobId>,
}

impl Running {
    /// An id may be about to be another job's.
    pub(super) async fn forget(&self, id: JobId) {
        self.0.lock().await.ended.remove(&id);
    }

    /// Takes a place for a job, if there is one.
    async fn enter(
        &self,
        jobs: &JobsDir,
        id: JobId,
        owner: &str,
        max: &MaxRunning,
    ) -> Result<bool, EngineError> {
        let mut counted = Arc::clone(&self.0).lock_owned().await;
        let (jobs, owner, max) = (jobs.clone(), owner.to_owned(), max.jobs.get());
        blocking(move || {
            let running = counted.running(&jobs, id, &owner)?;
            let is_free = running < usize::try_from(max).unwrap_or(usize::MAX);
            if is_free {
                counted.starting.insert(id, owner);
            }
            Ok(is_free)
        })
        .await
    }

    async fn leave(&self, id: JobId) {
        self.0.lock().await.starting.remove(&id);
    }
}

impl Counted {
    /// The jobs of `owner` but `id` that have not ended, or are about to start. Blocks.
    fn running(&mut self, jobs: &JobsDir, id: JobId, owner: &str) -> Result<usize, EngineError> {
        let there: HashSet<_> = jobs.ids()?.into_iter().collect();
        self.ended.retain(|ended| there.contains(ended));
        let mut running: HashSet<_> =
            self.starting.iter().filter(|(_, of)| *of == owner).map(|(id, _)| *id).collect();
        for other in there {
            let folder = jobs.folder(other);
            if self.ended.contains(&other) {
                continue;
            }
            if !has_ended(&folder) {
                running.extend(belongs_to(&folder, owner).then_some(other));
            } else if !self.starting.contains_key(&other) {
                self.ended.insert(other);
            }
        }
        running.remove(&id);
        Ok(running.len())
    }
}

/// What can't be read has not ended as far as is known.
fn has_ended(folder: &Folder) -> bool {
    folder.state().is_ok_and(|state| state.as_ref().and_then(State::finished).is_some())
}

fn belongs_to(folder: &Folder, owner: &str) -> bool {
    folder.whose().is_ok_and(|whose| whose.is_some_and(|whose| whose.owner.name == owner))
}

impl Engine {
    /// Starts a job where its owner has a place left. In a task of its own: the client may give up its call at any
    /// moment, and would free the place before the job's folder is there.
    pub(super) async fn start_counted(
        &self,
        spec: Spec,
        claim: Claim,
        max: MaxRunning,
    ) -> Result<JobView, EngineError> {
        let engine = self.clone();
        let start = async move {
            let running = &engine.parts.running;
            if !running.enter(&engine.parts.jobs, spec.id, &spec.owner.name, &max).await? {
                return engine.start_without_place(&spec, &claim, max).await;
            }
            let started = engine.start_now(&spec, &claim).await;
            running.leave(spec.id).await;
            started
        };
        match tokio::spawn(start).await {
            Ok(started) => started,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// The same request again may be answered by the job that is there.
    async fn start_without_place(
        &self,
        spec: &Spec,
        claim: &Claim,
        max: MaxRunning,
    ) -> Result<JobView, EngineError> {
        match self.same_job(spec, claim).await {
            Err(EngineError::NotFound { .. }) => {
                let owner = spec.owner.name.clone();
                Err(EngineError::TooManyRunning { owner, max: max.jobs, rule: max.rule })
            }
            other => other,
        }
    }
}
