//! The kinds of private key on offer.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};

use crate::Error;

/// A kind of key; what it signs is signed with SHA-256 (Ed25519 has SHA-512 built in).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyKind {
    /// ECDSA on NIST P-256: small and fast, understood everywhere
    #[default]
    P256,
    /// Ed25519: small and fast, unknown to some older tools
    Ed25519,
    /// RSA with 4096 bits: for tools that know nothing else; a handshake costs over a hundred times more
    Rsa4096,
}

impl KeyKind {
    pub(crate) fn generate(self) -> Result<KeyPair, Error> {
        match self {
            Self::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::Ed25519 => KeyPair::generate_for(&PKCS_ED25519).and_then(|key| without_public_half(&key)),
            Self::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
        }
        .map_err(Error::crypto("generate a key"))
    }
}

/// rcgen writes an Ed25519 key as PKCS #8 version 2, with its public half (RFC 5958), which openssl 3.0 can't read;
/// version 1 (RFC 8410 §7) is read everywhere.
fn without_public_half(key: &KeyPair) -> Result<KeyPair, rcgen::Error> {
    // The sequence with its length, the version; then what both versions share.
    const V2: [u8; 5] = [0x30, 0x51, 0x02, 0x01, 0x01];
    const V1: [u8; 5] = [0x30, 0x2e, 0x02, 0x01, 0x00];
    const SHARED_BYTES: usize = 43;
    let rest = key.serialized_der().strip_prefix(&V2).and_then(|rest| rest.get(..SHARED_BYTES));
    KeyPair::try_from([&V1, rest.ok_or(rcgen::Error::CouldNotParseKeyPair)?].concat())
}
