//! Until when files of the PKI are valid, for words at start: a certificate, a revocation list.

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// The last second of a certificate's validity, in seconds since the Unix epoch; `None` if it is no certificate.
pub(crate) fn certificate_not_after(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// When a revocation list should have been replaced, in seconds since the Unix epoch; `None` if it does not say.
pub(crate) fn revocation_list_next_update(der: &[u8]) -> Option<i64> {
    let (_, list) = CertificateRevocationList::from_der(der).ok()?;
    list.next_update().map(|time| time.timestamp())
}

/// A time as people read it.
pub(crate) fn utc(unix_sec: i64) -> String {
    Timestamp::from_second(unix_sec)
        .map_or_else(|_| format!("{unix_sec} s after 1970"), |time| time.to_string())
}
