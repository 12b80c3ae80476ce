//! The revocation list, RFC 5280 §5: read from the signed list itself, extended, signed again.
//!
//! A list is valid as long as its CA: it is handed to the worker as a file, and one that lapsed would either lock
//! everybody out or be ignored.

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use time::{Duration, OffsetDateTime};
use x509_parser::{num_bigint::BigUint, prelude::FromDer, revocation_list::CertificateRevocationList};

use crate::{Authority, Error, Serial, files::pem_contents};

/// What a call to revoke found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// The serial is now on the list.
    Added,
    /// It was there already, since this time; the list was left alone.
    Already(OffsetDateTime),
}

/// The parsed list.
pub(crate) struct RevocationList {
    number: BigUint,
    entries: Vec<RevokedCertParams>,
}

/// Why a list can't be used.
pub(crate) enum Unusable {
    Foreign,
    Malformed(String),
}

impl RevocationList {
    /// A new CA's list.
    pub(crate) fn empty() -> Self {
        Self { number: BigUint::from(1_u8), entries: Vec::new() }
    }

    pub(crate) fn parse(pem: &str, authority: &Authority) -> Result<Self, Unusable> {
        let der = pem_contents(pem, "X509 CRL").map_err(Unusable::Malformed)?;
        let (_, list) = CertificateRevocationList::from_der(&der)
            .map_err(|error| Unusable::Malformed(format!("not a revocation list: {error}")))?;
        if !authority.issued(list.issuer(), list.extensions()) {
            return Err(Unusable::Foreign);
        }
        let entries = list.iter_revoked_certificates().map(|entry| RevokedCertParams {
            serial_number: SerialNumber::from(&Serial::from(&entry.user_certificate)),
            revocation_time: entry.revocation_date.to_datetime(),
            reason_code: entry.reason_code().and_then(|(_, code)| reason(code.0)),
            invalidity_date: entry.invalidity_date().map(|(_, time)| time.to_datetime()),
        });
        Ok(Self { number: list.crl_number().cloned().unwrap_or_default(), entries: entries.collect() })
    }

    /// Adds a serial, without a reason: RFC 5280 §5.3.1 leaves "unspecified" out.
    pub(crate) fn revoke(&mut self, serial: &Serial, now: OffsetDateTime) -> Revocation {
        let serial_number = SerialNumber::from(serial);
        if let Some(entry) = self.entries.iter().find(|entry| entry.serial_number == serial_number) {
            return Revocation::Already(entry.revocation_time);
        }
        self.entries.push(RevokedCertParams {
            serial_number,
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        self.number += 1_u8;
        Revocation::Added
    }

    /// # Errors
    /// [`Error::AuthorityExpired`], [`Error::Crypto`].
    pub(crate) fn sign(self, authority: &Authority, now: OffsetDateTime) -> Result<String, Error> {
        if authority.not_after() <= now {
            return Err(Error::AuthorityExpired { not_after: authority.not_after() });
        }
        let params = CertificateRevocationListParams {
            // Hosts whose clock is a little behind take the list at once.
            this_update: now - Duration::minutes(5),
            next_update: authority.not_after(),
            crl_number: self.number.to_bytes_be().into(),
            issuing_distribution_point: None,
            revoked_certs: self.entries,
            key_identifier_method: match authority.key_id() {
                Some(id) => KeyIdMethod::PreSpecified(id.to_vec()),
                None => KeyIdMethod::Sha256,
            },
        };
        let sign = || params.signed_by(authority.issuer())?.pem();
        sign().map_err(Error::crypto("sign the revocation list"))
    }
}

/// RFC 5280 §5.3.1; 0 is "unspecified", 7 is not in use.
fn reason(code: u8) -> Option<rcgen::RevocationReason> {
    use rcgen::RevocationReason as Reason;
    Some(match code {
        1 => Reason::KeyCompromise,
        2 => Reason::CaCompromise,
        3 => Reason::AffiliationChanged,
        4 => Reason::Superseded,
        5 => Reason::CessationOfOperation,
        6 => Reason::CertificateHold,
        8 => Reason::RemoveFromCrl,
        9 => Reason::PrivilegeWithdrawn,
        10 => Reason::AaCompromise,
        _ => return None,
    })
}
