//! TLS 1.3 with certificates on both sides: what is agreed on, and whom the worker trusts.
//!
//! There is no resumption (no session tickets), so every connection is verified anew: its chain up to a CA of `--ca`,
//! its dates, that it is meant for clients, and that no list of `--crl` revokes it. With `--crl`, a certificate whose
//! status can't be told (no list of its CA, or one past its next update) is refused, with a line in the audit log that
//! says so. A worker whose lists have all ended does not start (`ended`).
//!
//! Files are read at start, on SIGHUP and when they change ([`live`]): together, and all or none of them come into force
//! (`set`). From then on handshakes are by the new ones, and who is connected is verified again (`chains`): a certificate
//! that is revoked, or whose CA is gone, is cut off, as is one whose end has come (`cut`).

mod accept;
mod any_of;
mod chains;
mod clock;
mod connection;
mod cut;
mod ended;
mod expiry;
mod frames;
pub mod live;
mod presented;
mod refusal;
mod set;
mod sources;

use std::path::PathBuf;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};

pub use self::accept::{Door, incoming};
pub use self::chains::Chain;
pub use self::connection::{Connection, NamelessPeer, Peer, Verified};
pub use self::cut::CutOff;
pub use self::expiry::{Expiry, What};
pub use self::set::server_config;
pub(crate) use self::set::{client_verifier, warnings};
pub(crate) use self::sources::{OPEN_TO_OTHERS, certificates, private_key, revocation_lists};

/// The files, all PEM.
#[derive(Clone, Debug)]
pub struct Files {
    /// Certificates of the CAs that sign clients' certificates.
    pub ca: PathBuf,
    /// The worker's certificate, and intermediates after it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Revocation lists, one for each CA; none: nobody is revoked.
    pub crl: Vec<PathBuf>,
}

/// A file that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("can't use {what} {}: {reason}", path.display())]
pub struct TlsError {
    what: &'static str,
    path: PathBuf,
    reason: String,
}

/// The cryptography: suites of TLS 1.3 only, AES-GCM first, because ChaCha20 costs twice as much where the processor
/// helps with AES. The key exchange is the client's choice of X25519MLKEM768, X25519, P-256 and P-384.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    }
}

#[cfg(test)]
mod tests;
