//! The files' bytes, read once, and what is in them: at least one section of its kind each.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jobworker_certs::pem_fault;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::{Files, TlsError};

pub(super) type Certificates = Vec<CertificateDer<'static>>;
pub(super) type Lists = Vec<CertificateRevocationListDer<'static>>;

const CA: &str = "the CA";
const CERTIFICATE: &str = "the certificate";
const KEY: &str = "the private key";
const LIST: &str = "the revocation list";

/// Permissions that a private key must not give: read by everybody, or written by others than its owner.
pub(crate) const OPEN_TO_OTHERS: u32 = 0o027;

/// SHA-256.
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
    /// Its permissions.
    pub(super) mode: u32,
    bytes: Vec<u8>,
}

pub(crate) fn certificates(what: &'static str, path: &Path) -> Result<Certificates, TlsError> {
    Source::read(what, path)?.certificates()
}

pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    Source::read(KEY, path)?.private_key()
}

pub(crate) fn revocation_lists(path: &Path) -> Result<Lists, TlsError> {
    Source::read(LIST, path)?.revocation_lists()
}

impl Sources {
    pub(super) fn read(files: &Files) -> Result<Self, TlsError> {
        let trust = Trust::read(files)?;
        let (cert, key) = (Source::read(CERTIFICATE, &files.cert)?, Source::read(KEY, &files.key)?);
        Ok(Self { trust, cert, key })
    }

    /// Of all the files' bytes.
    pub(super) fn digest(&self) -> Sum {
        let all = [&self.trust.ca, &self.cert, &self.key].into_iter().chain(&self.trust.crl);
        let hasher =
            all.fold(Sha256::new(), |hasher, source| hasher.chain_update(Sha256::digest(&source.bytes)));
        hasher.finalize().into()
    }
}

impl Trust {
    pub(super) fn read(files: &Files) -> Result<Self, TlsError> {
        let crl = files.crl.iter().map(|path| Source::read(LIST, path));
        Ok(Self { ca: Source::read(CA, &files.ca)?, crl: crl.collect::<Result<_, _>>()? })
    }

    /// The lists of each file, in the order in which the files are given.
    pub(super) fn lists(&self) -> Result<Vec<(&Source, Lists)>, TlsError> {
        self.crl.iter().map(|source| Ok((source, source.revocation_lists()?))).collect()
    }
}

impl Source {
    fn read(what: &'static str, path: &Path) -> Result<Self, TlsError> {
        let read = || -> io::Result<(u32, Vec<u8>)> {
            let (mut file, mut bytes) = (File::open(path)?, Vec::new());
            file.read_to_end(&mut bytes)?;
            Ok((file.metadata()?.mode() & 0o7777, bytes))
        };
        let (mode, bytes) = read().map_err(|error: io::Error| unusable(what, path)(error))?;
        Ok(Self { what, path: path.to_owned(), mode, bytes })
    }

    pub(super) fn unusable(&self, reason: impl Display) -> TlsError {
        unusable(self.what, &self.path)(reason)
    }

    pub(super) fn certificates(&self) -> Result<Certificates, TlsError> {
        self.sections("CERTIFICATE")
    }

    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.bytes)
            .map_err(|error| self.unusable(pem_reason(&error, &self.bytes, "PRIVATE KEY")))
    }

    fn revocation_lists(&self) -> Result<Lists, TlsError> {
        self.sections("X509 CRL")
    }

    /// All sections of one kind: at least one.
    fn sections<T: PemObject>(&self, kind: &str) -> Result<Vec<T>, TlsError> {
        let failed = |error: pem::Error| self.unusable(pem_reason(&error, &self.bytes, kind));
        let all = T::pem_slice_iter(&self.bytes).collect::<Result<Vec<T>, _>>().map_err(failed)?;
        if all.is_empty() {
            return Err(failed(pem::Error::NoItemsFound));
        }
        Ok(all)
    }
}

fn pem_reason(error: &pem::Error, bytes: &[u8], kind: &str) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        other => format!("it {}", pem_fault(other, bytes, kind)),
    }
}

fn unusable<E: Display>(what: &'static str, path: &Path) -> impl Fn(E) -> TlsError {
    move |reason| TlsError { what, path: path.to_owned(), reason: reason.to_string() }
}
