//! The pair before a renewal, kept beside the new one: a worker that knows only the CA of the former takes no other.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::files::{beside, remove, rename, write_new};
use super::{CERT_BITS, Pair};

/// The former key is nobody's but its owner's.
const FORMER_KEY_BITS: u32 = 0o600;

impl Pair {
    /// Where the pair before this one is, if it was kept: `alice.pem.old`, `alice-key.pem.old`.
    pub(crate) fn former(&self) -> Self {
        Self { cert: beside(&self.cert, "old"), key: beside(&self.key, "old") }
    }

    /// Copies this pair there.
    pub(super) fn keep(&self) -> anyhow::Result<()> {
        let former = self.former();
        if !self.is_one_file() {
            copy(&self.cert, &former.cert, CERT_BITS)?;
        }
        copy(&self.key, &former.key, FORMER_KEY_BITS)
    }
}

/// Whole or not at all, on the disk.
fn copy(from: &Path, to: &Path, bits: u32) -> anyhow::Result<()> {
    let part = beside(to, "part");
    remove(&part)?;
    let copied = fs::read(from).and_then(|bytes| write_new(&part, &fs::metadata(from)?, &bytes, bits));
    if copied.is_err() {
        let _ = remove(&part);
    }
    copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    rename(&part, to)
}
