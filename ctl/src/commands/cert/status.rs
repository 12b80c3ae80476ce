//! `jobctl cert status`: what your certificate says. No worker is asked; one that has ended is a failure.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use clap::Args;
use jobworker_certs::{Leaf, RoleOid};
use serde_json::json;

use crate::cli::{Format, Globals};
use crate::config::Target;
use crate::own::{self, left_sec, left_words};
use crate::render::words;
use crate::{exit, render};

const DAY_SEC: i64 = 24 * 60 * 60;
const USEC_PER_SEC: u64 = 1_000_000;

/// Arguments of `cert status`.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// The extension that carries the role
    #[arg(long, value_name = "OID", default_value_t)]
    role_oid: RoleOid,
}

pub(crate) fn status(globals: &Globals, args: &StatusArgs) -> anyhow::Result<u8> {
    // A renewal that was interrupted is completed first; without a key there is none.
    if let Ok(target) = Target::resolve(globals)
        && let Err(error) = crate::pair::Pair::of(&target.credentials).complete()
    {
        render::note(&format!("{error:#}"));
    }
    let path = Target::certificate(globals)?;
    let leaf = own::read(&path, &args.role_oid)?;
    show(globals.output, &path, &leaf)?;
    Ok(if left_sec(&leaf) < 0 { exit::FAILED } else { exit::SUCCESS })
}

/// Shows a certificate, as it was asked for.
pub(super) fn show(format: Format, path: &Path, leaf: &Leaf) -> anyhow::Result<()> {
    match format {
        Format::Json => render::out(&as_json(path, leaf)?),
        Format::Text => render::out(&text(path, leaf)),
    }
}

fn as_json(path: &Path, leaf: &Leaf) -> anyhow::Result<String> {
    let json = json!({
        "file": path.to_string_lossy(),
        "name": name(leaf),
        "common_name": leaf.common_name,
        "uris": leaf.uris,
        "dns_names": leaf.dns_names,
        "role": leaf.role,
        "issuer": leaf.issuer.name,
        "serial": leaf.serial.digits(),
        "fingerprint_sha256": leaf.fingerprint_sha256,
        "key_fingerprint_sha256": leaf.key_fingerprint().to_string(),
        "not_after_unix_usec": not_after_unix_usec(leaf),
        "days_left": left_sec(leaf).div_euclid(DAY_SEC),
    });
    serde_json::to_string_pretty(&json).context("cannot write JSON")
}

fn text(path: &Path, leaf: &Leaf) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: &str| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{what:<13}{}", words::printable(value));
    };
    line("certificate", &path.display().to_string());
    line("name", name(leaf).unwrap_or("none"));
    for uri in leaf.uris.iter().skip(1) {
        line("", uri);
    }
    if let Some(common_name) = leaf.common_name.as_deref().filter(|_| !leaf.uris.is_empty()) {
        line("common name", common_name);
    }
    line("role", leaf.role.as_deref().unwrap_or("none"));
    line("signed by", &leaf.issuer.name);
    line("serial", &leaf.serial.digits());
    line("fingerprint", &leaf.fingerprint_sha256);
    line("key", &leaf.key_fingerprint().to_string());
    let left = match left_sec(leaf) {
        ended if ended < 0 => "it has ended".to_owned(),
        left => format!("{} left", left_words(left)),
    };
    line("valid until", &format!("{} ({left})", words::local_time(not_after_unix_usec(leaf))));
    text
}

/// What the worker calls its holder.
fn name(leaf: &Leaf) -> Option<&str> {
    leaf.uris.first().or(leaf.common_name.as_ref()).map(String::as_str)
}

pub(super) fn not_after_unix_usec(leaf: &Leaf) -> u64 {
    u64::try_from(leaf.not_after_unix_sec).unwrap_or_default().saturating_mul(USEC_PER_SEC)
}
