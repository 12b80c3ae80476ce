//! What a certificate says about its holder, for the holder: `jobctl cert`.

use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::{KeyFingerprint, RoleOid, Serial, authority::authority_key_id, hex::hex};

/// A client's certificate.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The first common name of the subject.
    pub common_name: Option<String>,
    /// URI names, in the certificate's order.
    pub uris: Vec<String>,
    /// DNS names, in the certificate's order.
    pub dns_names: Vec<String>,
    /// The CA that has signed it.
    pub issuer: IssuerId,
    /// The role, where there is one, and one only.
    pub role: Option<String>,
    /// The serial number.
    pub serial: Serial,
    /// Its last second, in seconds since the Unix epoch.
    pub not_after_unix_sec: i64,
    /// SHA-256 of the whole certificate, lower-case hex.
    pub fingerprint_sha256: String,
    /// The public key (`SubjectPublicKeyInfo`, DER).
    pub public_key: Vec<u8>,
}

/// A CA as its certificates name it. Two with the same name are told apart by the key, where both say which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerId {
    /// The common name, else the whole name.
    pub name: String,
    name_der: Vec<u8>,
    key_id: Option<Vec<u8>>,
}

impl Leaf {
    /// Reads a certificate (DER). Nothing is verified.
    ///
    /// # Errors
    /// Why it can't be read.
    pub fn from_der(der: &[u8], role_oid: &RoleOid) -> Result<Self, String> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| format!("not a certificate: {error}"))?;
        let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
        let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                _ => {}
            }
        }
        let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let extension = certificate.get_extension_unique(&role_oid.parsed()).ok().flatten();
        Ok(Self {
            common_name: common_name.map(str::to_owned),
            issuer: issuer(&certificate),
            uris,
            dns_names,
            role: extension.and_then(|extension| RoleOid::role_text(extension.value)).map(str::to_owned),
            serial: Serial::from(&certificate.serial),
            not_after_unix_sec: certificate.validity().not_after.timestamp(),
            fingerprint_sha256: hex(&Sha256::digest(der)),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }

    /// The key's own fingerprint, as requests show it.
    #[must_use]
    pub fn key_fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of(&self.public_key)
    }
}

fn issuer(certificate: &X509Certificate<'_>) -> IssuerId {
    let name = certificate.issuer();
    let common_name = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    IssuerId {
        name: common_name.map_or_else(|| name.to_string(), str::to_owned),
        name_der: name.as_raw().to_vec(),
        key_id: certificate.extensions().iter().find_map(authority_key_id).map(<[u8]>::to_vec),
    }
}
