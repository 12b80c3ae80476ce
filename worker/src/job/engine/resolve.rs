//! Which job a text means, as clients write it: also of a job that is about to be there.

use super::{Engine, EngineError, blocking, lookup};
use crate::job::JobId;
use crate::policy::Among;
use crate::turns::Turn;

impl Engine {
    /// The job that `text` means: an id, or the beginning of just one job's id. A job that is not there yet because its
    /// start is under way is waited for. `client` is who asks.
    ///
    /// # Errors
    /// When it can't be one, or fits no job or several.
    pub async fn resolve(&self, text: &str, among: Among, client: &str) -> Result<JobId, EngineError> {
        let starting = &self.parts.starting;
        // Both before and after the look: a start may begin, or end, while that lasts.
        let under_way = starting.under_way(text);
        let found = self.look_up(text, &among, client).await;
        if !matches!(found, Err(EngineError::NotFound { .. })) {
            return found;
        }
        match under_way.or_else(|| starting.under_way(text)) {
            Some(start) => {
                start.ended().await;
                self.look_up(text, &among, client).await
            }
            None => found,
        }
    }

    /// Waits, for a moment, until a job that `text` is the id of is there or its start is under way: of two requests that
    /// came together the second may be looked at first. False if that start was refused to this `client`.
    pub async fn begun(&self, text: &str, client: &str) -> bool {
        if let Ok(job) = text.parse() {
            let starting = &self.parts.starting;
            let (begun, folder) = (starting.begun(job, client), self.folder(job));
            if !blocking(move || folder.path().exists()).await {
                begun.await;
            }
        }
        !self.was_refused(text, client)
    }

    /// True if this client's start of the job that `text` is the id of was refused just now.
    pub fn was_refused(&self, text: &str, client: &str) -> bool {
        text.parse().is_ok_and(|job| self.parts.starting.was_refused(job, client))
    }

    /// A client's start of the job that `text` is the id of was refused: what came along with it need not wait.
    pub fn refused_to_start(&self, text: &str, client: &str) {
        if let Ok(job) = text.parse() {
            self.parts.starting.refuse(job, client);
        }
    }

    async fn look_up(&self, text: &str, among: &Among, client: &str) -> Result<JobId, EngineError> {
        // To find out which jobs are one's own is as much work as a list of them.
        let turn = match *among == Among::All || lookup::is_whole(text) {
            true => None,
            false => Some(self.turn(client).await?),
        };
        let (jobs, text, among) = (self.parts.jobs.clone(), text.to_owned(), among.clone());
        blocking(move || {
            let _turn = turn;
            lookup::resolve(&jobs, &text, &among)
        })
        .await
    }

    /// A client's turn to have all jobs' folders read.
    pub(super) async fn turn(&self, client: &str) -> Result<Turn, EngineError> {
        tokio::select! {
            turn = self.parts.lists.take(client) => Ok(turn),
            () = self.parts.shutdown.cancelled() => Err(EngineError::ShuttingDown),
        }
    }
}
