//! The start of a job, once or again: a request that is repeated, because its answer was lost, finds the job that is there.

use super::{Engine, EngineError, JobView};
use crate::job::folder::Folder;
use crate::job::spec::FORMAT_VERSION;
use crate::job::{Spec, Whose};
use crate::policy::{Claim, Permit, action};
use crate::shim::clock;
use crate::spawner::protocol::StartReply;

impl Engine {
    /// Starts a job. The same request again, by the same owner under the same id, returns the job that is there.
    ///
    /// # Errors
    /// When it was refused, the id is another job's, or the spawner can't be reached.
    pub async fn start(&self, permit: Permit<action::Start>) -> Result<JobView, EngineError> {
        let (owner, claim) = (permit.identity().owner(), permit.claim().clone());
        let max_running = permit.max_running().cloned();
        let action::Start { id, request } = permit.into_action();
        let _under_way = self.parts.starting.begin(id);
        let output_limit = Some(request.output_limit.unwrap_or(self.parts.output_limit));
        let created_unix_usec = clock::unix_usec();
        let spec = Spec { version: FORMAT_VERSION, id, request, owner, created_unix_usec, output_limit };
        let client = spec.owner.name.clone();
        let started = match max_running {
            None => self.start_now(&spec, &claim).await,
            Some(max) => self.start_counted(spec, claim, max).await,
        };
        // Before it is under way no more: who waits for it finds one or the other.
        if started.as_ref().is_err_and(|error| !matches!(error, EngineError::Exists { .. })) {
            self.parts.starting.refuse(id, &client);
        }
        started
    }

    pub(super) async fn start_now(&self, spec: &Spec, claim: &Claim) -> Result<JobView, EngineError> {
        let id = spec.id;
        self.parts.running.forget(id).await;
        self.parts.places.forget(id);
        // Twice, because a job that is there may prove not to be startable, and be gone again.
        for _ in 0..2 {
            match self.parts.spawner.start(spec).await? {
                (StartReply::Started, Some(state)) => return Ok(JobView::started(spec.clone(), state)),
                (StartReply::Started, None) => return self.view(id).await,
                (StartReply::Refused(refusal), _) => return Err(refusal.into()),
                (StartReply::Exists, _) => match self.same_job(spec, claim).await {
                    Err(EngineError::NotFound { .. }) => {}
                    other => return other,
                },
            }
        }
        Err(EngineError::Exists { id })
    }

    /// The job that is there under the id of `spec`, once it has started, if it is the same.
    pub(super) async fn same_job(&self, spec: &Spec, claim: &Claim) -> Result<JobView, EngineError> {
        let (asked, claim) = (spec.clone(), claim.clone());
        let look = move |folder: &Folder| {
            let Some(there) = folder.spec()? else { return Ok(None) };
            if there.request != asked.request || !claim.owns(&Whose::from(&there)) {
                return Err(EngineError::Exists { id: asked.id });
            }
            Ok(folder.state()?)
        };
        self.until(spec.id, look).await?;
        self.view(spec.id).await
    }
}
