//! Whose a revocation list is, as seen from one CA.

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::{
    certificate::X509Certificate, error::X509Error, prelude::FromDer,
    revocation_list::CertificateRevocationList,
};

/// Whose a revocation list is. Two CAs may have one name (all that were made with the defaults have), so the key decides; a
/// verifier takes the first list of the right name for the CA's own, and fails where it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOrigin {
    /// This CA has signed it.
    Own,
    /// Another CA of this one's name has.
    Namesake,
    /// A CA of another name has; or one of the two can't be read.
    Other,
}

impl ListOrigin {
    /// Compares a list with a CA's certificate.
    #[must_use]
    pub fn of(list: &CertificateRevocationListDer<'_>, ca: &CertificateDer<'_>) -> Self {
        let (Ok((_, list)), Ok((_, ca))) =
            (CertificateRevocationList::from_der(list), X509Certificate::from_der(ca))
        else {
            return Self::Other;
        };
        if list.issuer().as_raw() != ca.subject().as_raw() {
            return Self::Other;
        }
        match list.verify_signature(ca.public_key()) {
            // Where this can't tell, the verifier does.
            Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => Self::Own,
            Err(_) => Self::Namesake,
        }
    }
}

/// The lists to verify the certificates of one CA with: where one is its own, all but those of other CAs of its name. Where
/// none is, all: a verifier without lists would take nobody for revoked, and with them says what is wrong.
#[must_use]
pub fn lists_for(
    ca: &CertificateDer<'_>,
    lists: &[CertificateRevocationListDer<'static>],
) -> Vec<CertificateRevocationListDer<'static>> {
    let of_origin: Vec<_> = lists.iter().map(|list| (ListOrigin::of(list, ca), list)).collect();
    let has_own = of_origin.iter().any(|(origin, _)| *origin == ListOrigin::Own);
    let is_usable = |origin: ListOrigin| !has_own || origin != ListOrigin::Namesake;
    of_origin.into_iter().filter(|(origin, _)| is_usable(*origin)).map(|(_, list)| list.clone()).collect()
}
