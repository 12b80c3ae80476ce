//! The labels, each with few values.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use tonic::Code;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Call {
    pub(super) action: &'static str,
    pub(super) code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Denied {
    pub(super) action: &'static str,
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Start {
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Refused {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Followers {
    pub(super) following: Following,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Ended {
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct What {
    pub(super) what: Reloaded,
}

/// What is read again while the worker runs.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Reloaded {
    /// Certificates, key and revocation lists.
    Certificates,
    /// The policy.
    Policy,
}

impl EncodeLabelValue for Reloaded {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Certificates => "certificates",
            Self::Policy => "policy",
        };
        text.encode(encoder)
    }
}

/// What a call that lasts waits for.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Following {
    /// Output.
    Stream,
    /// The end.
    Wait,
}

impl EncodeLabelValue for Following {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Stream => "stream",
            Self::Wait => "wait",
        };
        text.encode(encoder)
    }
}

/// gRPC's own names: <https://grpc.io/docs/guides/status-codes/>.
pub(super) fn code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Exact for 285 years.
#[expect(clippy::cast_precision_loss, reason = "a time in microseconds is less than 2^53")]
pub(super) fn seconds(usec: u64) -> f64 {
    usec as f64 / 1e6
}
