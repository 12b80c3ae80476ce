//! How far a right reaches, and what a client may call its own.

use std::fmt::{self, Display};

use serde::Deserialize;

use crate::identity::ClientIdentity;
use crate::job::Whose;

/// What a line of a role grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// Nothing: takes an action out of what `all` grants.
    None,
    /// On jobs of one's own.
    Own,
    /// On any job.
    Any,
}

/// What makes a job a client's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ownership {
    /// The client's name: the certificate's first URI name, else its common name. Lasts when it is renewed.
    #[default]
    Name,
    /// The certificate's serial number. Unique within one CA only.
    Serial,
    /// The SHA-256 of the certificate.
    Fingerprint,
    /// The OS user that the job runs as is the one that the client's jobs run as (`run_as`).
    OsUser,
}

/// What a client calls its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Jobs that were started under this name.
    Name(String),
    /// Jobs that were started with a certificate of this serial number.
    Serial(String),
    /// Jobs that were started with this certificate.
    Fingerprint(String),
    /// Jobs that run as this OS user; none: no jobs.
    OsUser(Option<String>),
}

impl Claim {
    /// A client's; `os_user` is the one that its jobs run as.
    pub(super) fn of(ownership: Ownership, identity: &ClientIdentity, os_user: Option<String>) -> Self {
        match ownership {
            Ownership::Name => Self::Name(identity.name.clone()),
            Ownership::Serial => Self::Serial(identity.serial.clone()),
            Ownership::Fingerprint => Self::Fingerprint(identity.fingerprint_sha256.clone()),
            Ownership::OsUser => Self::OsUser(os_user),
        }
    }

    /// Whether a job is this client's own.
    pub fn owns(&self, whose: &Whose) -> bool {
        match self {
            Self::Name(name) => whose.owner.name == *name,
            Self::Serial(serial) => whose.owner.serial == *serial,
            Self::Fingerprint(fingerprint) => whose.owner.fingerprint_sha256 == *fingerprint,
            Self::OsUser(user) => user.is_some() && whose.os_user == *user,
        }
    }
}

/// The jobs that the beginning of an id is looked for among.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Among {
    /// All.
    All,
    /// The client's own; others are not there for it.
    Own(Claim),
    /// The client's own; where none of them fits, all: the client may list them anyway.
    OwnFirst(Claim),
}

impl Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Own => "own",
            Self::Any => "any",
        })
    }
}

impl Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Serial(serial) => write!(f, "serial {serial}"),
            Self::Fingerprint(fingerprint) => write!(f, "fingerprint {fingerprint}"),
            Self::OsUser(Some(user)) => write!(f, "OS user {user}"),
            Self::OsUser(None) => f.write_str("no OS user"),
        }
    }
}
