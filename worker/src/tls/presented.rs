//! The certificate of a client that was not let in, for the audit log: its own word, which nobody vouches for.
//!
//! rustls tells why it refused a certificate, and not which. So the verifier, which sees the whole chain, leaves it with the
//! task whose handshake it is, together with what is wrong with which certificate of it.

use std::cell::RefCell;
use std::sync::Arc;

use jobworker_certs::ChainFault;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

tokio::task_local! {
    static REFUSED: RefCell<Option<Presented>>;
}

/// A certificate that a client showed.
#[derive(Clone, Debug)]
pub(super) struct Presented {
    pub(super) leaf: CertificateDer<'static>,
    pub(super) refused: Refused,
}

/// Why it was refused.
#[derive(Clone, Debug)]
pub(super) enum Refused {
    /// Something is wrong with it, or with one above it.
    Fault(ChainFault),
    /// It is good, and the client has not got its key.
    Anothers,
}

/// What a handshake comes to, and the certificate that it was refused for, if it was.
pub(super) async fn with_refused<T>(handshake: impl Future<Output = T>) -> (T, Option<Presented>) {
    let noted = async {
        let done = handshake.await;
        (done, REFUSED.with(RefCell::take))
    };
    REFUSED.scope(RefCell::default(), noted).await
}

/// A verifier that notes what it refuses.
#[derive(Debug)]
pub(super) struct Noting {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// Those that it trusts.
    pub(super) cas: Vec<CertificateDer<'static>>,
}

impl ClientCertVerifier for Noting {
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verifier.verify_client_cert(leaf, intermediates, now).map_err(|error| {
            let chain: Vec<_> = std::iter::once(leaf).chain(intermediates).cloned().collect();
            note(leaf, Refused::Fault(ChainFault::of(&error, &chain, &self.cas)));
            for_alert(error)
        })
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.verifier.verify_tls13_signature(message, cert, signature);
        if verified.is_err() {
            // A key that is too small verifies nothing, not even what was made with it.
            note(cert, ChainFault::of_key(cert).map_or(Refused::Anothers, Refused::Fault));
        }
        verified
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// What a client hears is an alert, by the kind of the error. For a list that can't be used rustls has "no cipher suite in
/// common"; that the certificate's status is not known is nearer to the truth.
fn for_alert(error: Error) -> Error {
    match error {
        Error::InvalidCertRevocationList(_) => CertificateError::UnknownRevocationStatus.into(),
        error => error,
    }
}

/// Outside of a handshake of ours nobody wants to know.
fn note(leaf: &CertificateDer<'_>, refused: Refused) {
    let presented = Presented { leaf: leaf.clone().into_owned(), refused };
    let _ = REFUSED.try_with(|refused| refused.replace(Some(presented)));
}
