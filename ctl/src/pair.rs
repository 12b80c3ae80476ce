//! The two files of a certificate and its key, and their replacement by another pair.
//!
//! Two files can't be replaced at once, and a certificate beside the other one's key is of no use. So the new pair is
//! written whole beside the old one, and one rename decides which of the two counts; what is left to do then is done by
//! whoever comes next, if it is not this process.
//!
//! ```text
//!                   alice.pem   alice-key.pem   beside them
//!  keep             old         old             alice.pem.old       alice-key.pem.old        crash: the old pair
//!  write, fsync     old         old             alice.pem.part      alice-key.pem.part       crash: the old pair
//!  publish 1        old         old             alice.pem.renewed   alice-key.pem.part       crash: the old pair
//!  publish 2        old         old             alice.pem.renewed   alice-key.pem.renewed  ◀ from here on: the new pair
//!  place 1          new         old                                 alice-key.pem.renewed    completed at the next start
//!  place 2          new         new                                                          done
//! ```
//!
//! Each line is one rename and one fsync of its folder. `alice-key.pem.renewed` alone says that there is something to
//! complete, so every other start looks for that one name and nothing else. A lock on the folder (flock) keeps two
//! renewals, and a renewal and a completion, apart.

mod files;
mod former;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jobworker_certs::RoleOid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use self::files::{beside, folder, followed, remove, rename, sync_folder, write_beside};
use crate::config::Credentials;
use crate::{own, tls};

/// Where a certificate and its key are.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    cert: PathBuf,
    key: PathBuf,
}

impl Pair {
    /// The file of the certificate, and of the chain behind it.
    pub(crate) fn cert(&self) -> &Path {
        &self.cert
    }

    /// The file of the key.
    pub(crate) fn key(&self) -> &Path {
        &self.key
    }

    /// Links are followed: it is the files that are replaced.
    pub(crate) fn of(credentials: &Credentials) -> Self {
        Self { cert: followed(&credentials.cert), key: followed(&credentials.key) }
    }

    /// Brings a replacement to its end that was interrupted after it had been decided.
    ///
    /// # Errors
    /// When there is one, and it can't be.
    pub(crate) fn complete(&self) -> anyhow::Result<()> {
        let renewed = beside(&self.key, "renewed");
        if fs::symlink_metadata(&renewed).is_err() {
            return Ok(());
        }
        let again = || format!("cannot complete the renewal whose key is in {}", renewed.display());
        let _lock = self.lock().with_context(again)?;
        // Somebody else may have done so meanwhile.
        if fs::symlink_metadata(&renewed).is_err() {
            return Ok(());
        }
        self.complete_locked(&renewed).with_context(again)
    }

    fn complete_locked(&self, key: &Path) -> anyhow::Result<()> {
        let cert = beside(&self.cert, "renewed");
        if cert.exists() && fits(&cert, key)? && self.is_outlived_by(&cert)? {
            Step::PlaceCert.take(self)?;
            return Step::PlaceKey.take(self);
        }
        if fits(&self.cert, key)? {
            return Step::PlaceKey.take(self);
        }
        // Both files were replaced by hand since.
        self.forget_published()
    }

    fn is_outlived_by(&self, renewed: &Path) -> anyhow::Result<bool> {
        let end = |path: &Path| own::read(path, &RoleOid::default()).map(|leaf| leaf.not_after_unix_sec);
        // Two renewals within a second end at the same time.
        Ok(end(renewed)? >= end(&self.cert)?)
    }

    /// The key first: without it nothing is to be completed.
    fn forget_published(&self) -> anyhow::Result<()> {
        for path in [beside(&self.key, "renewed"), beside(&self.cert, "renewed")] {
            remove(&path)?;
        }
        sync_folder(&self.key)
    }

    /// Writes a pair beside this one. Nothing counts before [`Staged::replace`].
    ///
    /// # Errors
    /// When it can't be written; then nothing is left of it.
    pub(crate) fn stage(&self, chain_pem: &str, key_pem: &str) -> anyhow::Result<Staged> {
        let lock = self.lock()?;
        let staged = Staged { pair: self.clone(), _lock: lock };
        if self.is_one_file() {
            write_beside(&self.key, format!("{key_pem}{chain_pem}").as_bytes(), KEY_BITS)?;
        } else {
            write_beside(&self.cert, chain_pem.as_bytes(), CERT_BITS)?;
            write_beside(&self.key, key_pem.as_bytes(), KEY_BITS)?;
        }
        Ok(staged)
    }

    fn is_one_file(&self) -> bool {
        self.cert == self.key
    }

    /// Waits until nobody else replaces or completes in this folder. The kernel gives it up when the process ends.
    fn lock(&self) -> anyhow::Result<File> {
        let folder = folder(&self.cert);
        let lock = File::open(folder).and_then(|file| file.lock().map(|()| file));
        lock.with_context(|| format!("cannot lock the folder {}", folder.display()))
    }
}

/// What becomes of the pair that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Former {
    /// It is kept beside the new one, as [`Pair::former`]; one that was kept there before is given up.
    Keep,
    /// It is given up.
    GiveUp,
}

/// A pair that is written, and does not count yet. Dropped, it is removed.
pub(crate) struct Staged {
    pair: Pair,
    _lock: File,
}

impl Staged {
    /// The pair, to be tried.
    pub(crate) fn credentials(&self, before: &Credentials) -> Credentials {
        let Pair { cert, key } = &self.pair;
        Credentials { cert: beside(cert, "part"), key: beside(key, "part"), ..before.clone() }
    }

    /// Puts it in the place of the other one, which is kept beside it if that is asked for.
    ///
    /// # Errors
    /// When a file can't be put in its place. The old pair is usable then.
    pub(crate) fn replace(self, former: Former) -> anyhow::Result<()> {
        let pair = &self.pair;
        if former == Former::Keep {
            pair.keep()?;
        }
        if pair.is_one_file() {
            return rename(&beside(&pair.key, "part"), &pair.key);
        }
        let before = fs::read(&pair.cert).with_context(|| format!("cannot read {}", pair.cert.display()))?;
        for step in Step::ALL {
            if let Err(error) = step.take(pair) {
                take_back(pair, &before)?;
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for path in [&self.pair.key, &self.pair.cert] {
            // It holds a key that nobody needs; the next renewal removes it, if this can't.
            let _ = remove(&beside(path, "part"));
        }
    }
}

/// One rename each; see the picture above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    PublishCert,
    PublishKey,
    PlaceCert,
    PlaceKey,
}

impl Step {
    const ALL: [Self; 4] = [Self::PublishCert, Self::PublishKey, Self::PlaceCert, Self::PlaceKey];

    fn take(self, pair: &Pair) -> anyhow::Result<()> {
        let Pair { cert, key } = pair;
        match self {
            Self::PublishCert => rename(&beside(cert, "part"), &beside(cert, "renewed")),
            Self::PublishKey => rename(&beside(key, "part"), &beside(key, "renewed")),
            Self::PlaceCert => rename(&beside(cert, "renewed"), cert),
            Self::PlaceKey => rename(&beside(key, "renewed"), key),
        }
    }
}

/// After a step that failed: the old pair, whichever files were replaced. A crash in here leaves what the next start
/// completes or forgets.
fn take_back(pair: &Pair, certificate: &[u8]) -> anyhow::Result<()> {
    let now = fs::read(&pair.cert).unwrap_or_default();
    if now != certificate {
        if !beside(&pair.key, "renewed").exists() {
            // The last rename was done, and only its fsync failed.
            return Ok(());
        }
        write_beside(&pair.cert, certificate, CERT_BITS)?;
        rename(&beside(&pair.cert, "part"), &pair.cert)?;
    }
    pair.forget_published()
}

/// Permissions that a new file takes over from the old one: a key's never reach everybody.
const CERT_BITS: u32 = 0o777;
const KEY_BITS: u32 = 0o740;

/// Whether this key is that of the certificate.
fn fits(cert: &Path, key: &Path) -> anyhow::Result<bool> {
    let chain = vec![
        CertificateDer::from_pem_file(cert)
            .with_context(|| format!("{}: no certificate can be read from it", cert.display()))?,
    ];
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("{}: no private key can be read from it", key.display()))?;
    match CertifiedKey::from_der(chain, private, &tls::provider()) {
        Ok(_) => Ok(true),
        Err(rustls::Error::InconsistentKeys(_)) => Ok(false),
        Err(error) => bail!("{} and {}: {error}", cert.display(), key.display()),
    }
}

#[cfg(test)]
mod tests;
