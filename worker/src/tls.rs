//! TLS 1.3 with certificates on both sides: what is agreed on, and whom the worker trusts.
//!
//! There is no resumption (no session tickets), so every connection is verified anew: its chain up to a CA of `--ca`,
//! its dates, that it is meant for clients, and that no list of `--crl` revokes it. With `--crl`, a certificate whose
//! status can't be told (no list of its CA, or one past its next update) is refused: at start with an error, later
//! with a line in the audit log that says so. Files are read at start; after a change the worker is restarted, which
//! touches no job.

mod accept;
mod connection;
mod refusal;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};

pub use self::accept::{Door, incoming};
pub use self::connection::{Connection, Peer};
use crate::identity::{certificate_not_after, revocation_list_next_update, utc};

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
    pub crl: Option<PathBuf>,
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

/// The server's side of TLS.
///
/// # Errors
/// When a file can't be read, is not what it should be, does not fit the others, or has expired.
pub fn server_config(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(provider());
    let verifier = client_verifier(files, &provider)?;
    let chain: Vec<_> = certificates("the certificate", &files.cert)?;
    let expired = certificate_not_after(&chain[0]).filter(|&end| has_passed(end));
    if let Some(end) = expired {
        return Err(unusable("the certificate", &files.cert)(format!("it expired on {}", utc(end))));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unusable("the private key", &files.key)(pem_reason(&error, "PRIVATE KEY")))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| unusable("the private key", &files.key)(key_reason(&error, &files.cert)))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Resumption would skip the verification.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    // The server's order of suites, whatever the client prefers.
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

pub(crate) fn client_verifier(
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the CA", &files.ca)? {
        roots.add(certificate).map_err(unusable("the CA", &files.ca))?;
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let Some(path) = &files.crl {
        verifier = verifier.with_crls(revocation_lists(path)?).enforce_revocation_expiration();
    }
    let blamed = files.crl.as_ref().unwrap_or(&files.ca);
    verifier.build().map_err(unusable("the revocation list", blamed))
}

pub(crate) fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    sections(what, path, "CERTIFICATE")
}

pub(crate) fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let what = "the revocation list";
    let lists = sections::<CertificateRevocationListDer<'static>>(what, path, "X509 CRL")?;
    match lists.iter().filter_map(|list| revocation_list_next_update(list)).find(|&end| has_passed(end)) {
        Some(end) => Err(unusable(what, path)(format!(
            "it expired on {}, and with it nobody would get in; renew it (jobworker certs revoke, openssl ca -gencrl)",
            utc(end)
        ))),
        None => Ok(lists),
    }
}

/// All sections of one kind in a PEM file: at least one.
fn sections<T: PemObject>(what: &'static str, path: &Path, kind: &str) -> Result<Vec<T>, TlsError> {
    let failed = |error: pem::Error| unusable(what, path)(pem_reason(&error, kind));
    let all = T::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<T>, _>>().map_err(failed)?;
    if all.is_empty() {
        return Err(failed(pem::Error::NoItemsFound));
    }
    Ok(all)
}

fn pem_reason(error: &pem::Error, kind: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("it has no section \"-----BEGIN {kind}-----\" (PEM)"),
        pem::Error::Io(error) => error.to_string(),
        other => format!("it is not PEM: {other}"),
    }
}

fn key_reason(error: &rustls::Error, cert: &Path) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("it is not the key of the certificate {}", cert.display())
        }
        other => other.to_string(),
    }
}

fn unusable<E: Display>(what: &'static str, path: &Path) -> impl Fn(E) -> TlsError {
    move |reason| TlsError { what, path: path.to_owned(), reason: reason.to_string() }
}

fn has_passed(unix_sec: i64) -> bool {
    let now_sec = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    u64::try_from(unix_sec).map_or(true, |unix_sec| unix_sec < now_sec)
}

#[cfg(test)]
mod tests;
