//! The files that a command is given, PEM: read, with what is wrong with them in words.

use std::path::Path;

use anyhow::{anyhow, bail};
use jobworker_certs::pem_fault;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::files;

/// All certificates in a file: at least one.
///
/// # Errors
/// It can't be read, or holds none. The error names `flag` and the file.
pub(crate) fn certificates(flag: &str, path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    sections(flag, path, "certificate", "CERTIFICATE")
}

/// All revocation lists in a file: at least one.
///
/// # Errors
/// As [`certificates`].
pub(crate) fn revocation_lists(
    flag: &str,
    path: &Path,
) -> anyhow::Result<Vec<CertificateRevocationListDer<'static>>> {
    sections(flag, path, "revocation list", "X509 CRL")
}

/// The private key in a file.
///
/// # Errors
/// As [`certificates`].
pub(crate) fn private_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let (flag, what) = ("--key", "private key");
    let bytes = read(flag, path, what)?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| unusable(flag, path, what, &pem_fault(&error, &bytes, "PRIVATE KEY")))
}

fn sections<T: PemObject>(flag: &str, path: &Path, what: &str, label: &str) -> anyhow::Result<Vec<T>> {
    let bytes = read(flag, path, what)?;
    let all = T::pem_slice_iter(&bytes).collect::<Result<Vec<T>, _>>();
    let all = all.map_err(|error| unusable(flag, path, what, &pem_fault(&error, &bytes, label)))?;
    if all.is_empty() {
        bail!(unusable(flag, path, what, &pem_fault(&Error::NoItemsFound, &bytes, label)));
    }
    Ok(all)
}

fn read(flag: &str, path: &Path, what: &str) -> anyhow::Result<Vec<u8>> {
    files::read(path)
        .map_err(|error| anyhow!("{flag} {}: no {what} can be read from it: {error}", path.display()))
}

fn unusable(flag: &str, path: &Path, what: &str, problem: &str) -> anyhow::Error {
    anyhow!("{flag} {}: no {what} can be read from it: the file {problem}", path.display())
}
