//! What can be wrong with what is asked of the engine.

use std::num::NonZeroU32;

use jobworker_limits::SignalNumber;

use crate::job::JobId;
use crate::job::folder::FolderError;
use crate::output::OutputError;
use crate::output::hub::WatchError;
use crate::policy::Rule;
use crate::shim::control::ControlError;
use crate::spawner::client::SpawnerError;
use crate::spawner::protocol::Refusal;

/// How many of an ambiguous prefix's jobs are named.
const NAMED: usize = 5;

/// The engine's no.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no such job (any more).
    #[error("no job {text}")]
    NotFound {
        /// As it was asked for.
        text: String,
    },
    /// A prefix that several jobs' ids begin with.
    #[error("{text:?} fits {} jobs: {}", .matches.len(), named(.matches))]
    Ambiguous {
        /// As it was asked for.
        text: String,
        /// All that it fits, in order.
        matches: Vec<JobId>,
    },
    /// No job's id begins like this.
    #[error(
        "{text:?} is no job's id and no beginning of one: that is up to 36 characters, hex digits and hyphens, \
         like 3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f or 3f2b"
    )]
    InvalidJob {
        /// As it was asked for, its end cut off when it is long.
        text: String,
    },
    /// The id is taken by a job with another specification or owner.
    #[error("there is another job {id} already, with another specification or owner")]
    Exists {
        /// The id.
        id: JobId,
    },
    /// Nobody is there who could do it.
    #[error("job {id} is not running: {how}")]
    NotRunning {
        /// Which job.
        id: JobId,
        /// How it ended.
        how: String,
    },
    /// The job's shim is of a build that knows no real-time signals.
    #[error(
        "signal: {signal} can't be sent to job {id}: it was started by an older build, which knows no real-time \
         signals; TERM, KILL and the others with a name of their own can be sent"
    )]
    OlderShim {
        /// Which job.
        id: JobId,
        /// What was to be sent.
        signal: SignalNumber,
    },
    /// Only an ended job can be removed.
    #[error("job {id} is running; stop it first")]
    NotEnded {
        /// Which job.
        id: JobId,
    },
    /// The spawner did not say whether it has removed the job.
    #[error("can't remove job {id}: {reason}")]
    Remover {
        /// Which job.
        id: JobId,
        /// What came instead.
        reason: SpawnerError,
    },
    /// The job could not be removed, or not all of it.
    #[error("can't remove job {id}: {reason}")]
    NotRemoved {
        /// Which job.
        id: JobId,
        /// As the spawner said it.
        reason: String,
    },
    /// The job was not started.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The spawner did not answer.
    #[error("can't start jobs: {0}")]
    Spawner(#[from] SpawnerError),
    /// A file of the job can't be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The job's output can't be read.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The job's folder can't be watched.
    #[error(transparent)]
    Watch(WatchError),
    /// A request that the shim can't be asked.
    #[error("can't ask the shim of job {id}: {reason}")]
    Control {
        /// Which job.
        id: JobId,
        /// Why.
        reason: ControlError,
    },
    /// The owner has as many jobs that have not ended as the policy lets it have.
    #[error("{owner} has {max} jobs that have not ended, and may have no more at a time")]
    TooManyRunning {
        /// Whose jobs.
        owner: String,
        /// How many it may have.
        max: NonZeroU32,
        /// The policy's line.
        rule: Rule,
    },
    /// The worker goes down; jobs live on.
    #[error("the worker is going down; the job lives on")]
    ShuttingDown,
}

impl EngineError {
    pub(crate) fn not_found(job: JobId) -> Self {
        Self::NotFound { text: job.to_string() }
    }
}

impl From<WatchError> for EngineError {
    /// A folder has its job's name.
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::NotFound(path) => Self::NotFound {
                text: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            },
            error => Self::Watch(error),
        }
    }
}

fn named(matches: &[JobId]) -> String {
    let mut names: Vec<_> = matches.iter().take(NAMED).map(ToString::to_string).collect();
    if matches.len() > NAMED {
        names.push("…".to_owned());
    }
    names.join(", ")
}
