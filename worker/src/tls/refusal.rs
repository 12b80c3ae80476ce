//! Why a connection was refused before it became one, in words for the audit log.

use std::io;
use std::time::Duration;

use jobworker_certs::{ChainFault, Fault};
use rustls::{CertificateError, Error};

use super::cut::CutOff;
use super::frames::Abuse;
use crate::audit::Holder;
use crate::identity::{ClientIdentity, NamelessCertificate, utc};

/// Whom a certificate names that is not good, or not the client's.
type Claims = Box<Result<ClientIdentity, NamelessCertificate>>;

/// What became of a connection that no request was taken from.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// TLS could not be agreed on.
    #[error("{}", handshake(.error))]
    Handshake {
        /// Why not.
        error: io::Error,
    },
    /// The client's certificate is not good.
    #[error("the client's certificate {}", certificate(.fault))]
    Certificate {
        /// What TLS says to that.
        error: io::Error,
        /// What is wrong with it, or with one above it.
        fault: ChainFault,
        /// Whom it names.
        claims: Option<Claims>,
    },
    /// A good certificate, shown by somebody else.
    #[error("the client has not got the private key of the certificate that it showed")]
    WithoutKey {
        /// Whom the certificate names.
        claims: Option<Claims>,
    },
    /// The client took its time.
    #[error("the TLS handshake took longer than {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// Newer connections needed the place.
    #[error("dropped in the middle of the TLS handshake: more than {0} others were in theirs")]
    Evicted(usize),
    /// The cap is reached.
    #[error("there are {0} connections already (--max-connections)")]
    TooMany(usize),
    /// The client's own cap is reached.
    #[error("{name} has {max} connections already (--max-connections-per-client)")]
    TooManyOfOne {
        /// Whose.
        name: String,
        /// The cap.
        max: usize,
    },
    /// TLS went well, and then nothing came.
    #[error("{name} sent no HTTP/2 preface within {} after the TLS handshake", humantime::format_duration(*.within))]
    NoPreface {
        /// Who.
        name: String,
        /// How long it had.
        within: Duration,
    },
    /// HTTP/2 went well, and then came too much of what asks for nothing.
    #[error("{name} sent too many {}: the connection is closed", .abuse.words())]
    Abuse {
        /// Who.
        name: String,
        /// Of what.
        abuse: Abuse,
    },
    /// The library has ended it.
    #[error("{name} does not keep to HTTP/2: the connection is closed ({reason})")]
    Broken {
        /// Who.
        name: String,
        /// What it told the client, in HTTP/2's words.
        reason: String,
        /// It was too much of something, not something wrong.
        is_abuse: bool,
    },
    /// The certificate was good, and is no more.
    #[error("{0}: the connection is closed")]
    CutOff(CutOff),
}

impl Refusal {
    /// Who the client says that it is, where nobody vouches for it.
    pub(super) fn claims(&self) -> Option<Holder<'_>> {
        match self {
            Self::Certificate { claims, .. } | Self::WithoutKey { claims } => {
                claims.as_deref().map(Result::as_ref)
            }
            _ => None,
        }
    }

    /// For metrics: one word of few.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Handshake { error } | Self::Certificate { error, .. } => handshake_label(error),
            Self::WithoutKey { .. } => "without_key",
            Self::TimedOut(_) => "handshake_timeout",
            Self::Evicted(_) => "max_handshakes",
            Self::TooMany(_) => "max_connections",
            Self::TooManyOfOne { .. } => "max_connections_per_client",
            Self::NoPreface { .. } => "no_http2",
            Self::Abuse { .. } | Self::Broken { is_abuse: true, .. } => "http2_abuse",
            Self::Broken { is_abuse: false, .. } => "http2_error",
            Self::CutOff(_) => "cut_off",
        }
    }
}

fn handshake_label(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => "no_certificate",
        Some(Error::InvalidCertificate(error)) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate_expired",
            CertificateError::Revoked => "certificate_revoked",
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "certificate_of_other_ca",
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "certificate_not_for_clients"
            }
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => "revocation_unknown",
            _ => "certificate_not_acceptable",
        },
        Some(Error::AlertReceived(_)) => "alert_from_client",
        Some(Error::PeerIncompatible(_)) => "no_common_tls",
        Some(_) => "no_tls",
        None => "broken_off",
    }
}

fn handshake(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => "no client certificate was presented".to_owned(),
        Some(Error::PeerIncompatible(why)) => format!("no TLS 1.3 in common with the client: {why:?}"),
        Some(Error::AlertReceived(alert)) => format!("the client broke off with the TLS alert {alert:?}"),
        Some(Error::InvalidMessage(_)) => format!("the client does not speak TLS: {error}"),
        Some(error) => format!("TLS failed: {error}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the client went away in the middle of the TLS handshake".to_owned()
        }
        None => format!("the TLS handshake failed: {error}"),
    }
}

/// What follows "the client's certificate".
fn certificate(fault: &ChainFault) -> String {
    match (&fault.ca, &fault.fault) {
        (None, Fault::Revoked) => "is revoked (--crl)".to_owned(),
        (None, Fault::UnknownIssuer) => "is not signed by a CA of --ca".to_owned(),
        (None, Fault::OtherIssuer) => {
            "is not signed by a CA of --ca: there is one of that name, with another key".to_owned()
        }
        (None, Fault::NoRevocationList) => {
            "can't be checked for revocation: --crl has no list of the CA that signed it".to_owned()
        }
        (None, Fault::RevocationListExpired(end)) => {
            let when = end.map(|end| format!("expired on {}", utc(end)));
            let when = when.as_deref().unwrap_or("has expired");
            format!("can't be checked for revocation: the list in --crl {when}; renew it")
        }
        _ => fault.words(utc),
    }
}
