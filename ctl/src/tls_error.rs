//! TLS failures in words: which certificate, whose objection, and what is wrong with it.

use std::fmt::Write;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject};
use rustls::{AlertDescription, CertificateError, Error};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::Target;
use crate::render::words;

/// Says what `error` means for a client of `target`.
pub(crate) fn explain(error: &Error, target: &Target) -> String {
    let worker = &target.address;
    match error {
        Error::InvalidCertificate(error) => {
            format!("cannot trust the worker at {worker}: {}", worker_certificate(error, target))
        }
        Error::AlertReceived(alert) => match refusal(*alert, target) {
            Some(words) => format!("unauthenticated: {words}"),
            None => format!("cannot agree on TLS with {worker}: {}", disagreement(*alert)),
        },
        Error::InvalidMessage(_) => {
            format!("cannot talk to {worker}: it does not speak TLS; is that jobworker?")
        }
        Error::PeerIncompatible(_) => {
            format!("cannot agree on TLS with {worker}: {error} (jobctl needs TLS 1.3)")
        }
        _ => format!("TLS with {worker} failed: {error}"),
    }
}

/// Why jobctl does not trust the worker's certificate.
fn worker_certificate(error: &CertificateError, target: &Target) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("its certificate is not signed by the CA in {}", target.credentials.ca.display())
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("its certificate is not for {:?} but for {}", target.address.host(), names(presented))
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate expired on {}", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!(
                "its certificate is not valid before {}; is this machine's clock right?",
                date(*not_before)
            )
        }
        CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not meant for servers".to_owned()
        }
        other => format!("its certificate: {other}"),
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

fn date(time: UnixTime) -> String {
    i64::try_from(time.as_secs()).map_or_else(|_| "an unknown day".to_owned(), words::date)
}

/// Why the worker refused the client's certificate; `None` for an alert about something else.
fn refusal(alert: AlertDescription, target: &Target) -> Option<String> {
    let file = target.credentials.cert.display();
    let client = ClientCertificate::read(target);
    let reason = match alert {
        AlertDescription::CertificateRequired => {
            return Some("the worker asks for a certificate and got none".to_owned());
        }
        AlertDescription::CertificateExpired => client.validity(),
        AlertDescription::CertificateRevoked => "certificate revoked".to_owned(),
        AlertDescription::UnknownCA => client.unknown_ca(),
        AlertDescription::UnsupportedCertificate => {
            "not meant for clients (its extended key usage lacks clientAuth)".to_owned()
        }
        AlertDescription::BadCertificate => "bad certificate".to_owned(),
        // The issuer's name is known, its signature does not fit: a CA that was made anew under the same name.
        AlertDescription::DecryptError => client.unknown_ca(),
        AlertDescription::AccessDenied => "access denied".to_owned(),
        AlertDescription::CertificateUnknown => "not acceptable for some other reason".to_owned(),
        _ => return None,
    };
    Some(format!("the worker refused the certificate {file}{}: {reason}", client.subject()))
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
        let Ok(der) = CertificateDer::from_pem_file(&target.credentials.cert) else { return Self::default() };
        let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return Self::default() };
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Credentials;

    fn target() -> Target {
        let credentials =
            Credentials { ca: "ca.pem".into(), cert: "no/alice.pem".into(), key: "key.pem".into() };
        Target { address: "worker.example:1".parse().expect("an address"), credentials }
    }

    #[test]
    fn alerts_about_the_certificate_are_told_from_others() {
        let words = |alert| explain(&Error::AlertReceived(alert), &target());
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
        let until = UnixTime::since_unix_epoch(std::time::Duration::from_hours(36));
        let expired = CertificateError::ExpiredContext { time: UnixTime::now(), not_after: until };
        let words = explain(&Error::InvalidCertificate(expired), &target());
        assert_eq!(
            words,
            "cannot trust the worker at worker.example:1: its certificate expired on 1970-01-02"
        );
        assert_eq!(names(&[r#"DnsName("localhost")"#.into(), "IpAddress(::1)".into()]), "localhost, ::1");
    }
}
