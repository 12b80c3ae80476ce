//! What the worker and the spawner say to each other: one JSON document a line, over a unix stream socket.
//!
//! The worker sends one [`Request`] on a connection. `Attach` is answered by the spawner and the connection stays
//! open: a spawner that the worker started itself lives as long as a worker is attached or a job runs. `Start` is
//! answered by the job's shim, once the command has been executed or could not be.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jobworker_limits::Controller;
use serde::{Deserialize, Serialize};

use crate::job::Spec;

/// The longest line that either side takes, in bytes. Above what the kernel takes as a program's arguments.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Keep this connection as a sign of life.
    Attach,
    /// Run this job.
    Start(Box<Spec>),
}

/// The answer to [`Request::Attach`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Attached {
    /// The spawner's version, as `CARGO_PKG_VERSION` of its build.
    pub version: String,
    /// The delegated subtree; none where the host gives no writable one.
    pub base: Option<PathBuf>,
    /// The controllers that jobs can't be limited by, and why.
    pub unavailable: BTreeMap<Controller, String>,
}

/// The answer to [`Request::Start`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartReply {
    /// The command has been executed; the folder tells the rest.
    Started,
    /// There is a folder of this id already.
    Exists,
    /// Nothing was executed and nothing is left behind.
    Refused(Refusal),
}

/// Why a job was not started.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal it is.
    pub kind: RefusalKind,
    /// The field of the request at fault (`spec.limits.io`), where it is one.
    pub field: Option<String>,
    /// For people: operation, value, what would be right.
    pub message: String,
}

/// The kinds of [`Refusal`], as far as callers have to tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The field holds something that can't be used on this host.
    InvalidField,
    /// The command does not exist.
    CommandNotFound,
    /// The command exists and can't be executed.
    CommandNotExecutable,
    /// A limit needs a controller that is not there.
    ControllerMissing,
    /// The OS user is not one that jobs may run as.
    UserNotAllowed,
    /// The host lacks something: disk, processes, memory.
    Host,
    /// The disk of the state folder takes no writes: it is read-only, or it fails.
    DiskUnusable,
}
