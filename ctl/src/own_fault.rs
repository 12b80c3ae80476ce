//! What is wrong with your own certificate, as a worker sees it that trusts the same CA: an alert says little, and the files
//! are here.

use std::sync::Arc;

use jobworker_certs::{ChainFault, Fault};
use rustls::RootCertStore;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;

use crate::config::Credentials;
use crate::{pem, tls};

/// What a worker finds wrong with it; `None` where nothing is, or only the worker can tell: that it does not know the CA,
/// or has revoked the certificate.
pub(crate) fn find(credentials: &Credentials) -> Option<ChainFault> {
    let chain = pem::certificates("--cert", &credentials.cert).ok()?;
    let (leaf, above) = chain.split_first()?;
    let cas = pem::certificates("--ca", &credentials.ca).unwrap_or_default();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(cas.iter().cloned());
    let provider = Arc::new(tls::provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verified = match verifier {
        Ok(verifier) => verifier.verify_client_cert(leaf, above, UnixTime::now()),
        // No CA at all.
        Err(_) => return ChainFault::apparent(&chain),
    };
    let fault = ChainFault::of(&verified.err()?, &chain, &cas);
    match fault.fault {
        // The CA of --ca is the worker's, and clients' may be another one.
        Fault::UnknownIssuer | Fault::OtherIssuer => ChainFault::apparent(&chain),
        _ => Some(fault),
    }
}
