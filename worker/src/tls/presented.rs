//! The certificate of a client that was not let in, for the audit log: its own word, which nobody vouches for.
//!
//! rustls tells why it refused a certificate, and not which. So the verifier, which sees it, leaves it with the task whose
//! handshake it is.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

tokio::task_local! {
    static REFUSED: RefCell<Option<Presented>>;
}

/// A certificate that a client showed.
#[derive(Clone, Debug)]
pub(super) struct Presented {
    pub(super) leaf: CertificateDer<'static>,
    /// It is good, and the client has not got its key.
    pub(super) is_anothers: bool,
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
pub(super) struct Noting(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Noting {
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(leaf, intermediates, now);
        if verified.is_err() {
            note(leaf, false);
        }
        verified
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.0.verify_tls13_signature(message, cert, signature);
        if verified.is_err() {
            note(cert, true);
        }
        verified
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Outside of a handshake of ours nobody wants to know.
fn note(leaf: &CertificateDer<'_>, is_anothers: bool) {
    let presented = Presented { leaf: leaf.clone().into_owned(), is_anothers };
    let _ = REFUSED.try_with(|refused| refused.replace(Some(presented)));
}
