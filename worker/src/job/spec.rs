//! What was asked, and by whom: `spec.json`. Checked when it is made, so that whoever holds one can act on it.

use jobworker_limits::{Limits, OutputLimit};
use serde::{Deserialize, Deserializer, Serialize, de};

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
    /// Added to the clean environment, in this order. Keys are as [`is_variable`] says.
    #[serde(default, deserialize_with = "variables")]
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// Whether a text can be the name of a variable in an environment: not empty, no `=` and no NUL.
pub fn is_variable(key: &str) -> bool {
    !key.is_empty() && !key.contains(['=', '\0'])
}

/// The spawner takes requests from a worker that may have been taken over, so it looks for itself.
fn variables<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, ByteStr)>, D::Error> {
    let env = Vec::<(String, ByteStr)>::deserialize(deserializer)?;
    match env.iter().find(|(key, _)| !is_variable(key)) {
        Some((key, _)) => Err(de::Error::custom(format_args!("{key:?} is not a variable's name"))),
        None => Ok(env),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::any;

    proptest! {
        #[test]
        fn a_spec_reads_back_as_written(spec in any::spec()) {
            let json = serde_json::to_vec_pretty(&spec).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Spec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn a_request_with_a_name_that_no_variable_has_is_not_read() {
        let request = |key: &str| {
            let json =
                serde_json::json!({ "command": "env", "args": [], "workdir": "/", "env": [[key, "x"]] });
            serde_json::from_value::<JobRequest>(json)
        };
        assert_eq!(request("A").unwrap().env[0].0, "A");
        for bad in ["", "A=B", "A\0B"] {
            let error = request(bad).unwrap_err().to_string();
            assert!(error.contains("is not a variable's name"), "{error}");
        }
    }
}
