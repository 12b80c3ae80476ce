//! What was asked, and by whom: `spec.json`. Checked when it is made, so that whoever holds one can act on it.

use jobworker_limits::{Limits, OutputLimit};
use serde::{Deserialize, Serialize};

use super::{ByteStr, JobId};

/// The version of `spec.json` and `state.json` that this build writes. It reads this one and all older ones: what was
/// not there in those has a default.
pub const FORMAT_VERSION: u32 = 2;

/// A job's specification; written once, before anything else of the job exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// [`FORMAT_VERSION`] of the writer.
    pub version: u32,
    /// The job's id.
    pub id: JobId,
    /// What to run, and how.
    pub request: JobRequest,
    /// Who asked for it.
    pub owner: Owner,
    /// When, in microseconds since the Unix epoch.
    pub created_unix_usec: u64,
    /// How much of its output is kept; none in files of version 1, when all was.
    pub output_limit: Option<OutputLimit>,
}

impl Spec {
    /// How much of its output to keep.
    pub fn output_limit(&self) -> OutputLimit {
        self.output_limit.unwrap_or(OutputLimit::DEFAULT)
    }
}

/// What to run, and how. Two equal requests under one id are one job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRequest {
    /// A path, or a name that is looked up in the job's `PATH`. Not empty.
    pub command: ByteStr,
    /// Its arguments, without the command itself.
    pub args: Vec<ByteStr>,
    /// What the job may use.
    #[serde(default)]
    pub limits: Limits,
    /// The OS user to run as; none: the spawner's default.
    pub user: Option<String>,
    /// Added to the clean environment, in this order. Keys are not empty and hold no `=` and no NUL.
    #[serde(default)]
    pub env: Vec<(String, ByteStr)>,
    /// An absolute path.
    pub workdir: ByteStr,
    /// A label for people.
    pub name: Option<String>,
    /// How long the job may run, in milliseconds; none: for ever.
    pub timeout_msec: Option<std::num::NonZeroU64>,
    /// How much of the output to keep; none: the worker's default.
    pub output_limit: Option<OutputLimit>,
}

/// The person or program whose certificate started a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The certificate's first URI name, else its common name: stable across renewals.
    pub name: String,
    /// The certificate's common name.
    pub common_name: String,
    /// The role that it had.
    pub role: String,
    /// The certificate's serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// SHA-256 of the certificate, lower-case hex.
    pub fingerprint_sha256: String,
}
