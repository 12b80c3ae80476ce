//! Verifying a client by any of several CAs, each with lists of its own.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// One verifier at least; all with the same cryptography.
#[derive(Debug)]
pub(super) struct AnyOf {
    first: Arc<dyn ClientCertVerifier>,
    others: Vec<Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
}

impl AnyOf {
    /// # Panics
    /// Where there is none.
    #[expect(clippy::new_ret_no_self, reason = "one alone needs nothing around it")]
    pub(super) fn new(mut verifiers: Vec<Arc<dyn ClientCertVerifier>>) -> Arc<dyn ClientCertVerifier> {
        let others = verifiers.split_off(1);
        let [first] = <[_; 1]>::try_from(verifiers).expect("a CA at least");
        if others.is_empty() {
            return first;
        }
        let hints = std::iter::once(&first).chain(&others).flat_map(|one| one.root_hint_subjects()).cloned();
        let hints = hints.collect();
        Arc::new(Self { first, others, hints })
    }
}

impl ClientCertVerifier for AnyOf {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verify = |one: &Arc<dyn ClientCertVerifier>| one.verify_client_cert(leaf, intermediates, now);
        let mut verified = verify(&self.first);
        for other in &self.others {
            match (&verified, verify(other)) {
                (Ok(_), _) => break,
                (Err(one), Err(error)) if nearness(one) >= nearness(&error) => {}
                (Err(_), found) => verified = found,
            }
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.first.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.first.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.first.supported_verify_schemes()
    }
}

/// Whose CA it is, knows best what is wrong with a certificate: one of another name less than one of the same name, whose
/// key does not fit, and that one less than the CA that has signed it.
fn nearness(error: &Error) -> u8 {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => 0,
        Error::InvalidCertificate(CertificateError::BadSignature) => 1,
        _ => 2,
    }
}
