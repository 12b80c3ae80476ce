//! The CA that renews: its files, who may read the key, and whether the worker would take what it signs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jobworker_certs::{
    Authority, ChainFault, Csr, Days, KeyKind, NewRequest, RequestedNames, RoleOid, utc_text,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::{Pace, Renewal};
use crate::identity::{Certificate, utc};
use crate::tls::{self, Expiry, Files, What};

/// What an operator says about renewals.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The CA's certificate; where another CA has signed it, those above it follow.
    pub ca: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// How long a renewed certificate is valid.
    pub days: Days,
    /// The extension that carries the role.
    pub role_oid: RoleOid,
}

/// A CA that can't be used for renewals.
#[derive(Debug, thiserror::Error)]
pub enum RenewalFileError {
    /// The certificate or the key is not right.
    #[error("can't renew certificates (--renew-ca, --renew-key)")]
    Authority(#[from] jobworker_certs::Error),
    /// Who can read the key can make themselves admin.
    #[error("can't renew certificates: {} has mode {mode:04o}, and others can get at it; chmod 600 (--renew-key)", path.display())]
    OpenKey {
        /// The key's file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Nothing that it signs would be valid.
    #[error("can't renew certificates: the CA in {} ended on {not_after} (--renew-ca)", path.display())]
    Ended {
        /// The certificate's file.
        path: PathBuf,
        /// Its last second.
        not_after: String,
    },
}

impl Renewal {
    /// With the CA in these files.
    ///
    /// # Errors
    /// When a file can't be read or is not what it should be, when they don't fit, when the key is open to others, and
    /// when the CA may not sign (any more).
    pub fn load(settings: &Settings) -> Result<Self, RenewalFileError> {
        let Settings { ca, key, days, role_oid } = settings;
        let authority = Authority::read(ca, key)?;
        let metadata = fs::metadata(key).map_err(|source| jobworker_certs::Error::Io {
            operation: "look at",
            path: key.clone(),
            source,
        })?;
        let mode = metadata.mode() & 0o777;
        if mode & tls::OPEN_TO_OTHERS != 0 {
            return Err(RenewalFileError::OpenKey { path: key.clone(), mode });
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if authority.not_after().unix_timestamp() <= now.cast_signed() {
            let not_after = utc_text(authority.not_after());
            return Err(RenewalFileError::Ended { path: ca.clone(), not_after });
        }
        let end = end(ca, &authority);
        let (authority, role_oid) = (Arc::new(authority), role_oid.clone());
        Ok(Self { authority, end, days: *days, role_oid, pace: Pace::default() })
    }

    /// Where this worker itself would refuse what is renewed, the log says so: others may take it.
    pub fn tell_of_doubt(&self, files: &Files) {
        if let Err(reason) = self.trial(files) {
            let ca = self.end.path.display().to_string();
            tracing::warn!(
                ca,
                reason,
                "this worker will refuse the certificates that it renews (--renew-ca)"
            );
        }
    }

    /// Signs a certificate that nobody gets, and has it verified as a client's is.
    ///
    /// # Errors
    /// Why this worker would refuse it.
    pub(crate) fn trial(&self, files: &Files) -> Result<(), String> {
        let words = |error: &dyn std::error::Error| error.to_string();
        let names = RequestedNames { common_name: Some("trial".to_owned()), ..RequestedNames::default() };
        let request = NewRequest::make(KeyKind::P256, &names).map_err(|error| words(&error))?;
        let csr = Csr::from_der(&request.csr_der).map_err(|error| words(&error))?;
        let renewal = jobworker_certs::Renewal {
            common_name: csr.common_name(),
            uris: &[],
            dns_names: &[],
            role: None,
            role_oid: &self.role_oid,
            days: self.days,
        };
        let signed = self.authority.renew(csr.key(), &renewal).map_err(|error| words(&error))?;
        let chain = signed.certificate_pem + self.authority.intermediates_pem();
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| words(&error))?;
        let (leaf, intermediates) = chain.split_first().ok_or("the CA has signed nothing")?;
        let verifier =
            tls::client_verifier(files, &Arc::new(tls::provider())).map_err(|error| words(&error))?;
        let verified = verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).map(drop);
        verified
            .map_err(|error| format!("such a certificate {}", ChainFault::of(&error, &chain, &[]).words(utc)))
    }
}

fn end(path: &Path, authority: &Authority) -> Expiry {
    let der = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).ok();
    let subject = der.and_then(|der| Certificate::from_der(&der)).map(|certificate| certificate.subject);
    Expiry {
        what: What::RenewalCa,
        path: path.to_owned(),
        subject: subject.unwrap_or_default(),
        not_after_unix_sec: authority.not_after().unix_timestamp(),
    }
}
