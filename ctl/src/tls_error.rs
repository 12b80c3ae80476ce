//! TLS failures in words: which certificate, whose objection, and what is wrong with it.

use std::fmt::Write;

use jiff::Timestamp;
use jobworker_certs::{ChainFault, Fault};
use rustls::{AlertDescription, CertificateError, Error};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::{Credentials, Target};
use crate::render::words;
use crate::{own_fault, pem};

/// Says what it means that TLS was not agreed on with `target`; `refused`: what is wrong with the worker's certificate, where
/// that is why.
pub(crate) fn explain_handshake(error: &Error, target: &Target, refused: Option<&ChainFault>) -> String {
    let worker = &target.address;
    match (error, refused) {
        (Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }), _) => {
            format!(
                "cannot trust the worker at {worker}: its certificate is not for {:?} but for {}",
                worker.host(),
                names(presented)
            )
        }
        (Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_), Some(fault)) => {
            let words = worker_certificate(fault, &target.credentials);
            format!("cannot trust the worker at {worker}: its certificate {words}")
        }
        (Error::InvalidCertificate(error), None) => {
            format!("cannot trust the worker at {worker}: its certificate: {error}")
        }
        (Error::AlertReceived(alert), _) => alert_words(*alert, target),
        (Error::InvalidMessage(_), _) => {
            format!("cannot talk to {worker}: it does not speak TLS; is that jobworker?")
        }
        (Error::PeerIncompatible(_), _) => {
            format!("cannot agree on TLS with {worker}: {error} (jobctl needs TLS 1.3)")
        }
        _ => format!("TLS with {worker} failed: {error}"),
    }
}

/// Says what it means that the worker ended the connection with an alert once TLS was agreed on. In TLS 1.3 that is when it
/// has looked at the client's certificate, so an alert is about that one.
pub(crate) fn explain_refusal(error: &Error, target: &Target) -> String {
    match error {
        Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            let why = format!(
                "its revocation cannot be checked: {}",
                ClientCertificate::read(target).unusable_list()
            );
            format!("unauthenticated: {}", refused(target, &why))
        }
        Error::AlertReceived(alert) => alert_words(*alert, target),
        error => explain_handshake(error, target, None),
    }
}

fn alert_words(alert: AlertDescription, target: &Target) -> String {
    match refusal(alert, target) {
        Some(words) => format!("unauthenticated: {words}"),
        None => format!("cannot agree on TLS with {}: {}", target.address, disagreement(alert)),
    }
}

/// Why jobctl does not trust the worker's certificate, as what follows "its certificate".
fn worker_certificate(fault: &ChainFault, credentials: &Credentials) -> String {
    let ca = credentials.ca.display();
    let lists: Vec<_> = credentials.crl.iter().map(|path| path.display().to_string()).collect();
    let lists = lists.join(", ");
    match (&fault.ca, &fault.fault) {
        (None, Fault::UnknownIssuer) => format!("is not signed by the CA in {ca}"),
        (None, Fault::OtherIssuer) => {
            format!(
                "is not signed by the CA in {ca}, which has the name of the one that did, and another key"
            )
        }
        (_, Fault::NotYetValid(_)) => {
            format!("{}; is this machine's clock right?", fault.words(words::date))
        }
        (None, Fault::Revoked) => format!("is revoked (--crl {lists})"),
        (None, Fault::NoRevocationList) => {
            format!("can't be checked for revocation: --crl {lists} has no list of the CA that signed it")
        }
        (None, Fault::RevocationListExpired(end)) => {
            let when = end.map(|end| format!(" on {}", words::date(end))).unwrap_or_default();
            format!(
                "can't be checked for revocation: the list in --crl {lists} expired{when}; ask for a new one"
            )
        }
        _ => fault.words(words::date),
    }
}

/// webpki gives the names in the form `DnsName("localhost")` and `IpAddress(127.0.0.1)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    let names: Vec<_> = presented.iter().map(bare).collect();
    if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") }
}

/// Why the worker refused the client's certificate; `None` for an alert about something else.
fn refusal(alert: AlertDescription, target: &Target) -> Option<String> {
    let client = ClientCertificate::read(target);
    // The worker looks at it as this does, if it trusts the same CA.
    let own = || own_fault::find(&target.credentials);
    let certificate = |fault: ChainFault| format!("certificate {}", fault.words(words::date));
    let reason = match alert {
        AlertDescription::CertificateRequired => {
            return Some("the worker asks for a certificate and got none".to_owned());
        }
        AlertDescription::CertificateExpired => match own() {
            Some(fault @ ChainFault { ca: Some(_), fault: Fault::Expired(_) | Fault::NotYetValid(_) }) => {
                certificate(fault)
            }
            _ => client.validity(),
        },
        AlertDescription::CertificateRevoked => "certificate revoked".to_owned(),
        AlertDescription::UnknownCA => client.unknown_ca(),
        AlertDescription::UnsupportedCertificate => own().map_or_else(
            || "not meant for clients (its extended key usage lacks clientAuth)".to_owned(),
            certificate,
        ),
        AlertDescription::BadCertificate => own().map_or_else(
            || {
                "the worker cannot read it, or does not understand all of it (its audit log says more)"
                    .to_owned()
            },
            certificate,
        ),
        // Where nothing is wrong with the signature itself: the issuer's name is known, its key is another. A CA that was
        // made anew under the same name.
        AlertDescription::DecryptError => own().map_or_else(|| client.unknown_ca(), certificate),
        AlertDescription::AccessDenied => "access denied".to_owned(),
        AlertDescription::CertificateUnknown => own()
            .map_or_else(|| "not acceptable to the worker; why, its audit log says".to_owned(), certificate),
        _ => return None,
    };
    Some(refused(target, &reason))
}

fn refused(target: &Target, reason: &str) -> String {
    let (file, subject) = (target.credentials.cert.display(), ClientCertificate::read(target).subject());
    format!("the worker refused the certificate {file}{subject}: {reason}")
}

fn disagreement(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::ProtocolVersion => "it does not speak TLS 1.3".to_owned(),
        AlertDescription::HandshakeFailure => "no cipher suite or key exchange in common".to_owned(),
        AlertDescription::NoApplicationProtocol => "it does not speak HTTP/2; is that jobworker?".to_owned(),
        AlertDescription::UnrecognisedName => "it does not know itself by that name".to_owned(),
        other => format!("it sent the alert {other:?}"),
    }
}

/// What the client's own certificate says, as far as it can be read.
#[derive(Default)]
struct ClientCertificate {
    common_name: Option<String>,
    issuer: String,
    /// Seconds since the Unix epoch.
    validity: Option<(i64, i64)>,
}

impl ClientCertificate {
    fn read(target: &Target) -> Self {
        let Ok(chain) = pem::certificates("--cert", &target.credentials.cert) else { return Self::default() };
        let Some(der) = chain.first() else { return Self::default() };
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Self::default() };
        let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let validity = certificate.validity();
        Self {
            common_name: common_name.map(str::to_owned),
            issuer: certificate.issuer().to_string(),
            validity: Some((validity.not_before.timestamp(), validity.not_after.timestamp())),
        }
    }

    fn subject(&self) -> String {
        self.common_name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default()
    }

    /// The same alert stands for "no longer" and for "not yet" (RFC 8446, 6.2).
    fn validity(&self) -> String {
        let now = Timestamp::now().as_second();
        match self.validity {
            Some((_, until)) if until < now => format!("certificate expired on {}", words::date(until)),
            Some((from, _)) if now < from => format!("certificate not valid before {}", words::date(from)),
            Some((from, until)) => format!(
                "the worker takes it for expired, though it is valid from {} to {}: are both clocks right?",
                words::date(from),
                words::date(until),
            ),
            None => "certificate expired".to_owned(),
        }
    }

    fn unknown_ca(&self) -> String {
        let mut words = "not signed by a CA that the worker knows".to_owned();
        if !self.issuer.is_empty() {
            let _ = write!(words, " (it was issued by {})", self.issuer);
        }
        words.push_str(", or the worker has no revocation list of that CA");
        words
    }

    /// What workers up to 0.1.0 say with an alert about cipher suites.
    fn unusable_list(&self) -> String {
        let ca = if self.issuer.is_empty() { "its CA".to_owned() } else { format!("the CA {}", self.issuer) };
        format!("the worker's revocation list of {ca} is one of another CA of that name, or not usable")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Credentials;

    fn target() -> Target {
        let credentials = Credentials {
            ca: "ca.pem".into(),
            cert: "no/alice.pem".into(),
            key: "key.pem".into(),
            crl: Vec::new(),
        };
        Target { address: "worker.example:1".parse().expect("an address"), credentials }
    }

    #[test]
    fn alerts_about_the_certificate_are_told_from_others() {
        let words = |alert| explain_refusal(&Error::AlertReceived(alert), &target());
        let refused = "unauthenticated: the worker refused the certificate no/alice.pem: ";
        assert_eq!(words(AlertDescription::CertificateRevoked), format!("{refused}certificate revoked"));
        assert_eq!(words(AlertDescription::CertificateExpired), format!("{refused}certificate expired"));
        let none = "unauthenticated: the worker asks for a certificate and got none";
        assert_eq!(words(AlertDescription::CertificateRequired), none);
        let version = "cannot agree on TLS with worker.example:1: it does not speak TLS 1.3";
        assert_eq!(words(AlertDescription::ProtocolVersion), version);
    }

    #[test]
    fn the_workers_certificate_is_not_taken_for_the_clients() {
        let expired = ChainFault { ca: None, fault: Fault::Expired(36 * 60 * 60) };
        let error = Error::InvalidCertificate(CertificateError::Expired);
        let words = explain_handshake(&error, &target(), Some(&expired));
        assert_eq!(
            words,
            "cannot trust the worker at worker.example:1: its certificate expired on 1970-01-02"
        );
        assert_eq!(names(&[r#"DnsName("localhost")"#.into(), "IpAddress(::1)".into()]), "localhost, ::1");
    }
}
