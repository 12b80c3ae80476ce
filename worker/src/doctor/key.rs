//! The worker's private key: who may read it, and whether it is that of the certificate.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jobworker_certs::ChainFault;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::finding::Finding;
use crate::identity::{certificate_hosts, utc};
use crate::tls::{self, OPEN_TO_OTHERS, provider};

/// `chain` is the certificate's, where that could be read.
pub(super) fn check(path: &Path, cert: &Path, chain: Option<Vec<CertificateDer<'static>>>) -> Finding {
    let subject = path.display().to_string();
    let anew = anew(cert, chain.as_deref());
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            return unreadable(subject, format!("the private key can't be read: {error}"), path);
        }
    };
    let key = match tls::private_key(path) {
        Ok(key) => key,
        Err(error) => return unreadable(subject, error.to_string(), path),
    };
    let mode = metadata.mode() & 0o777;
    if mode & OPEN_TO_OTHERS != 0 {
        let text = format!("the private key has mode {mode:04o}: others than its owner can get at it");
        let remedy = format!("chmod 600 {}; if somebody may have read it: {anew}", path.display());
        return Finding::fail(subject, text, remedy);
    }
    let weak = chain.as_ref().and_then(|chain| ChainFault::of_key(chain.first()?));
    match chain.map(|chain| CertifiedKey::from_der(chain, key, &provider())) {
        Some(Err(rustls::Error::InconsistentKeys(_))) => {
            let text = format!("it is not the key of the certificate {}", cert.display());
            Finding::fail(subject, text, format!("--key with the file beside it, or both anew: {anew}"))
        }
        Some(Err(error)) => {
            let reason = weak
                .map_or_else(|| error.to_string(), |fault| format!("the certificate {}", fault.words(utc)));
            Finding::fail(subject, format!("the private key can't be used: {reason}"), anew)
        }
        Some(Ok(_)) => Finding::ok(subject, format!("the key of {}, mode {mode:04o}", cert.display())),
        None => Finding::ok(subject, format!("a private key, mode {mode:04o}")),
    }
}

fn unreadable(subject: String, text: String, path: &Path) -> Finding {
    let remedy = format!(
        "as root: chown the worker's user {0} && chmod 600 {0}, or --key with the right file",
        path.display()
    );
    Finding::fail(subject, text, remedy)
}

/// The command that makes another certificate with its key, for the hosts that the chain's first is for.
pub(super) fn anew(cert: &Path, chain: Option<&[CertificateDer<'_>]>) -> String {
    let beside = cert.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The CA's key is on another host where somebody was careful.
    let has_authority = beside.join("ca-key.pem").exists();
    let dir = if has_authority { beside.display().to_string() } else { "DIR-OF-THE-CA".to_owned() };
    let hosts = chain.and_then(<[_]>::first).map(|certificate| certificate_hosts(certificate));
    let hosts = hosts.filter(|hosts| !hosts.is_empty()).unwrap_or_else(|| vec!["HOST".to_owned()]);
    let hosts: String = hosts.iter().map(|host| format!(" --host {host}")).collect();
    format!("jobworker certs server --dir {dir}{hosts} --force")
}
