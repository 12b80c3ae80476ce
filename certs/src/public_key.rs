//! A public key that a certificate can be made for, and how people compare two of them.

use std::fmt;

use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData,
    SubjectPublicKeyInfo as Info,
};
use sha2::{Digest, Sha256};
use x509_parser::{public_key::PublicKey as Parsed, x509::SubjectPublicKeyInfo};

use crate::{BadCsr, hex::hex};

/// Bits of an RSA key: below it is weak (NIST SP 800-57), above it nothing here can check a signature.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A key of a kind that is in use here, and strong enough.
#[derive(Clone, Debug)]
pub struct PublicKey {
    pub(crate) info: Info,
    der: Vec<u8>,
}

impl PublicKey {
    /// # Errors
    /// [`BadCsr::Key`]
    pub(crate) fn new(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, BadCsr> {
        if let Ok(Parsed::RSA(key)) = info.parsed()
            && !RSA_BITS.contains(&key.key_size())
        {
            return Err(BadCsr::Key(format!("RSA with {} bits", key.key_size())));
        }
        let known = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_RSA_SHA256];
        let oid = &info.algorithm.algorithm;
        let other = || BadCsr::Key(format!("of another kind ({oid})"));
        let parsed = Info::from_der(info.raw).map_err(|_| other())?;
        if !known.contains(&parsed.algorithm()) {
            return Err(other());
        }
        Ok(Self { info: parsed, der: info.raw.to_vec() })
    }

    /// The `SubjectPublicKeyInfo`, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// What people compare.
    #[must_use]
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of(&self.der)
    }
}

/// The SHA-256 of a public key (its `SubjectPublicKeyInfo`), lower-case hex: what
/// `openssl pkey -pubout -outform DER | sha256sum` says of the private one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFingerprint(String);

impl KeyFingerprint {
    pub(crate) fn of(der: &[u8]) -> Self {
        Self(hex(&Sha256::digest(der)))
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
