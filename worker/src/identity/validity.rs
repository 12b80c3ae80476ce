//! Until when files of the PKI are valid, and for which hosts, for words at start: a certificate, a revocation list.

use std::net::IpAddr;

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// The last second of a certificate's validity, in seconds since the Unix epoch; `None` if it is no certificate.
pub(crate) fn certificate_not_after(der: &[u8]) -> Option<i64> {
    certificate_validity(der).map(|(_, end)| end)
}

/// The first and the last second of a certificate's validity, as [`certificate_not_after`].
pub(crate) fn certificate_validity(der: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// The DNS names and IP addresses that a server's certificate is for; none if it is no certificate.
pub(crate) fn certificate_hosts(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None,
    };
    extension.value.general_names.iter().filter_map(host).collect()
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
