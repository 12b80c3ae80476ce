//! What becomes of the certificate before a renewal, and which workers may want it: the new one may be signed by another CA,
//! and a worker takes those of its own CAs only.

use std::path::PathBuf;
use std::sync::Arc;

use jobworker_certs::Leaf;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, RootCertStore};

use super::status::not_after_unix_usec;
use crate::config::{self, Target};
use crate::own::left_sec;
use crate::pair::{Former, Pair};
use crate::render::words;
use crate::{pem, tls};

/// The certificate before a renewal is kept beside the new one, unless a more useful one is kept there: one that still lasts,
/// of a CA that has signed neither of the two.
pub(super) fn what_becomes_of(before: &Leaf, after: &Leaf, kept: Option<&Leaf>) -> Former {
    let is_more_useful = |kept: &Leaf| kept.issuer != before.issuer && left_sec(kept) > 0;
    match kept {
        Some(kept) if before.issuer == after.issuer && is_more_useful(kept) => Former::GiveUp,
        _ => Former::Keep,
    }
}

/// What is said of it: lines for people, the last without its end.
pub(super) fn told(before: &Leaf, after: &Leaf, kept: Option<&Leaf>, pair: &Pair) -> String {
    let until = |leaf| words::local_time(not_after_unix_usec(leaf));
    let former = pair.former();
    let (cert, key) = (former.cert().display(), former.key().display());
    let serial = before.serial.digits();
    let mut lines = format!("the one before it, serial {serial}, is valid until {}; ", until(before));
    match (what_becomes_of(before, after, kept), kept) {
        (Former::GiveUp, Some(kept)) => {
            let ca = words::printable(&kept.issuer.name);
            lines +=
                &format!("it is not kept, because {cert} has one of the CA {ca:?}, until {}", until(kept));
        }
        _ if cert.to_string() == key.to_string() => lines += &format!("it is kept with its key in {cert}"),
        _ => lines += &format!("it is kept in {cert}, its key in {key}"),
    }
    if before.issuer != after.issuer {
        let ca = words::printable(&before.issuer.name);
        lines += &format!(
            "\nthat one is signed by the CA {ca:?}: a worker whose --ca has no other refuses the new one, and takes that one \
             (--cert {cert} --key {key})"
        );
    }
    lines
}

/// Contexts that use the same certificate with another CA's file, which has no CA that has signed the new one: a line for
/// each. Their workers' CAs for clients may be others than those for workers, so this is a warning only.
pub(super) fn doubtful_contexts(chain_pem: &str, target: &Target, pair: &Pair) -> Vec<String> {
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.unwrap_or_default();
    let former = pair.former();
    let (cert, key) = (former.cert().display(), former.key().display());
    let doubtful = |(name, ca): (String, PathBuf)| {
        let cas = pem::certificates("--ca", &ca).ok()?;
        is_unknown_to(&chain, &cas).then(|| {
            format!(
                "note: context {name:?} uses this certificate, too, and no CA in {} has signed the new one: if its worker \
                 knows no other, it refuses it; then give that context cert = \"{cert}\" and key = \"{key}\"",
                ca.display()
            )
        })
    };
    config::contexts_with(pair.cert(), &target.credentials.ca).into_iter().filter_map(doubtful).collect()
}

/// True if none of these CAs is the one that has signed a chain.
fn is_unknown_to(chain: &[CertificateDer<'_>], cas: &[CertificateDer<'static>]) -> bool {
    let Some((leaf, above)) = chain.split_first() else { return false };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(cas.iter().cloned());
    let provider = Arc::new(tls::provider());
    let Ok(verifier) = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return false;
    };
    matches!(
        verifier.verify_client_cert(leaf, above, UnixTime::now()),
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature))
    )
}
