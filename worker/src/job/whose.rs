//! Whose a job is: the part of `spec.json` that a policy asks for, without the rest, which may be long.

use serde::Deserialize;

use super::{Owner, Spec};

/// Who started a job and as which OS user it was asked to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// Who started it.
    pub owner: Owner,
    /// The OS user that was asked for; none: the spawner's default.
    pub os_user: Option<String>,
    /// When, in microseconds since the Unix epoch.
    pub created_unix_usec: u64,
}

#[derive(Deserialize)]
pub(super) struct Part {
    request: RequestPart,
    owner: Owner,
    created_unix_usec: u64,
}

#[derive(Deserialize)]
struct RequestPart {
    user: Option<String>,
}

impl From<Part> for Whose {
    fn from(part: Part) -> Self {
        Self { owner: part.owner, os_user: part.request.user, created_unix_usec: part.created_unix_usec }
    }
}

impl From<&Spec> for Whose {
    fn from(spec: &Spec) -> Self {
        Self {
            owner: spec.owner.clone(),
            os_user: spec.request.user.clone(),
            created_unix_usec: spec.created_unix_usec,
        }
    }
}
