//! What the worker and the spawner say to each other: one JSON document a line, over a unix stream socket.
//!
//! The worker sends one [`Request`] on a connection. `Attach` is answered by the spawner and the connection stays
//! open: a spawner that the worker started itself lives as long as a worker is attached or a job runs. `Start` is
//! answered by the job's shim, once the command has been executed or could not be; behind `started` follows a second line,
//! the job's [`State`](crate::job::State), so that it need not be read from the folder. `Remove` is answered by a child of the
//! spawner, once the job's files are deleted.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jobworker_limits::Controller;
use serde::{Deserialize, Serialize};

use crate::job::{JobId, Spec};

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
    /// Remove this job, which has ended.
    Remove(JobId),
}

/// The answer to [`Request::Attach`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Attached {
    /// The spawner's version, as `CARGO_PKG_VERSION` of its build.
    pub version: String,
    /// The [`FORMAT_VERSION`](crate::job::spec::FORMAT_VERSION) that its shims write; 0 where it does not say.
    #[serde(default)]
    pub format: u32,
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

/// The answer to [`Request::Remove`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoveReply {
    /// Its folder is gone.
    Removed,
    /// It is starting or running, or its end is not recorded yet.
    NotEnded,
    /// There is no folder of this id.
    NoSuchJob,
    /// It could not be removed, or not all of it: operation, path and reason, for people.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::job::any;

    /// One line, which says the same when it is read.
    fn reads_back<T: Serialize + DeserializeOwned>(value: &T) -> Result<T, TestCaseError> {
        let line = serde_json::to_string(value).unwrap();
        prop_assert!(!line.contains('\n'));
        let read: T = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(serde_json::to_string(&read).unwrap(), line);
        Ok(read)
    }

    fn any_refusal() -> impl Strategy<Value = Refusal> {
        use RefusalKind::{
            CommandNotExecutable, CommandNotFound, ControllerMissing, Host, InvalidField, UserNotAllowed,
        };
        let kinds =
            [InvalidField, CommandNotFound, CommandNotExecutable, ControllerMissing, UserNotAllowed, Host];
        (prop::sample::select(kinds.to_vec()), prop::option::of(".*"), ".*")
            .prop_map(|(kind, field, message)| Refusal { kind, field, message })
    }

    fn any_attached() -> impl Strategy<Value = Attached> {
        let unavailable = prop::collection::btree_map(prop::sample::select(&Controller::ALL[..]), ".*", 0..4);
        (".*", prop::option::of(".*".prop_map(PathBuf::from)), unavailable)
            .prop_map(|(version, base, unavailable)| Attached { version, format: 2, base, unavailable })
    }

    proptest! {
        #[test]
        fn a_request_is_one_line_that_reads_back(spec in any::spec()) {
            match reads_back(&Request::Start(Box::new(spec.clone())))? {
                Request::Start(read) => prop_assert_eq!(&*read, &spec),
                other => prop_assert!(false, "a start became {other:?}"),
            }
            let remove = reads_back(&Request::Remove(spec.id))?;
            prop_assert!(matches!(remove, Request::Remove(id) if id == spec.id));
            prop_assert!(matches!(reads_back(&Request::Attach)?, Request::Attach));
        }

        #[test]
        fn an_answer_is_one_line_that_reads_back(refusal in any_refusal(), attached in any_attached()) {
            prop_assert!(matches!(reads_back(&StartReply::Started)?, StartReply::Started));
            prop_assert!(matches!(reads_back(&StartReply::Exists)?, StartReply::Exists));
            prop_assert_eq!(reads_back(&refusal)?, refusal);
            let read = reads_back(&attached)?;
            prop_assert_eq!((read.base, read.unavailable), (attached.base, attached.unavailable));
        }
    }
}
