//! The files as one set: read together, checked against one another, usable whole or not at all.

use std::path::Path;
use std::sync::Arc;

use jobworker_certs::{ACCEPTED_KEYS, ChainFault, ListOrigin, lists_for};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};

use super::any_of::AnyOf;
use super::ended::{Known, expect_current_certificate, expect_current_lists};
use super::expiry::{Expiry, What};
use super::presented::Noting;
use super::sources::{Certificates, Lists, OPEN_TO_OTHERS, Source, Sources, Sum, Trust};
use super::{Files, TlsError, provider};
use crate::identity::{Certificate, RevocationList, utc};

/// What all files together make.
pub(super) struct Set {
    /// For handshakes.
    pub(super) config: Arc<ServerConfig>,
    /// What `config` verifies clients with.
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// Those that `verifier` trusts.
    pub(super) cas: Certificates,
    /// What of it ends when.
    pub(super) expiries: Vec<Expiry>,
    /// What is not wrong, and not as somebody may think either.
    pub(super) warnings: Vec<String>,
    /// That others can get at the private key, where they can.
    pub(super) open_key: Option<String>,
    /// Of all the files' bytes.
    pub(super) digest: Sum,
    known: Known,
}

impl Set {
    /// Reads and checks them.
    ///
    /// # Errors
    /// When a file can't be read, is not what it should be, does not fit the others, or has expired (`ended`).
    pub(super) fn read(files: &Files) -> Result<Self, TlsError> {
        Self::of(&Sources::read(files)?, None)
    }

    /// The same, to take this one's place.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_again(&self, files: &Files) -> Result<Self, TlsError> {
        Self::of(&Sources::read(files)?, Some(&self.known))
    }

    /// When its lists end, in seconds since the Unix epoch.
    pub(super) fn list_ends(&self) -> impl Iterator<Item = i64> {
        let lists = self.expiries.iter().filter(|expiry| expiry.what == What::RevocationList);
        lists.map(|list| list.not_after_unix_sec)
    }

    fn of(sources: &Sources, before: Option<&Known>) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let trust = &sources.trust;
        let (cas, lists) = (trust.ca.certificates()?, trust.lists()?);
        let verifier = verifier(&trust.ca, &cas, &lists, &provider)?;
        let chain = sources.cert.certificates()?;
        expect_current_lists(&lists, before)?;
        expect_current_certificate(&sources.cert, &chain[0], before)?;
        fit_to_serve(&sources.cert, &chain[0])?;
        let noting = Noting { verifier: Arc::clone(&verifier), cas: cas.clone() };
        let config = config(sources, &chain, noting, provider)?;
        Ok(Self {
            config: Arc::new(config),
            verifier,
            expiries: expiries(sources, &cas, &chain, &lists),
            warnings: without_list(&trust.ca.path, &cas, &lists),
            open_key: open_key(&sources.key),
            cas,
            digest: sources.digest(),
            known: Known::of(&chain, &lists),
        })
    }
}

/// The server's side of TLS.
///
/// # Errors
/// When a file can't be read, is not what it should be, does not fit the others, or has expired.
pub fn server_config(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    Set::read(files).map(|set| set.config)
}

/// What will keep clients out of a worker with these files, though it takes them.
pub(crate) fn warnings(files: &Files) -> Result<Vec<String>, TlsError> {
    Set::read(files).map(|set| set.warnings)
}

pub(crate) fn client_verifier(
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let trust = Trust::read(files)?;
    verifier(&trust.ca, &trust.ca.certificates()?, &trust.lists()?, provider)
}

/// One for each CA, with the lists that its clients are looked up in.
fn verifier(
    ca: &Source,
    cas: &Certificates,
    lists: &[(&Source, Lists)],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let builder = |certificate: &CertificateDer<'static>| {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).map_err(|error| ca.unusable(error))?;
        Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)))
    };
    // Each list by itself first: of all together it would not be told which one can't be used.
    for (source, lists) in lists {
        builder(&cas[0])?.with_crls(lists.clone()).build().map_err(|error| source.unusable(error))?;
    }
    let one = |certificate| {
        let mut verifier = builder(certificate)?;
        if !lists.is_empty() {
            let all: Lists = lists.iter().flat_map(|(_, lists)| lists).cloned().collect();
            verifier = verifier.with_crls(lists_for(certificate, &all)).enforce_revocation_expiration();
        }
        verifier.build().map_err(|error| ca.unusable(error))
    };
    Ok(AnyOf::new(cas.iter().map(one).collect::<Result<_, _>>()?))
}

/// That clients will take it: it is meant for servers.
fn fit_to_serve(source: &Source, leaf: &CertificateDer<'_>) -> Result<(), TlsError> {
    // What can't be read is for rustls to refuse, which says more.
    if Certificate::from_der(leaf).is_none_or(|leaf| leaf.may_serve) {
        return Ok(());
    }
    Err(source.unusable(
        "it is not meant for servers: its extended key usage lacks serverAuth; make one that is (jobworker certs server)",
    ))
}

fn config(
    sources: &Sources,
    chain: &[CertificateDer<'static>],
    verifier: Noting,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let (key, cert) = (&sources.key, &sources.cert.path);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain.to_vec(), key.private_key()?)
        .map_err(|error| key.unusable(key_reason(&error, cert, &chain[0])))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Resumption would skip the verification.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // The server's order of suites, whatever the client prefers.
    config.ignore_client_order = true;
    Ok(config)
}

fn expiries(
    sources: &Sources,
    cas: &Certificates,
    chain: &Certificates,
    lists: &[(&Source, Lists)],
) -> Vec<Expiry> {
    let of_certificate = |what, source: &Source, der: &CertificateDer<'_>| {
        let Certificate { subject, not_after_unix_sec, .. } = Certificate::from_der(der)?;
        Some(Expiry { what, path: source.path.clone(), subject, not_after_unix_sec })
    };
    let of_list = |source: &Source, der: &CertificateRevocationListDer<'_>| {
        let RevocationList { issuer: subject, next_update_unix_sec, .. } = RevocationList::from_der(der)?;
        let not_after_unix_sec = next_update_unix_sec?;
        Some(Expiry { what: What::RevocationList, path: source.path.clone(), subject, not_after_unix_sec })
    };
    let kinds = std::iter::once(What::Server).chain(std::iter::repeat(What::Intermediate));
    let own = kinds.zip(chain).filter_map(|(what, der)| of_certificate(what, &sources.cert, der));
    let cas = cas.iter().filter_map(|der| of_certificate(What::Ca, &sources.trust.ca, der));
    let lists = lists.iter().flat_map(|(source, lists)| lists.iter().filter_map(|der| of_list(source, der)));
    own.chain(cas).chain(lists).collect()
}

/// Nobody whom such a CA has signed gets in: that it is easily forgotten shows when a second CA is added.
fn without_list(path: &Path, cas: &Certificates, lists: &[(&Source, Lists)]) -> Vec<String> {
    let lists: Vec<_> = lists.iter().flat_map(|(_, lists)| lists).collect();
    let has_own =
        |ca: &CertificateDer<'_>| lists.iter().any(|list| ListOrigin::of(list, ca) == ListOrigin::Own);
    let bare = cas.iter().filter(|ca| !lists.is_empty() && !has_own(ca));
    let bare = bare.filter_map(|der| Certificate::from_der(der));
    let line = |ca: Certificate| {
        let (path, ca) = (path.display(), ca.subject);
        format!(
            "the CA in {path} ({ca}) has no list in --crl: whom it has signed is refused; add its list (--crl again)"
        )
    };
    bare.map(line).collect()
}

fn open_key(key: &Source) -> Option<String> {
    let (mode, path) = (key.mode, key.path.display());
    (mode & OPEN_TO_OTHERS != 0).then(|| {
        format!(
            "the worker's private key {path} has mode {mode:04o}, and others than its owner can get at it: chmod 600 {path}; \
             if somebody may have read it, make another (jobworker certs server --force) and revoke this one's certificate"
        )
    })
}

fn key_reason(error: &rustls::Error, cert: &Path, leaf: &CertificateDer<'_>) -> String {
    match (error, ChainFault::of_key(leaf)) {
        (rustls::Error::InconsistentKeys(_), _) => {
            format!("it is not the key of the certificate {}", cert.display())
        }
        (rustls::Error::InvalidCertificate(_), _) => {
            let words = ChainFault::of(error, std::slice::from_ref(leaf), &[]).words(utc);
            format!("the certificate {} {words}", cert.display())
        }
        // The key that can't be used is that of the certificate.
        (_, Some(fault)) => {
            format!("it can't be used: the certificate {} {}", cert.display(), fault.words(utc))
        }
        (other, None) => format!("it is no private key that can be used: {other} ({ACCEPTED_KEYS})"),
    }
}
