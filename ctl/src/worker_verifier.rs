//! Verifies the worker's certificate: by the CAs of `--ca`, each with the lists of `--crl` that are its own.

use std::sync::{Arc, OnceLock};

use anyhow::Context;
use jobworker_certs::{ChainFault, lists_for};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::Credentials;
use crate::pem;

/// Why the worker's certificate was refused, once it was. TLS' own error does not say with which certificate of the chain.
pub(crate) type RefusedWorker = Arc<OnceLock<ChainFault>>;

/// Takes a worker's certificate that any of several CAs has signed.
#[derive(Debug)]
pub(crate) struct WorkerVerifier {
    cas: Vec<CertificateDer<'static>>,
    /// One at least.
    verifiers: Vec<Arc<WebPkiServerVerifier>>,
    refused: RefusedWorker,
}

impl WorkerVerifier {
    /// Reads the CAs and lists. Without `--crl` no certificate is revoked. With it, a certificate whose status no current list
    /// tells is refused.
    ///
    /// # Errors
    /// A file can't be read, holds something else, or a CA or list in it can't be used.
    pub(crate) fn read(credentials: &Credentials, provider: &Arc<CryptoProvider>) -> anyhow::Result<Self> {
        let Credentials { ca, crl, .. } = credentials;
        let cas = pem::certificates("--ca", ca)?;
        let mut lists = Vec::new();
        for path in crl {
            let of_file = pem::revocation_lists("--crl", path)?;
            // By themselves first: of all together it would not be said which can't be used.
            verifier(&cas[..1], &of_file, provider)
                .with_context(|| format!("--crl {}: not usable as a revocation list", path.display()))?;
            lists.extend(of_file);
        }
        let unusable = || format!("--ca {}: not usable as a CA", ca.display());
        let verifiers = if lists.is_empty() {
            vec![verifier(&cas, &[], provider).with_context(unusable)?]
        } else {
            let one = |ca: &CertificateDer<'static>| {
                verifier(std::slice::from_ref(ca), &lists_for(ca, &lists), provider)
            };
            cas.iter().map(one).collect::<anyhow::Result<_>>().with_context(unusable)?
        };
        Ok(Self { cas, verifiers, refused: RefusedWorker::default() })
    }

    /// Where it notes why a worker was refused.
    pub(crate) fn refused(&self) -> RefusedWorker {
        Arc::clone(&self.refused)
    }
}

fn verifier(
    cas: &[CertificateDer<'static>],
    lists: &[CertificateRevocationListDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> anyhow::Result<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.clone())?;
    }
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match lists {
        [] => builder,
        lists => builder.with_crls(lists.iter().cloned()).enforce_revocation_expiration(),
    };
    Ok(builder.build()?)
}

impl ServerCertVerifier for WorkerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut refusal = None;
        for verifier in &self.verifiers {
            match verifier.verify_server_cert(leaf, intermediates, server_name, ocsp_response, now) {
                Ok(verified) => return Ok(verified),
                Err(error) if refusal.as_ref().is_none_or(|other| nearness(other) < nearness(&error)) => {
                    refusal = Some(error);
                }
                Err(_) => {}
            }
        }
        let error = refusal.unwrap_or(Error::NoCertificatesPresented);
        let chain: Vec<_> = std::iter::once(leaf).chain(intermediates).cloned().collect();
        // There is one handshake with each verifier.
        let _ = self.refused.set(ChainFault::of(&error, &chain, &self.cas));
        Err(error)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifiers[0].verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifiers[0].verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifiers[0].supported_verify_schemes()
    }
}

/// The CA that has signed a certificate knows best what is wrong with it, then one of that CA's name.
fn nearness(error: &Error) -> u8 {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => 0,
        Error::InvalidCertificate(CertificateError::BadSignature) => 1,
        _ => 2,
    }
}
