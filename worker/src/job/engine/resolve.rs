//! Which job a text means, as clients write it: also of a job that is about to be there.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::{Engine, EngineError, blocking, lookup};
use crate::job::JobId;
use crate::policy::Among;

impl Engine {
    /// The job that `text` means: an id, or the beginning of just one job's id. A job that is not there yet because its
    /// start is under way is waited for.
    ///
    /// # Errors
    /// When it can't be one, or fits no job or several.
    pub async fn resolve(&self, text: &str, among: Among) -> Result<JobId, EngineError> {
        let starting = &self.parts.starting;
        // Both before and after the look: a start may begin, or end, while that lasts.
        let under_way = starting.under_way(text);
        let found = self.look_up(text, &among).await;
        if !matches!(found, Err(EngineError::NotFound { .. })) {
            return found;
        }
        match under_way.or_else(|| starting.under_way(text)) {
            Some(start) => {
                start.ended().await;
                self.look_up(text, &among).await
            }
            None => found,
        }
    }

    /// Waits, for a moment, until a job that `text` is the id of is there or its start is under way: of two requests that
    /// came together the second may be looked at first.
    pub async fn begun(&self, text: &str) {
        if let Ok(job) = text.parse() {
            let (begun, folder) = (self.parts.starting.begun(job), self.folder(job));
            if !blocking(move || folder.path().exists()).await {
                begun.await;
            }
        }
    }

    async fn look_up(&self, text: &str, among: &Among) -> Result<JobId, EngineError> {
        // To find out which jobs are one's own is as much work as a list of them.
        let turn = match *among == Among::All || lookup::is_whole(text) {
            true => None,
            false => Some(self.turn().await?),
        };
        let (jobs, text, among) = (self.parts.jobs.clone(), text.to_owned(), among.clone());
        blocking(move || {
            let _turn = turn;
            lookup::resolve(&jobs, &text, &among)
        })
        .await
    }

    /// To read all jobs' folders.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, EngineError> {
        let turn = Arc::clone(&self.parts.lists).acquire_owned();
        turn.await.map_err(|_closed| EngineError::ShuttingDown)
    }
}
