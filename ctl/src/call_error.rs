//! What comes of a call that failed: words for people, and whether asking again makes sense.

use std::error::Error;
use std::fmt;

use jobworker_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::config::Target;
use crate::tls::{self, FirstFailure};
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
    Outage { cause: String },
    /// The same call would fail again. With the worker's reason, where it gave one.
    Final { reason: Option<ErrorReason> },
}

impl CallError {
    /// There is no answer, because of `cause`.
    pub(crate) fn outage(words: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { words: words.into(), kind: Kind::Outage { cause: cause.into() } }
    }

    /// The worker answered, and not with what this call is about.
    pub(crate) fn incomplete(what: &str) -> Self {
        Self::of_words(format!("the worker's answer lacks {what}"))
    }

    /// The connection to `target` broke; `failure` is what its lower layers saw of that.
    pub(crate) fn broken(source: &(dyn Error + 'static), failure: &FirstFailure, target: &Target) -> Self {
        let failure = failure.get();
        if let Some(objection) = failure.and_then(tls::objection) {
            return Self::of_words(tls_error::explain(objection, target));
        }
        let cause = failure.map_or_else(|| deepest(source).to_string(), ToString::to_string);
        Self::outage(format!("lost the connection to the worker at {}: {cause}", target.address), cause)
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
            (Code::Unavailable, _) => return Self::outage(words.clone(), words),
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
        Some(CallError { kind: Kind::Outage { cause }, .. }) => Some(cause),
        _ => None,
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
