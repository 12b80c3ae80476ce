//! Waiting for a job to change, without polling: its folder is watched.

use std::sync::Arc;

use super::{Engine, EngineError, JobView, blocking};
use crate::job::folder::Folder;
use crate::job::{JobId, State};

impl Engine {
    /// The state of a job, as soon as it has one.
    pub(super) async fn started(&self, job: JobId) -> Result<State, EngineError> {
        self.until(job, |folder| Ok(folder.state()?)).await
    }

    /// The job, as soon as it is finished: it may be removed right after.
    pub(super) async fn finished(&self, job: JobId) -> Result<JobView, EngineError> {
        self.until(job, |folder| Ok(JobView::read_finished(folder)?)).await
    }

    /// What `look` finds in a job's folder, as soon as it finds something. Looks again when the state changes.
    pub(super) async fn until<T, F>(&self, job: JobId, look: F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Fn(&Folder) -> Result<Option<T>, EngineError> + Send + Sync + 'static,
    {
        let look = Arc::new(look);
        let again = || {
            let (folder, look) = (self.folder(job), Arc::clone(&look));
            blocking(move || look(&folder))
        };
        if let Some(found) = again().await? {
            return Ok(found);
        }
        // Then another look, for what came before the watch.
        let (folder, hub, look) = (self.folder(job), self.parts.hub.clone(), Arc::clone(&look));
        let watched = blocking(move || {
            let watch = hub.watch_state(&folder)?;
            Ok::<_, EngineError>((watch, look(&folder)?))
        });
        let (mut watch, mut found) = watched.await?;
        loop {
            if let Some(found) = found {
                return Ok(found);
            }
            tokio::select! {
                changed = watch.changed() => changed.map_err(|_gone| EngineError::not_found(job))?,
                () = self.parts.shutdown.cancelled() => return Err(EngineError::ShuttingDown),
            }
            found = again().await?;
        }
    }
}
