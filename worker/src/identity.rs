//! Who is at the other end of a connection: what a verified client certificate says, parsed once per connection.
//!
//! The role is a private, non-critical extension whose value is one DER `UTF8String`; everything else is ordinary
//! X.509 (RFC 5280). The only user of x509-parser in this crate. Nothing here verifies a certificate: TLS has.

mod paper;
mod validity;

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use jobworker_certs::RoleOid;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::Oid;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::job::Owner;

pub(crate) use self::paper::{Certificate, RevocationList};
pub(crate) use self::validity::{
    certificate_hosts, certificate_not_after, certificate_validity, revocation_list_next_update, utc,
};

/// The longest name, in bytes: with it, a control request for a shim still fits into one write to a FIFO.
pub const MAX_NAME_BYTES: usize = 256;

/// What a certificate says about its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The first URI name, else the common name: stable across renewals, and the owner of the jobs that it starts.
    /// Not empty, at most [`MAX_NAME_BYTES`], no control characters.
    pub name: String,
    /// The subject's common name; empty where it has none. Checked as `name` is.
    pub common_name: String,
    /// The role, or why there is none.
    pub role: Result<String, RoleProblem>,
    /// The serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// SHA-256 of the certificate, lower-case hex.
    pub fingerprint_sha256: String,
    /// URI names, in the certificate's order.
    pub uris: Vec<String>,
    /// DNS names, in the certificate's order.
    pub dns_names: Vec<String>,
    /// The last second of its validity, in seconds since the Unix epoch.
    pub not_after_unix_sec: i64,
}

/// Why a certificate carries no usable role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoleProblem {
    /// No role extension.
    #[error("it has no role extension")]
    Missing,
    /// More than one, so that it is anybody's guess which counts.
    #[error("it has the role extension more than once")]
    Repeated,
    /// Not what a role's extension should be.
    #[error("its role extension is not a UTF8String of 1 to 127 bytes without control characters")]
    Malformed,
}

/// Why a certificate identifies nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not X.509, or not all of it.
    #[error("the certificate can't be read: {0}")]
    Malformed(String),
    /// Nothing to call the client by.
    #[error("the certificate names nobody: it has neither a URI name nor a common name")]
    NoName,
    /// More than one common name: which one counts is anybody's guess.
    #[error("the certificate has more than one common name")]
    ManyCommonNames,
    /// A name that can't be used as one.
    #[error(
        "the certificate's {which} is not 1 to {MAX_NAME_BYTES} bytes of UTF-8 without control characters"
    )]
    BadName {
        /// Which of its names.
        which: &'static str,
    },
}

/// A certificate that gives its holder no usable name. What of it names the certificate itself is kept, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamelessCertificate {
    /// Why there is no name.
    pub error: IdentityError,
    /// The serial number, as [`ClientIdentity::serial`]; empty where the certificate can't be read.
    pub serial: String,
    /// As [`ClientIdentity::fingerprint_sha256`].
    pub fingerprint_sha256: String,
}

impl NamelessCertificate {
    /// What stands for the holder's name in log lines and in caps per client. No certificate has it as its name by
    /// accident, and who takes it on purpose shares a cap with a client that may do nothing.
    pub fn placeholder(&self) -> String {
        format!("nobody (certificate {})", self.fingerprint_sha256)
    }
}

impl ClientIdentity {
    /// As [`Self::from_der`], and keeps what names a certificate that names nobody.
    ///
    /// # Errors
    /// When the certificate names nobody.
    pub fn read(der: &[u8], role_oid: &RoleOid) -> Result<Self, NamelessCertificate> {
        Self::from_der(der, role_oid).map_err(|error| {
            let serial = X509Certificate::from_der(der)
                .map_or_else(|_| String::new(), |(_, certificate)| format!("{:x}", certificate.serial));
            NamelessCertificate { error, serial, fingerprint_sha256: hex(&Sha256::digest(der)) }
        })
    }

    /// Reads a certificate (DER). `role_oid` names the extension that holds the role.
    ///
    /// # Errors
    /// When it can't be read or names nobody. A role that can't be used is no error: every call is refused in words.
    pub fn from_der(der: &[u8], role_oid: &RoleOid) -> Result<Self, IdentityError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(malformed)?;
        if !rest.is_empty() {
            return Err(IdentityError::Malformed(format!("{} bytes follow it", rest.len())));
        }
        let (uris, dns_names) = alternative_names(&certificate)?;
        let common_name = common_name(&certificate)?;
        let name = match (uris.first(), &common_name) {
            (Some(uri), _) => usable("first URI name", uri)?,
            (None, Some(common_name)) => common_name.clone(),
            (None, None) => return Err(IdentityError::NoName),
        };
        Ok(Self {
            name,
            common_name: common_name.unwrap_or_default(),
            role: role(&certificate, role_oid),
            serial: format!("{:x}", certificate.serial),
            fingerprint_sha256: hex(&Sha256::digest(der)),
            uris,
            dns_names,
            not_after_unix_sec: certificate.validity().not_after.timestamp(),
        })
    }

    /// Whether the certificate's validity has ended by `now`. TLS has checked the beginning.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        let now_sec = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        i64::try_from(now_sec).is_ok_and(|now_sec| self.not_after_unix_sec < now_sec)
    }

    /// The certificate's end, for people.
    pub fn not_after(&self) -> String {
        utc(self.not_after_unix_sec)
    }

    /// This client as the owner of a job. The role is empty where there is no usable one; no policy lets such a
    /// client start anything.
    pub fn owner(&self) -> Owner {
        Owner {
            name: self.name.clone(),
            common_name: self.common_name.clone(),
            role: self.role.clone().unwrap_or_default(),
            serial: self.serial.clone(),
            fingerprint_sha256: self.fingerprint_sha256.clone(),
        }
    }
}

fn malformed(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Malformed(error.to_string())
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Result<(Vec<String>, Vec<String>), IdentityError> {
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    let Some(extension) = certificate.subject_alternative_name().map_err(malformed)? else {
        return Ok((uris, dns_names));
    };
    for name in &extension.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
            _ => {}
        }
    }
    Ok((uris, dns_names))
}

fn common_name(certificate: &X509Certificate<'_>) -> Result<Option<String>, IdentityError> {
    let mut names = certificate.subject().iter_common_name();
    let Some(name) = names.next() else { return Ok(None) };
    if names.next().is_some() {
        return Err(IdentityError::ManyCommonNames);
    }
    let which = "common name";
    let text = name.as_str().map_err(|_| IdentityError::BadName { which })?;
    usable(which, text).map(Some)
}

fn usable(which: &'static str, name: &str) -> Result<String, IdentityError> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(IdentityError::BadName { which });
    }
    Ok(name.to_owned())
}

fn role(certificate: &X509Certificate<'_>, role_oid: &RoleOid) -> Result<String, RoleProblem> {
    let oid: Oid<'static> = role_oid.to_string().parse().expect("a RoleOid is an object identifier");
    let extension = certificate.get_extension_unique(&oid).map_err(|_| RoleProblem::Repeated)?;
    let value = extension.ok_or(RoleProblem::Missing)?.value;
    role_text(value).map(str::to_owned).ok_or(RoleProblem::Malformed)
}

/// A DER `UTF8String` in the short length form, and nothing after it (X.690, 8.1.3.4).
fn role_text(der: &[u8]) -> Option<&str> {
    const UTF8_STRING: u8 = 0x0c;
    let [UTF8_STRING, length @ 1..=0x7f, text @ ..] = der else { return None };
    let text = str::from_utf8(text).ok().filter(|text| text.len() == usize::from(*length))?;
    (!text.chars().any(char::is_control)).then_some(text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
