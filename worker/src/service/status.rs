//! Errors on their way out: the gRPC code, words for people, and for programs a `google.rpc.ErrorInfo` and where a
//! field is at fault a `google.rpc.BadRequest`. The only place that chooses codes.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use jobworker_proto::v1::ErrorReason as Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::request::OffsetOutOfRange;
use crate::audit::shorten;
use crate::identity::IdentityError;
use crate::job::engine::EngineError;
use crate::policy::Denial;
use crate::renewal::RenewalError;
use crate::spawner::protocol::{Refusal, RefusalKind};
use crate::tls::CutOff;

/// The `domain` of every `ErrorInfo`.
const DOMAIN: &str = "jobworker";

/// The longest message. It travels in HTTP/2 headers, twice where a field is named, and clients take few KiB of them.
const MAX_MESSAGE_BYTES: usize = 2048;

/// A field of a request that holds something that can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidField {
    /// Its path, like `spec.args[3]`.
    pub field: String,
    /// The value and what would be right.
    pub problem: String,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    #[error(transparent)]
    Denied(#[from] Denial),
    #[error(transparent)]
    Nameless(IdentityError),
    #[error(transparent)]
    CutOff(#[from] CutOff),
    #[error("{name} has {max} streams and waits open already ({cap} of the worker)")]
    Cap { name: String, cap: &'static str, max: usize },
    #[error(
        "the request is too large: {bytes} bytes, and at most {max_bytes} bytes are taken (--max-request-bytes)"
    )]
    TooLarge { bytes: usize, max_bytes: usize },
    #[error("{name} has more than {max_bytes} bytes of requests underway (--max-request-bytes-per-client)")]
    Underway { name: String, max_bytes: usize },
    #[error("no job {job}: its start was refused")]
    StartRefused { job: String },
    #[error("{name} has {max} lists underway already (--max-lists-per-client)")]
    Lists { name: String, max: usize },
    #[error("the call's metadata is too large: {bytes} bytes, and at most {max_bytes} bytes are taken")]
    Metadata { bytes: usize, max_bytes: usize },
    #[error("the call's deadline has passed: grpc-timeout was {}", humantime::format_duration(*timeout))]
    Deadline { timeout: Duration },
    #[error(
        "grpc-timeout: {text:?} is no timeout: one to eight digits and one of H, M, S, m, u, n are needed"
    )]
    Timeout { text: String },
    #[error("the request can't be decoded: {0}")]
    Malformed(String),
    #[error("the request's encoding is not known here: {0}")]
    Encoding(String),
    #[error("there is no method {path}: reflection tells which there are")]
    NoMethod { path: String },
    #[error("there is no service for {path}: there are {there}")]
    NoService { path: String, there: String },
    #[error(transparent)]
    Offset(#[from] OffsetOutOfRange),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Renewal(#[from] RenewalError),
}

/// What of an error is not words.
struct Kind {
    code: Code,
    reason: Reason,
    field: Option<String>,
    metadata: Option<(&'static str, String)>,
}

impl Kind {
    fn new(code: Code, reason: Reason) -> Self {
        Self { code, reason, field: None, metadata: None }
    }

    fn field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    fn metadata(self, key: &'static str, value: impl Into<String>) -> Self {
        Self { metadata: Some((key, value.into())), ..self }
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let kind = kind(&error);
        let words = with_sources(&error);
        if kind.reason == Reason::Internal {
            tracing::error!(error = words.as_str(), "a call failed on our side");
        }
        let words = shorten(&words, MAX_MESSAGE_BYTES).into_owned();
        let metadata: HashMap<_, _> = kind
            .metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), shorten(&value, 256).into_owned()))
            .collect();
        let mut details = ErrorDetails::with_error_info(kind.reason.as_str_name(), DOMAIN, metadata);
        if let Some(field) = kind.field {
            details.add_bad_request_violation(field, words.clone());
        }
        Status::with_error_details(kind.code, words, details)
    }
}

impl From<EngineError> for Status {
    fn from(error: EngineError) -> Self {
        CallError::from(error).into()
    }
}

impl From<RenewalError> for Status {
    fn from(error: RenewalError) -> Self {
        CallError::from(error).into()
    }
}

fn kind(error: &CallError) -> Kind {
    match error {
        CallError::Invalid(invalid) => {
            Kind::new(Code::InvalidArgument, Reason::InvalidField).field(&invalid.field)
        }
        CallError::Denied(Denial::NoRole { .. }) => Kind::new(Code::Unauthenticated, Reason::NoRole),
        CallError::Denied(Denial::Denied { verb, .. } | Denial::NotOwn { verb, .. }) => {
            Kind::new(Code::PermissionDenied, Reason::Denied).metadata("action", verb.as_str())
        }
        CallError::Denied(Denial::Request { field, .. }) => {
            Kind::new(Code::PermissionDenied, Reason::Denied).metadata("action", "start").field(field)
        }
        CallError::Nameless(_) | CallError::CutOff(_) => Kind::new(Code::Unauthenticated, Reason::Denied),
        CallError::Cap { cap, .. } => {
            Kind::new(Code::ResourceExhausted, Reason::CapReached).metadata("cap", *cap)
        }
        CallError::TooLarge { .. } => {
            Kind::new(Code::ResourceExhausted, Reason::CapReached).metadata("cap", "max-request-bytes")
        }
        CallError::Underway { .. } => Kind::new(Code::ResourceExhausted, Reason::CapReached)
            .metadata("cap", "max-request-bytes-per-client"),
        CallError::StartRefused { job } => {
            Kind::new(Code::NotFound, Reason::JobNotFound).metadata("job", job)
        }
        CallError::Lists { .. } => {
            Kind::new(Code::ResourceExhausted, Reason::CapReached).metadata("cap", "max-lists-per-client")
        }
        CallError::Metadata { .. } => {
            Kind::new(Code::ResourceExhausted, Reason::CapReached).metadata("cap", "metadata-bytes")
        }
        CallError::Deadline { .. } => Kind::new(Code::DeadlineExceeded, Reason::DeadlinePassed),
        CallError::Timeout { .. } | CallError::Malformed(_) => {
            Kind::new(Code::InvalidArgument, Reason::MalformedRequest)
        }
        CallError::Encoding(_) => Kind::new(Code::Unimplemented, Reason::MalformedRequest),
        CallError::NoMethod { path } | CallError::NoService { path, .. } => {
            Kind::new(Code::Unimplemented, Reason::NoSuchMethod).metadata("method", path)
        }
        CallError::Offset(_) => Kind::new(Code::OutOfRange, Reason::InvalidField).field("offset"),
        CallError::Engine(error) => engine_kind(error),
        CallError::Renewal(error) => renewal_kind(error),
    }
}

fn renewal_kind(error: &RenewalError) -> Kind {
    match error {
        RenewalError::Off => Kind::new(Code::FailedPrecondition, Reason::RenewalOff),
        RenewalError::Request(_) => Kind::new(Code::InvalidArgument, Reason::InvalidField).field("csr"),
        RenewalError::Earlier { .. } => Kind::new(Code::FailedPrecondition, Reason::NothingGained),
        RenewalError::NoUsableRole(_) => Kind::new(Code::FailedPrecondition, Reason::NoRole),
        RenewalError::TooMany { .. } => {
            Kind::new(Code::ResourceExhausted, Reason::CapReached).metadata("cap", "renewals-per-minute")
        }
        RenewalError::Issue(jobworker_certs::Error::AuthorityExpired { .. }) => {
            Kind::new(Code::FailedPrecondition, Reason::RenewalOff)
        }
        RenewalError::Issue(_) | RenewalError::Lost => Kind::new(Code::Internal, Reason::Internal),
    }
}

fn engine_kind(error: &EngineError) -> Kind {
    match error {
        EngineError::NotFound { text } => {
            Kind::new(Code::NotFound, Reason::JobNotFound).metadata("job", text)
        }
        EngineError::Ambiguous { .. } => Kind::new(Code::InvalidArgument, Reason::JobAmbiguous).field("job"),
        EngineError::InvalidJob { .. } => Kind::new(Code::InvalidArgument, Reason::InvalidField).field("job"),
        EngineError::Exists { id } => {
            Kind::new(Code::AlreadyExists, Reason::JobExists).metadata("job", id.to_string())
        }
        EngineError::NotRunning { id, .. } => {
            Kind::new(Code::FailedPrecondition, Reason::JobNotRunning).metadata("job", id.to_string())
        }
        EngineError::OlderShim { .. } => {
            Kind::new(Code::FailedPrecondition, Reason::InvalidField).field("signal")
        }
        EngineError::NotEnded { id } => {
            Kind::new(Code::FailedPrecondition, Reason::JobNotEnded).metadata("job", id.to_string())
        }
        EngineError::Refused(refusal) => refusal_kind(refusal),
        EngineError::Spawner(_) | EngineError::Remover { .. } => {
            Kind::new(Code::Unavailable, Reason::SpawnerUnavailable)
        }
        EngineError::TooManyRunning { .. } => {
            Kind::new(Code::ResourceExhausted, Reason::CapReached).metadata("cap", "running")
        }
        EngineError::ShuttingDown => Kind::new(Code::Unavailable, Reason::ShuttingDown),
        EngineError::Folder(_)
        | EngineError::Output(_)
        | EngineError::Watch(_)
        | EngineError::Control { .. }
        | EngineError::NotRemoved { .. } => Kind::new(Code::Internal, Reason::Internal),
    }
}

fn refusal_kind(refusal: &Refusal) -> Kind {
    let kind = match refusal.kind {
        RefusalKind::InvalidField => Kind::new(Code::InvalidArgument, Reason::InvalidField),
        RefusalKind::CommandNotFound => Kind::new(Code::InvalidArgument, Reason::CommandNotFound),
        RefusalKind::CommandNotExecutable => Kind::new(Code::InvalidArgument, Reason::CommandNotExecutable),
        RefusalKind::ControllerMissing => Kind::new(Code::FailedPrecondition, Reason::ControllerMissing),
        RefusalKind::UserNotAllowed => Kind::new(Code::PermissionDenied, Reason::Denied),
        RefusalKind::Host => Kind::new(Code::ResourceExhausted, Reason::Internal),
        // No call succeeds before somebody has seen to the disk: no reason to try again at once.
        RefusalKind::DiskUnusable => Kind::new(Code::FailedPrecondition, Reason::Internal),
    };
    Kind { field: refusal.field.clone(), ..kind }
}

/// The error and what it was caused by, as far as that is not said already.
fn with_sources(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !words.ends_with(&cause) {
            // Writing to a String can't fail.
            let _ = write!(words, ": {cause}");
        }
        source = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Rule;
    use crate::policy::action::Verb;

    fn status(error: impl Into<CallError>) -> (Code, String, String, Option<String>) {
        let status = Status::from(error.into());
        let info = status.get_details_error_info().expect("every error has an ErrorInfo");
        assert_eq!(info.domain, "jobworker");
        let field = status.get_details_bad_request().map(|bad| bad.field_violations[0].field.clone());
        (status.code(), info.reason, status.message().to_owned(), field)
    }

    #[test]
    fn a_bad_field_is_named_in_words_and_for_programs() {
        let invalid = InvalidField { field: "spec.args[3]".to_owned(), problem: "holds a NUL".to_owned() };
        let expected =
            (Code::InvalidArgument, "INVALID_FIELD".to_owned(), "spec.args[3]: holds a NUL".to_owned());
        let (code, reason, message, field) = status(invalid);
        assert_eq!((code, reason, message), expected);
        assert_eq!(field.as_deref(), Some("spec.args[3]"));
    }

    #[test]
    fn no_role_and_no_right_are_told_apart() {
        let (name, role, rule) = (|| "eve".to_owned(), || "user".to_owned(), Rule::example);
        let reason = "it has no role extension".to_owned();
        let no_role = Denial::NoRole { name: name(), reason, rule: rule() };
        assert_eq!(status(no_role).0, Code::Unauthenticated);
        let (field, problem) = ("spec.limits.memory".to_owned(), "2GiB is above the ceiling".to_owned());
        for (denial, expected) in [
            (Denial::Denied { role: role(), verb: Verb::Stop, rule: rule() }, None),
            (Denial::NotOwn { role: role(), verb: Verb::Stop, rule: rule() }, None),
            (Denial::Request { role: role(), field: field.clone(), problem, rule: rule() }, Some(field)),
        ] {
            let (code, reason, _, field) = status(denial);
            assert_eq!((code, reason.as_str(), field), (Code::PermissionDenied, "DENIED", expected));
        }
    }

    #[test]
    fn every_refusal_of_the_spawner_has_its_code() {
        let code = |kind| {
            let refusal =
                Refusal { kind, field: Some("spec.command".to_owned()), message: "words".to_owned() };
            let (code, reason, message, field) = status(EngineError::Refused(refusal));
            assert_eq!((message.as_str(), field.as_deref()), ("words", Some("spec.command")));
            (code, reason)
        };
        assert_eq!(code(RefusalKind::InvalidField), (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
        assert_eq!(
            code(RefusalKind::CommandNotFound),
            (Code::InvalidArgument, "COMMAND_NOT_FOUND".to_owned())
        );
        let not_executable = (Code::InvalidArgument, "COMMAND_NOT_EXECUTABLE".to_owned());
        assert_eq!(code(RefusalKind::CommandNotExecutable), not_executable);
        let missing = (Code::FailedPrecondition, "CONTROLLER_MISSING".to_owned());
        assert_eq!(code(RefusalKind::ControllerMissing), missing);
        assert_eq!(code(RefusalKind::UserNotAllowed), (Code::PermissionDenied, "DENIED".to_owned()));
        assert_eq!(code(RefusalKind::Host), (Code::ResourceExhausted, "INTERNAL".to_owned()));
        assert_eq!(code(RefusalKind::DiskUnusable), (Code::FailedPrecondition, "INTERNAL".to_owned()));
    }

    #[test]
    fn a_cap_is_named() {
        let followers = CallError::Cap { name: "a".to_owned(), cap: "max-followers", max: 3 };
        let size = CallError::TooLarge { bytes: 9, max_bytes: 8 };
        let underway = CallError::Underway { name: "a".to_owned(), max_bytes: 3 };
        let caps = ["max-followers", "max-request-bytes", "max-request-bytes-per-client"];
        for (error, cap) in [followers, size, underway].into_iter().zip(caps) {
            let status = Status::from(error);
            let info = status.get_details_error_info().unwrap();
            assert_eq!((status.code(), info.reason.as_str()), (Code::ResourceExhausted, "CAP_REACHED"));
            assert_eq!(info.metadata["cap"], cap);
            assert!(status.message().contains(cap), "{status}");
        }
    }

    #[test]
    fn messages_fit_into_headers() {
        let text = "x".repeat(1 << 20);
        let (_, _, message, _) = status(EngineError::NotFound { text });
        assert!(message.len() < 2200, "{}", message.len());
    }
}
