//! Why a spawner did not do what it was asked for.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::spawner::users::UsersError;

/// A spawner that can't be reached or does not keep to the protocol.
#[derive(Debug, thiserror::Error)]
pub enum SpawnerError {
    /// Nobody listens, or not for us.
    #[error("can't connect to the spawner's socket {socket}: {reason}")]
    Connect {
        /// Where.
        socket: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// The connection broke, or held what is no answer.
    #[error("the spawner at {socket} gave no answer: {reason}")]
    NoAnswer {
        /// Where.
        socket: PathBuf,
        /// What came instead.
        reason: io::Error,
    },
    /// A spawner of our own could not be started.
    #[error("can't execute {program} as a spawner: {reason}")]
    Launch {
        /// What was executed.
        program: PathBuf,
        /// Why it could not be.
        reason: io::Error,
    },
    /// A spawner of our own would not start: nobody has said as whom jobs run.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// An older build's spawner of our own does not give way.
    #[error("the spawner at {socket} is an older build's and can't be replaced: {reason}")]
    Retire {
        /// Where.
        socket: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// A spawner of our own ended instead of listening. What it had to say stands on stderr.
    #[error("the spawner ended before it was ready ({0}); its own message says why")]
    Ended(ExitStatus),
}

impl SpawnerError {
    /// Whether nobody listens, or whoever did has gone.
    pub(super) fn is_of_its_end(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
        match self {
            Self::Connect { reason, .. } => {
                matches!(reason.kind(), NotFound | ConnectionRefused | ConnectionReset)
            }
            // Killed with the connection still in its queue, or with the request half read.
            Self::NoAnswer { reason, .. } => {
                matches!(reason.kind(), ConnectionReset | BrokenPipe | UnexpectedEof)
            }
            Self::Launch { .. } | Self::Users(_) | Self::Retire { .. } | Self::Ended(_) => false,
        }
    }
}
