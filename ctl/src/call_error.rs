//! What comes of a call that failed: words for people, and whether asking again makes sense.

use std::error::Error;
use std::fmt;
use std::io;

use jobworker_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::config::Target;
use crate::tls::{self, FirstFailure, Seen};
use crate::tls_error;

/// A call that failed, in words for people.
#[derive(Debug)]
pub(crate) struct CallError {
    words: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// No answer: the connection broke, can't be made, or the worker is going down. It may be back soon.
    Outage { cause: String, doubt: Doubt },
    /// The same call would fail again. With the worker's reason, where it gave one.
    Final { reason: Option<ErrorReason> },
}

/// Whether a call that was not answered may have been carried out all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// It was not.
    #[default]
    None,
    /// The connection ended before the worker's first word: only a break just then can have hidden it.
    Slight,
    Real,
}

impl CallError {
    /// The call was not made, because of `cause`.
    pub(crate) fn outage(words: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::unanswered(words, cause, Doubt::None)
    }

    fn unanswered(words: impl Into<String>, cause: impl Into<String>, doubt: Doubt) -> Self {
        Self { words: words.into(), kind: Kind::Outage { cause: cause.into(), doubt } }
    }

    /// The worker answered, and not with what this call is about.
    pub(crate) fn incomplete(what: &str) -> Self {
        Self::of_words(format!("the worker's answer lacks {what}"))
    }

    /// The connection to `target` broke; `failure` is what its lower layers saw of that.
    pub(crate) fn broken(source: &(dyn Error + 'static), seen: &FirstFailure, target: &Target) -> Self {
        let failure = seen.get();
        if let Some(objection) = failure.and_then(tls::objection) {
            return Self::of_words(tls_error::explain_refusal(objection, target));
        }
        let cause = failure.map_or_else(|| deepest(source).to_string(), ToString::to_string);
        let words = format!("lost the connection to the worker at {}: {cause}", target.address);
        Self::unanswered(words, cause, doubt(seen))
    }

    /// What the worker answered.
    pub(crate) fn answer(status: &Status) -> Self {
        let reason = status
            .get_details_error_info()
            .filter(|info| info.domain == "jobworker")
            .and_then(|info| ErrorReason::from_str_name(&info.reason));
        let words = match (status.code(), status.message()) {
            (code, "") => code.description().to_owned(),
            (Code::Unauthenticated, message) => format!("unauthenticated: {message}"),
            (Code::PermissionDenied, message) => format!("permission denied: {message}"),
            (_, message) => message.to_owned(),
        };
        match (status.code(), reason) {
            // The worker itself is well.
            (Code::Unavailable, Some(ErrorReason::SpawnerUnavailable)) => {}
            (Code::Unavailable, _) => return Self::unanswered(words.clone(), words, Doubt::Real),
            _ => {}
        }
        Self { words, kind: Kind::Final { reason } }
    }

    fn of_words(words: String) -> Self {
        Self { words, kind: Kind::Final { reason: None } }
    }

    /// The worker's reason, where it gave one that is known here.
    pub(crate) fn reason(&self) -> Option<ErrorReason> {
        match self.kind {
            Kind::Outage { .. } => None,
            Kind::Final { reason } => reason,
        }
    }
}

/// Why the worker could not be asked, if that is what `error` is about.
pub(crate) fn outage_cause(error: &anyhow::Error) -> Option<&str> {
    match error.downcast_ref() {
        Some(CallError { kind: Kind::Outage { cause, .. }, .. }) => Some(cause),
        _ => None,
    }
}

/// True if `error` is the worker's own answer.
pub(crate) fn is_final(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(CallError { kind: Kind::Final { .. }, .. }))
}

/// Whether the call that ended with `error` may have been carried out.
pub(crate) fn doubt_after(error: &anyhow::Error) -> Doubt {
    match error.downcast_ref() {
        Some(CallError { kind: Kind::Outage { doubt, .. }, .. }) => *doubt,
        _ => Doubt::None,
    }
}

/// `seen` is what the lower layers saw of a connection on which a call was not answered.
fn doubt(seen: &Seen) -> Doubt {
    let ended = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    match seen.get() {
        _ if seen.has_heard() => Doubt::Real,
        None if seen.is_closed() => Doubt::None,
        Some(error) if ended.contains(&error.kind()) => Doubt::Slight,
        _ => Doubt::Real,
    }
}

fn deepest<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    std::iter::successors(Some(error), |error| (*error).source()).last().unwrap_or(error)
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Error for CallError {}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn is_outage(code: Code, reason: Option<ErrorReason>) -> bool {
        let status = match reason {
            None => Status::new(code, "words"),
            Some(reason) => {
                let details = ErrorDetails::with_error_info(reason.as_str_name(), "jobworker", []);
                Status::with_error_details(code, "words", details)
            }
        };
        outage_cause(&CallError::answer(&status).into()).is_some()
    }

    #[test]
    fn only_a_worker_that_is_away_is_asked_again() {
        assert!(is_outage(Code::Unavailable, Some(ErrorReason::ShuttingDown)));
        assert!(is_outage(Code::Unavailable, None), "a proxy without its worker");
        assert!(!is_outage(Code::Unavailable, Some(ErrorReason::SpawnerUnavailable)));
        for code in [
            Code::Unauthenticated,
            Code::PermissionDenied,
            Code::NotFound,
            Code::InvalidArgument,
            Code::FailedPrecondition,
            Code::ResourceExhausted,
            Code::AlreadyExists,
            Code::Internal,
        ] {
            assert!(!is_outage(code, None), "{code}");
        }
    }
}
