//! A certificate request of one's own, with a new private key that goes nowhere.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData, SanType};

use crate::{Error, Host, KeyFingerprint, KeyKind, names::ia5_name};

/// What a request is to ask for.
#[derive(Clone, Debug, Default)]
pub struct RequestedNames {
    /// The common name.
    pub common_name: Option<String>,
    /// URI names.
    pub uris: Vec<String>,
    /// Hosts, where it is for a server.
    pub hosts: Vec<Host>,
}

/// A new private key and the request that was signed with it.
pub struct NewRequest {
    /// The private key, PKCS #8 PEM.
    pub key_pem: String,
    /// The request, PEM.
    pub csr_pem: String,
    /// The request, DER.
    pub csr_der: Vec<u8>,
    /// The public key, as a certificate has it (`SubjectPublicKeyInfo`, DER).
    pub public_key: Vec<u8>,
}

impl NewRequest {
    /// Makes a key, and a request for it.
    ///
    /// # Errors
    /// [`Error::Crypto`] if the key can't be made, or a name is not ASCII where that is needed.
    pub fn make(key: KeyKind, names: &RequestedNames) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = &names.common_name {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        let uris = names.uris.iter().map(|uri| ia5_name(uri, SanType::URI));
        let hosts = names.hosts.iter().map(Host::alternative_name);
        params.subject_alt_names = uris.chain(hosts).collect::<Result<_, _>>()?;
        let key = key.generate()?;
        let sign = Error::crypto("sign a certificate request");
        let (csr, csr_pem) =
            params.serialize_request(&key).and_then(|csr| csr.pem().map(|pem| (csr, pem))).map_err(sign)?;
        Ok(Self {
            key_pem: key.serialize_pem(),
            csr_pem,
            csr_der: csr.der().to_vec(),
            public_key: key.subject_public_key_info(),
        })
    }

    /// What the signer is to compare.
    #[must_use]
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of(&self.public_key)
    }
}

impl fmt::Debug for NewRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The private key stays out of logs and panics.
        f.debug_struct("NewRequest").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}
