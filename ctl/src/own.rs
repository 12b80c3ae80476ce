//! Your own certificate: what it says, and how long it lasts.

use std::path::Path;

use anyhow::anyhow;
use jiff::Timestamp;
use jobworker_certs::{Leaf, RoleOid};

use crate::config::Credentials;
use crate::pair::Pair;
use crate::{pem, render};

/// From so many days before its end on, every command says so.
const SOON_DAYS: i64 = 7;
const HOUR_SEC: i64 = 60 * 60;
const DAY_SEC: i64 = 24 * HOUR_SEC;

/// The certificate in a file, the first one there.
///
/// # Errors
/// It can't be read, or is none.
pub(crate) fn read(path: &Path, role_oid: &RoleOid) -> anyhow::Result<Leaf> {
    let chain = pem::certificates("--cert", path)?;
    // At least one, or that is the error.
    let der = chain.first().map_or(&[][..], |der| der);
    Leaf::from_der(der, role_oid).map_err(|reason| anyhow!("--cert {}: {reason}", path.display()))
}

/// Before a command: completes a renewal that was interrupted, and says when the end is near. Neither is a reason not to
/// go on: whoever connects finds out what is wrong.
pub(crate) fn look_after(credentials: &Credentials) {
    if let Err(error) = Pair::of(credentials).complete() {
        render::note(&format!("{error:#}"));
    }
    let left = read(&credentials.cert, &RoleOid::default()).ok().map(|leaf| left_sec(&leaf));
    if let Some(left) = left.filter(|left| (0..SOON_DAYS * DAY_SEC).contains(left)) {
        render::note(&format!("note: your certificate ends in {}: jobctl cert renew", left_words(left)));
    }
}

/// How long it lasts, in seconds; below 0: it has ended.
pub(crate) fn left_sec(leaf: &Leaf) -> i64 {
    leaf.not_after_unix_sec - Timestamp::now().as_second()
}

/// `3 days`, `5 hours`, `less than an hour`: never more than there is.
pub(crate) fn left_words(sec: i64) -> String {
    match (sec / DAY_SEC, sec / HOUR_SEC) {
        (0, 0) => "less than an hour".to_owned(),
        (0, 1) => "1 hour".to_owned(),
        (0, hours) => format!("{hours} hours"),
        (1, _) => "1 day".to_owned(),
        (days, _) => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_rounded_down() {
        for (sec, words) in [
            (0, "less than an hour"),
            (HOUR_SEC, "1 hour"),
            (DAY_SEC - 1, "23 hours"),
            (DAY_SEC, "1 day"),
            (4 * DAY_SEC - 1, "3 days"),
        ] {
            assert_eq!(left_words(sec), words);
        }
    }
}
