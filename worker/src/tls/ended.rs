//! Whether a set may come into force though something in it has ended. Whoever that concerns is refused in any case: the
//! clients of a CA whose list has ended, whoever looks at an ended server's certificate.
//!
//! | has ended | at start | when files are read again |
//! |---|---|---|
//! | the server's certificate | refused | refused, unless it was in force before |
//! | a list | refused where all have: nobody would get in | refused, unless it was in force before |
//!
//! So what is put in place by mistake is not taken, and what was forgotten keeps nothing else out: a revocation takes effect
//! beside another CA's list that has ended, also in the same file, and a worker that starts again lets in whom it let in.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::TlsError;
use super::clock::unix_sec;
use super::sources::{Certificates, Lists, Source, Sum};
use crate::identity::{Certificate, RevocationList, utc};

/// What can end of a set, by the SHA-256 of each certificate and list.
pub(super) struct Known(Vec<Sum>);

impl Known {
    pub(super) fn of(chain: &Certificates, lists: &[(&Source, Lists)]) -> Self {
        let lists = lists.iter().flat_map(|(_, lists)| lists).map(Sha256::digest);
        Self(chain.iter().map(Sha256::digest).chain(lists).map(Into::into).collect())
    }

    fn has(&self, der: &[u8]) -> bool {
        self.0.contains(&Sha256::digest(der).into())
    }
}

/// `before`: what was in force; none at start.
///
/// # Errors
/// [`TlsError`], by the table above.
pub(super) fn expect_current_lists(
    lists: &[(&Source, Lists)],
    before: Option<&Known>,
) -> Result<(), TlsError> {
    let all = || lists.iter().flat_map(|(source, lists)| lists.iter().map(move |list| (*source, list)));
    let mut ended = all().filter_map(|(source, list)| {
        let end = RevocationList::from_der(list)?.next_update_unix_sec?;
        has_passed(end).then_some((source, list, end))
    });
    let refused = match before {
        Some(before) => ended.find(|(_, list, _)| !before.has(list)),
        None if ended.clone().count() == all().count() => ended.next(),
        None => None,
    };
    let Some((source, _, end)) = refused else { return Ok(()) };
    Err(source.unusable(format!(
        "it expired on {}, and with it nobody whom its CA has signed would get in; renew it (jobworker certs revoke, openssl \
         ca -gencrl)",
        utc(end)
    )))
}

/// `before`: what was in force; none at start.
///
/// # Errors
/// [`TlsError`], by the table above.
pub(super) fn expect_current_certificate(
    source: &Source,
    leaf: &CertificateDer<'_>,
    before: Option<&Known>,
) -> Result<(), TlsError> {
    // What can't be read is for rustls to refuse, which says more.
    let end = Certificate::from_der(leaf).map(|leaf| leaf.not_after_unix_sec);
    match end.filter(|end| has_passed(*end) && !before.is_some_and(|before| before.has(leaf))) {
        Some(end) => Err(source.unusable(format!("it expired on {}", utc(end)))),
        None => Ok(()),
    }
}

fn has_passed(end: i64) -> bool {
    end < unix_sec(SystemTime::now())
}
