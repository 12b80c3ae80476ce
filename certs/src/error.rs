//! What can go wrong, in words that name the operation, the path and the value. The system's own words are the
//! error's source.

use std::{io, path::PathBuf};

use crate::{BadCsr, Serial, utc_text};

/// A value that was typed and can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?}: {expected}")]
pub struct InvalidValue {
    /// What the value was given for: `role`, `host`, …
    pub field: &'static str,
    /// The value as it was given.
    pub value: String,
    /// What would have been right.
    pub expected: &'static str,
}

/// Why a certificate could not be made, stored or revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value that can't be used.
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    /// The file system refused.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried: `read`, `write`, …
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The folder holds a CA, or a part of one, and a second one would make every issued certificate worthless.
    #[error("{} exists already: a CA is never overwritten; use another folder, or move this one away", path.display())]
    AuthorityExists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// A certificate or key of that name exists.
    #[error("{} exists already: --force replaces it (revoke it first if it is lost or stolen), --out DIR writes elsewhere", path.display())]
    CertificateExists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// A request or key of that name exists.
    #[error(
        "{} exists already: --force makes a new request with a new private key, and what is signed for the old key is of no \
         use then",
        path.display()
    )]
    RequestExists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// A private key of that name exists, and belongs to another certificate.
    #[error(
        "{} is the key of another certificate than the one to be signed: move it away before",
        path.display()
    )]
    OtherKey {
        /// The key's file.
        path: PathBuf,
    },
    /// A certificate request that is refused.
    #[error("the certificate request is refused")]
    Request(#[from] BadCsr),
    /// There is no CA in the folder.
    #[error("{0} holds no CA: make one first (jobworker certs init --dir {0})", dir.display())]
    NoAuthority {
        /// The folder without a `ca.pem`.
        dir: PathBuf,
    },
    /// A file does not hold what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The CA's time is over; nothing it signs would be accepted.
    #[error("the CA ended on {}: make a new one in another folder", utc_text(*not_after))]
    AuthorityExpired {
        /// The CA's last second.
        not_after: time::OffsetDateTime,
    },
    /// The list was signed by another CA, or the certificate was.
    #[error("{}: not issued by the CA in this folder", path.display())]
    ForeignIssuer {
        /// The file.
        path: PathBuf,
    },
    /// The CA's own certificate can't be revoked by its own list.
    #[error("serial {serial} is the CA's own: a CA is given up by replacing it, not by its own list")]
    RevokesAuthority {
        /// The CA's serial number.
        serial: Serial,
    },
    /// Key generation, encoding or signing failed.
    #[error("{operation}")]
    Crypto {
        /// What was tried.
        operation: &'static str,
        /// The library's answer.
        source: rcgen::Error,
    },
}

impl Error {
    /// For `map_err` after a call into the file system.
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    /// For `map_err` after a call into rcgen.
    pub(crate) fn crypto(operation: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |source| Self::Crypto { operation, source }
    }
}
