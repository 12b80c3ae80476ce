//! What a certificate says about its holder, for the holder: `jobctl cert`.

use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::{KeyFingerprint, RoleOid, Serial, hex::hex};

/// A client's certificate.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The first common name of the subject.
    pub common_name: Option<String>,
    /// URI names, in the certificate's order.
    pub uris: Vec<String>,
    /// DNS names, in the certificate's order.
    pub dns_names: Vec<String>,
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
