//! Clients' next certificates, over the API: the same names and the same role, for a key that stays with the client.
//!
//! ```text
//!  Renew(csr) ──policy: renew──▶ parse: not too often? its own signature? nobody else's names? ──Permit<Renew>──▶ issue
//!                                what the certificate says comes from the one that the client is connected with, never
//!                                from the request, which gives the public key and nothing else
//! ```
//!
//! The CA's key is in this process then, so whoever takes the worker over can make certificates. That is why nothing is
//! renewed unless an operator says so, and why a CA for this alone is better than the one that signs first certificates.

mod authority;
mod pace;

use std::sync::Arc;

use jobworker_certs::{Authority, BadCsr, ClientNames, Csr, Days, RoleOid, Signed, utc_text};

pub use self::authority::{RenewalFileError, Settings};

use self::pace::Pace;
use crate::identity::{ClientIdentity, RoleProblem};
use crate::policy::{Permit, action};
use crate::tls::Expiry;

/// Certificates of one client in a minute. One is enough; a few more are for programs that share a name.
const MAX_PER_MINUTE: usize = 10;

/// What renews certificates.
#[derive(Debug)]
pub struct Renewal {
    authority: Arc<Authority>,
    end: Expiry,
    days: Days,
    role_oid: RoleOid,
    pace: Pace,
}

/// A certificate that was issued.
#[derive(Debug)]
pub(crate) struct Renewed {
    /// It, and what belongs to it up to a CA that is trusted.
    pub(crate) chain_pem: String,
    /// Its last second.
    pub(crate) not_after_unix_usec: u64,
    /// Lower-case hex without leading zeros, as identities have it.
    pub(crate) serial: String,
    /// Its SHA-256, lower-case hex.
    pub(crate) fingerprint_sha256: String,
}

/// Why none was issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewalError {
    #[error(
        "this worker renews no certificates (its options --renew-ca and --renew-key turn that on); whoever gave you \
         yours has to sign the next one: jobctl cert request, jobworker certs sign"
    )]
    Off,
    #[error("csr: {0}")]
    Request(#[from] BadCsr),
    #[error("a certificate whose role can't be used is not renewed: {0}")]
    NoUsableRole(RoleProblem),
    #[error("{name} has asked for {MAX_PER_MINUTE} certificates within a minute; later, please")]
    TooMany { name: String },
    #[error("a certificate from here would end on {then}, and yours lasts until {now}: nothing is gained")]
    Earlier { now: String, then: String },
    #[error("can't issue the certificate")]
    Issue(#[source] jobworker_certs::Error),
    #[error("the thread that was to issue the certificate is gone")]
    Lost,
}

impl Renewal {
    /// When the CA ends.
    #[must_use]
    pub fn end(&self) -> &Expiry {
        &self.end
    }

    /// What a client asks for, if that is its own next certificate.
    ///
    /// # Errors
    /// When it asks too often, for another's names, or with a request that is not right.
    pub(crate) fn parse(&self, identity: &ClientIdentity, csr: &[u8]) -> Result<action::Renew, RenewalError> {
        if !self.pace.allows(&identity.name) {
            return Err(RenewalError::TooMany { name: identity.name.clone() });
        }
        let csr = Csr::from_der(csr)?;
        let (uris, dns_names) = (&identity.uris, &identity.dns_names);
        csr.for_client(ClientNames { common_name: Some(&identity.common_name), uris, dns_names })?;
        Ok(action::Renew { csr })
    }

    /// Issues it, on a thread where that may take its time: RSA-4096 signs for 8 ms.
    ///
    /// # Errors
    /// When the CA has ended, or the cryptography fails.
    pub(crate) async fn issue(&self, permit: Permit<action::Renew>) -> Result<Renewed, RenewalError> {
        let (authority, role_oid, days) = (Arc::clone(&self.authority), self.role_oid.clone(), self.days);
        let issue = move || issue(&authority, &role_oid, days, &permit);
        tokio::task::spawn_blocking(issue).await.map_err(|_| RenewalError::Lost)?
    }
}

fn issue(
    authority: &Authority,
    role_oid: &RoleOid,
    days: Days,
    permit: &Permit<action::Renew>,
) -> Result<Renewed, RenewalError> {
    let identity = permit.identity();
    let role = match &identity.role {
        Ok(role) => Some(role.as_str()),
        // The policy has found its role elsewhere, by a URI name.
        Err(RoleProblem::Missing) => None,
        Err(problem) => return Err(RenewalError::NoUsableRole(*problem)),
    };
    let then = authority.end_of(days).map_err(RenewalError::Issue)?;
    if then.unix_timestamp() < identity.not_after_unix_sec {
        let now = identity.not_after();
        return Err(RenewalError::Earlier { now, then: utc_text(then) });
    }
    let renewal = jobworker_certs::Renewal {
        common_name: Some(identity.common_name.as_str()).filter(|name| !name.is_empty()),
        uris: &identity.uris,
        dns_names: &identity.dns_names,
        role,
        role_oid,
        days,
    };
    let signed = authority.renew(permit.action().csr.key(), &renewal).map_err(RenewalError::Issue)?;
    let Signed { certificate_pem, fingerprint_sha256, serial, not_after, .. } = signed;
    let usec = not_after.unix_timestamp_nanos() / 1000;
    Ok(Renewed {
        chain_pem: certificate_pem + authority.intermediates_pem(),
        not_after_unix_usec: u64::try_from(usec).unwrap_or_default(),
        serial: serial.digits(),
        fingerprint_sha256,
    })
}
