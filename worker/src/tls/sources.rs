//! The files' bytes, read once, and what is in them: at least one section of its kind each, nothing past its end.
//!
//! What was in force already may have ended since. That keeps nothing else from coming into force: a new list takes effect
//! beside one that was forgotten, whose CA's clients are refused until it is renewed.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::{Files, TlsError};
use crate::identity::{RevocationList, utc};

pub(super) type Certificates = Vec<CertificateDer<'static>>;
pub(super) type Lists = Vec<CertificateRevocationListDer<'static>>;

const CA: &str = "the CA";
const CERTIFICATE: &str = "the certificate";
const KEY: &str = "the private key";
const LIST: &str = "the revocation list";

/// SHA-256 of a file's bytes.
pub(super) type Sum = [u8; 32];

/// The files as they were at one time.
pub(super) struct Sources {
    pub(super) trust: Trust,
    pub(super) cert: Source,
    pub(super) key: Source,
}

/// What clients are verified by.
pub(super) struct Trust {
    pub(super) ca: Source,
    crl: Vec<Source>,
}

/// A file as it was when it was read.
pub(super) struct Source {
    what: &'static str,
    pub(super) path: PathBuf,
    bytes: Vec<u8>,
    sum: Sum,
    /// The same bytes are in force.
    is_in_force: bool,
}

pub(crate) fn certificates(what: &'static str, path: &Path) -> Result<Certificates, TlsError> {
    Source::read(what, path, &[])?.certificates()
}

pub(crate) fn revocation_lists(path: &Path) -> Result<Lists, TlsError> {
    Source::read(LIST, path, &[])?.revocation_lists()
}

impl Sources {
    /// `in_force`: the files' sums when they came into force; none at start.
    pub(super) fn read(files: &Files, in_force: &[Sum]) -> Result<Self, TlsError> {
        let trust = Trust::read(files, in_force)?;
        let cert = Source::read(CERTIFICATE, &files.cert, in_force)?;
        let key = Source::read(KEY, &files.key, in_force)?;
        Ok(Self { trust, cert, key })
    }

    pub(super) fn sums(&self) -> Vec<Sum> {
        let all = [&self.trust.ca, &self.cert, &self.key].into_iter().chain(&self.trust.crl);
        all.map(|source| source.sum).collect()
    }
}

impl Trust {
    pub(super) fn read(files: &Files, in_force: &[Sum]) -> Result<Self, TlsError> {
        let crl = files.crl.iter().map(|path| Source::read(LIST, path, in_force));
        Ok(Self { ca: Source::read(CA, &files.ca, in_force)?, crl: crl.collect::<Result<_, _>>()? })
    }

    /// The lists of each file, in the order in which the files are given.
    pub(super) fn lists(&self) -> Result<Vec<(&Source, Lists)>, TlsError> {
        self.crl.iter().map(|source| Ok((source, source.revocation_lists()?))).collect()
    }
}

impl Source {
    fn read(what: &'static str, path: &Path, in_force: &[Sum]) -> Result<Self, TlsError> {
        let bytes = fs::read(path).map_err(|error: io::Error| unusable(what, path)(error))?;
        let sum = Sha256::digest(&bytes).into();
        Ok(Self { what, path: path.to_owned(), bytes, sum, is_in_force: in_force.contains(&sum) })
    }

    /// Whether what ends at that second of the Unix epoch has ended, and that counts.
    pub(super) fn has_expired(&self, end: i64) -> bool {
        let now_sec = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        !self.is_in_force && u64::try_from(end).map_or(true, |end| end < now_sec)
    }

    pub(super) fn unusable(&self, reason: impl Display) -> TlsError {
        unusable(self.what, &self.path)(reason)
    }

    pub(super) fn certificates(&self) -> Result<Certificates, TlsError> {
        self.sections("CERTIFICATE")
    }

    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.bytes)
            .map_err(|error| self.unusable(pem_reason(&error, "PRIVATE KEY")))
    }

    fn revocation_lists(&self) -> Result<Lists, TlsError> {
        let lists: Lists = self.sections("X509 CRL")?;
        let ends = lists.iter().filter_map(|list| RevocationList::from_der(list)?.next_update_unix_sec);
        match ends.into_iter().find(|&end| self.has_expired(end)) {
            Some(end) => Err(self.unusable(format!(
                "it expired on {}, and with it nobody would get in; renew it (jobworker certs revoke, openssl ca \
                 -gencrl)",
                utc(end)
            ))),
            None => Ok(lists),
        }
    }

    /// All sections of one kind: at least one.
    fn sections<T: PemObject>(&self, kind: &str) -> Result<Vec<T>, TlsError> {
        let failed = |error: pem::Error| self.unusable(pem_reason(&error, kind));
        let all = T::pem_slice_iter(&self.bytes).collect::<Result<Vec<T>, _>>().map_err(failed)?;
        if all.is_empty() {
            return Err(failed(pem::Error::NoItemsFound));
        }
        Ok(all)
    }
}

fn pem_reason(error: &pem::Error, kind: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("it has no section \"-----BEGIN {kind}-----\" (PEM)"),
        pem::Error::Io(error) => error.to_string(),
        other => format!("it is not PEM: {other}"),
    }
}

fn unusable<E: Display>(what: &'static str, path: &Path) -> impl Fn(E) -> TlsError {
    move |reason| TlsError { what, path: path.to_owned(), reason: reason.to_string() }
}
