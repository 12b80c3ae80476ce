//! What a client can ask for, with all its arguments: what the policy judges and the engine carries out.

use std::fmt;
use std::time::Duration;

use jobworker_certs::Csr;
use jobworker_limits::SignalNumber;

use crate::job::{JobId, JobRequest};

/// The kinds of action, as policies and audit lines name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Start a job.
    Start,
    /// End a job.
    Stop,
    /// Look at a job.
    Status,
    /// Read a job's output.
    Stream,
    /// See which jobs there are.
    List,
    /// Wait for a job's end.
    Wait,
    /// Send a signal to a job.
    Signal,
    /// Remove an ended job with its output.
    Remove,
    /// Get one's next certificate.
    Renew,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Start,
        Self::Stop,
        Self::Status,
        Self::Stream,
        Self::List,
        Self::Wait,
        Self::Signal,
        Self::Remove,
        Self::Renew,
    ];

    /// Whether such an action is about one job that is there.
    pub fn is_about_a_job(self) -> bool {
        !matches!(self, Self::Start | Self::List | Self::Renew)
    }

    /// The verb in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Status => "status",
            Self::Stream => "stream",
            Self::List => "list",
            Self::Wait => "wait",
            Self::Signal => "signal",
            Self::Remove => "remove",
            Self::Renew => "renew",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that a permit can be given for.
pub trait Action {
    /// Its kind.
    const VERB: Verb;

    /// The job it is about, where it is about one.
    fn job(&self) -> Option<JobId> {
        None
    }

    /// The job to start, where it is a start.
    fn request(&self) -> Option<&JobRequest> {
        None
    }

    /// The same: a policy may bring it under its limits.
    fn request_mut(&mut self) -> Option<&mut JobRequest> {
        None
    }
}

/// Start this.
#[derive(Debug)]
pub struct Start {
    /// The client's own id for it, or a fresh one.
    pub id: JobId,
    /// What to run.
    pub request: JobRequest,
}

/// End this job.
#[derive(Debug)]
pub struct Stop {
    /// Which.
    pub job: JobId,
    /// The signal that asks it to end.
    pub signal: SignalNumber,
    /// How long it has before it is killed.
    pub grace: Duration,
}

/// Look at this job.
#[derive(Debug)]
pub struct Status {
    /// Which.
    pub job: JobId,
}

/// Read this job's output.
#[derive(Debug)]
pub struct Stream {
    /// Which.
    pub job: JobId,
}

/// See all jobs.
#[derive(Debug)]
pub struct List;

/// Wait for this job's end.
#[derive(Debug)]
pub struct Wait {
    /// Which.
    pub job: JobId,
}

/// Send a signal.
#[derive(Debug)]
pub struct Signal {
    /// To which job.
    pub job: JobId,
    /// Which.
    pub signal: SignalNumber,
    /// To every process of its group instead of its main process.
    pub all: bool,
}

/// Remove this ended job.
#[derive(Debug)]
pub struct Remove {
    /// Which.
    pub job: JobId,
}

/// Give the client its next certificate.
#[derive(Debug)]
pub struct Renew {
    /// For this key; its names are known to be the client's own.
    pub csr: Csr,
}

impl Action for Start {
    const VERB: Verb = Verb::Start;
    fn job(&self) -> Option<JobId> {
        Some(self.id)
    }
    fn request(&self) -> Option<&JobRequest> {
        Some(&self.request)
    }
    fn request_mut(&mut self) -> Option<&mut JobRequest> {
        Some(&mut self.request)
    }
}

impl Action for List {
    const VERB: Verb = Verb::List;
}

impl Action for Renew {
    const VERB: Verb = Verb::Renew;
}

macro_rules! about_a_job {
    ($($action:ident),*) => {$(
        impl Action for $action {
            const VERB: Verb = Verb::$action;
            fn job(&self) -> Option<JobId> {
                Some(self.job)
            }
        }
    )*};
}

about_a_job!(Stop, Status, Stream, Wait, Signal, Remove);
