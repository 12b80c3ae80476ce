//! What a file of the PKI says about itself: a certificate, a revocation list. For words and for dates; what may be
//! trusted, TLS decides.

use std::collections::HashSet;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Name;

/// Who has signed something: the name, and the key's identifier where it is told.
#[derive(Clone, Debug)]
struct Signer {
    name_der: Vec<u8>,
    key_id: Option<Vec<u8>>,
}

/// What a certificate says.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// The common name, else the whole subject.
    pub(crate) subject: String,
    /// The last second of its validity, in seconds since the Unix epoch.
    pub(crate) not_after_unix_sec: i64,
    /// Whether it may sign others.
    pub(crate) is_ca: bool,
    /// Whether it may be a server's: its extended key usage names that, or there is none.
    pub(crate) may_serve: bool,
    /// Whether it may be a client's, likewise.
    pub(crate) may_call: bool,
    /// Who has signed it.
    signer: Signer,
    serial: Vec<u8>,
}

/// What a revocation list says.
#[derive(Clone, Debug)]
pub(crate) struct RevocationList {
    /// The common name of the CA that has signed it, else its whole name.
    pub(crate) issuer: String,
    /// When it should have been replaced, in seconds since the Unix epoch; `None` if it does not say.
    pub(crate) next_update_unix_sec: Option<i64>,
    signer: Signer,
    serials: HashSet<Vec<u8>>,
}

impl Certificate {
    /// Reads one (DER); `None` if it is none.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let purposes = certificate.extended_key_usage().ok()?.map(|extension| extension.value);
        let extensions = certificate.extensions();
        Some(Self {
            subject: common_name(certificate.subject()),
            not_after_unix_sec: certificate.validity().not_after.timestamp(),
            is_ca: certificate.is_ca(),
            may_serve: purposes.is_none_or(|purposes| purposes.server_auth),
            may_call: purposes.is_none_or(|purposes| purposes.client_auth),
            signer: Signer {
                name_der: certificate.issuer().as_raw().to_vec(),
                key_id: extensions.iter().find_map(authority_key_id),
            },
            serial: significant(certificate.raw_serial()),
        })
    }
}

impl RevocationList {
    /// Reads one (DER); `None` if it is none.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        Some(Self {
            issuer: common_name(list.issuer()),
            next_update_unix_sec: list.next_update().map(|time| time.timestamp()),
            signer: Signer {
                name_der: list.issuer().as_raw().to_vec(),
                key_id: list.extensions().iter().find_map(authority_key_id),
            },
            serials: list.iter_revoked_certificates().map(|entry| significant(entry.raw_serial())).collect(),
        })
    }

    /// Whether this list is of the CA that has signed the certificate, and has it.
    pub(crate) fn revokes(&self, certificate: &Certificate) -> bool {
        self.signer.may_be(&certificate.signer) && self.serials.contains(&certificate.serial)
    }
}

impl Signer {
    /// The name alone does not tell: two CAs may share it. Where one says nothing of its key, it has to do.
    fn may_be(&self, other: &Self) -> bool {
        let same_key = match (&self.key_id, &other.key_id) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.name_der == other.name_der && same_key
    }
}

/// A serial number's bytes without the zeros in front, with which some write it and some don't.
fn significant(serial: &[u8]) -> Vec<u8> {
    serial.iter().copied().skip_while(|byte| *byte == 0).collect()
}

fn common_name(name: &X509Name<'_>) -> String {
    let common_name = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    common_name.map_or_else(|| name.to_string(), str::to_owned)
}

fn authority_key_id(extension: &X509Extension<'_>) -> Option<Vec<u8>> {
    match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    }
}
