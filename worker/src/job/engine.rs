//! The engine: what the service may ask of jobs. Every method takes the policy's [`Permit`] for just that.
//!
//! It keeps nothing: a job is looked up in its folder each time, asked through its `control` FIFO, and waited for by
//! watching its folder. A job from before a restart of the worker is like any other.

mod error;
mod lookup;
mod page;
mod places;
mod request;
mod resolve;
mod running;
mod start;
mod starting;
mod until;

use std::sync::Arc;

use jobworker_limits::OutputLimit;
use tokio::task;
use tokio_util::sync::CancellationToken;

pub use self::error::EngineError;
pub use self::page::{Cursor, InvalidCursor, Page};
pub use super::process::{ProcessStatus, Remaining};
pub use super::view::{JobView, Live};
pub use crate::output::follower::{Event, Follower, From, Gap, GapReason};

use self::places::Places;
pub(crate) use self::request::describe;
use self::request::send;
use self::running::Running;
use self::starting::Starting;
use super::census::Census;
use super::folder::{Folder, JobsDir};
use super::{JobId, Whose};
use crate::output::follower::Selection;
use crate::output::hub::Hub;
use crate::output::index::Kind;
use crate::policy::{Permit, action};
use crate::shim::control::Control;
use crate::spawner::client::SpawnerClient;
use crate::spawner::protocol::RemoveReply;
use crate::turns::Turns;

/// Starts, ends, shows and follows jobs. Clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    parts: Arc<Parts>,
}

/// What a stop has come to.
#[derive(Debug)]
pub struct Stopped {
    /// The finished job.
    pub view: JobView,
    /// It was finished before it could be asked to end.
    pub already_ended: bool,
}

/// Lists that are made at a time: each may read all jobs' folders, and holds what it has read of them.
const LISTS_AT_A_TIME: usize = 2;

/// What was removed.
#[derive(Debug)]
pub struct Removed {
    /// The job.
    pub id: JobId,
    /// As it was; none where its folder could not be read.
    pub view: Option<JobView>,
}

struct Parts {
    jobs: JobsDir,
    lists: Turns,
    places: Places,
    running: Running,
    spawner: Arc<SpawnerClient>,
    hub: Hub,
    output_limit: OutputLimit,
    shutdown: CancellationToken,
    starting: Starting,
    census: Census,
}

impl Engine {
    /// `output_limit` is that of jobs that name none. `shutdown` ends whatever waits or follows, with
    /// [`EngineError::ShuttingDown`]. Jobs live on.
    pub fn new(
        jobs: JobsDir,
        spawner: impl Into<Arc<SpawnerClient>>,
        hub: Hub,
        output_limit: OutputLimit,
        shutdown: CancellationToken,
        census: Census,
    ) -> Self {
        let (lists, spawner) = (Turns::new(LISTS_AT_A_TIME), spawner.into());
        Self {
            parts: Arc::new(Parts {
                jobs,
                lists,
                places: Places::default(),
                running: Running::default(),
                spawner,
                hub,
                output_limit,
                shutdown,
                starting: Starting::default(),
                census,
            }),
        }
    }

    /// Whose a job is, for the policy to decide by.
    ///
    /// # Errors
    /// When there is no such job, or its folder can't be read.
    pub async fn whose(&self, job: JobId) -> Result<Whose, EngineError> {
        let folder = self.folder(job);
        blocking(move || folder.whose()).await?.ok_or_else(|| EngineError::not_found(job))
    }

    /// Ends a job and returns when it is finished. One that is finished already is fine.
    ///
    /// # Errors
    /// When there is no such job, its shim can't be asked, or the worker goes down.
    pub async fn stop(&self, permit: Permit<action::Stop>) -> Result<Stopped, EngineError> {
        let by = permit.identity().name.clone();
        let action::Stop { job, signal, grace } = permit.into_action();
        let grace_msec = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.started(job).await?;
        let asked = self.ask(job, Control::Stop { signal: signal.as_raw(), grace_msec, by }).await;
        if let Err(error) = asked {
            let view = self.view(job).await?;
            return if view.is_finished() { Ok(Stopped { view, already_ended: true }) } else { Err(error) };
        }
        Ok(Stopped { view: self.finished(job).await?, already_ended: false })
    }

    /// A job as of now.
    ///
    /// # Errors
    /// When there is no such job, or its folder can't be read.
    pub async fn status(&self, permit: Permit<action::Status>) -> Result<JobView, EngineError> {
        self.view(permit.into_action().job).await
    }

    /// A page of the jobs that the permit reaches, oldest first, each as `show` makes it of a job; and where the next page
    /// begins, if there is one. A job whose folder can't be read is left out and told of in the log.
    ///
    /// # Errors
    /// When the folder of the jobs can't be read, or the worker goes down.
    pub async fn list<T: Send + 'static>(
        &self,
        permit: Permit<action::List>,
        page: Page,
        show: impl Fn(JobView) -> T + Send + 'static,
    ) -> Result<(Vec<T>, Option<Cursor>), EngineError> {
        let turn = self.turn(&permit.identity().name).await?;
        let (jobs, places) = (self.parts.jobs.clone(), self.parts.places.clone());
        blocking(move || {
            // Kept by the work, which goes on though nobody may wait for it any more.
            let _turn = turn;
            let is_shown = |whose: &Whose| permit.reaches(whose);
            page::read(&places, &jobs, page, (!permit.reaches_any()).then_some(&is_shown), show)
        })
        .await
    }

    /// Returns when the job is finished.
    ///
    /// # Errors
    /// When there is no such job, or not any more, or the worker goes down.
    pub async fn wait(&self, permit: Permit<action::Wait>) -> Result<JobView, EngineError> {
        self.finished(permit.into_action().job).await
    }

    /// Sends a signal to a running job.
    ///
    /// # Errors
    /// When there is no such job, it is not running, or its shim can't be asked.
    pub async fn signal(&self, permit: Permit<action::Signal>) -> Result<JobView, EngineError> {
        let action::Signal { job, signal, all } = permit.into_action();
        self.started(job).await?;
        self.ask(job, Control::Signal { signal: signal.as_raw(), all }).await?;
        self.view(job).await
    }

    /// Removes an ended job with its output, or what is left of a job whose folder is damaged and whose shim is gone.
    ///
    /// # Errors
    /// When there is no such job, it has not ended, or not all of it can be removed.
    pub async fn remove(&self, permit: Permit<action::Remove>) -> Result<Removed, EngineError> {
        let id = permit.into_action().job;
        let view = match self.view(id).await {
            Ok(view) if view.state.is_some() && !view.is_finished() => {
                return Err(EngineError::NotEnded { id });
            }
            Ok(view) => Some(view),
            // There may be a folder all the same; the spawner knows.
            Err(EngineError::NotFound { .. }) => None,
            Err(error) => {
                tracing::warn!(%id, %error, "a job that can't be read is to be removed");
                None
            }
        };
        // Its end is told before nobody can tell it any more.
        let census = self.parts.census.clone();
        blocking(move || census.look(id)).await;
        match self.parts.spawner.remove(id).await {
            Ok(RemoveReply::Removed) => Ok(Removed { id, view }),
            Ok(RemoveReply::NotEnded) => Err(EngineError::NotEnded { id }),
            Ok(RemoveReply::NoSuchJob) => Err(EngineError::not_found(id)),
            Ok(RemoveReply::Failed(reason)) => Err(EngineError::NotRemoved { id, reason }),
            Err(reason) => Err(EngineError::Remover { id, reason }),
        }
    }

    /// A reader of a job's output; of one of its streams, or of both. With `follow`, to the job's end.
    ///
    /// # Errors
    /// When there is no such job, or its folder can't be watched or read.
    pub async fn stream(
        &self,
        permit: Permit<action::Stream>,
        from: From,
        only: Option<Kind>,
        follow: bool,
    ) -> Result<Follower, EngineError> {
        let job = permit.into_action().job;
        let Parts { hub, shutdown, .. } = &*self.parts;
        let selection = Selection { from, only, follow };
        Follower::open(job, self.folder(job), hub.clone(), selection, shutdown.clone()).await
    }

    fn folder(&self, job: JobId) -> Folder {
        self.parts.jobs.folder(job)
    }

    async fn view(&self, job: JobId) -> Result<JobView, EngineError> {
        let folder = self.folder(job);
        blocking(move || JobView::read(&folder)).await?.ok_or_else(|| EngineError::not_found(job))
    }

    async fn ask(&self, job: JobId, control: Control) -> Result<(), EngineError> {
        let folder = self.folder(job);
        blocking(move || send(job, &folder, &control)).await
    }
}

/// Runs what may wait for a disk on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests;
