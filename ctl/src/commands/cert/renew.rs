//! `jobctl cert renew`: the worker signs a certificate for a key that was made here; it is looked at, tried, and takes
//! the place of the one before together with its key.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use jobworker_certs::{KeyKind, Leaf, NewRequest, RequestedNames, RoleOid};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::former;
use super::status::{not_after_unix_usec, show};
use crate::cli::{Format, Globals};
use crate::client::Client;
use crate::config::Target;
use crate::own::{self, left_sec, left_words};
use crate::pair::Pair;
use crate::render::words;
use crate::{exit, render};

/// Arguments of `cert renew`.
#[derive(Args, Debug)]
pub(crate) struct RenewArgs {
    /// Kind of key to make (not the file that the global option names)
    #[arg(long = "key-kind", value_enum, default_value_t)]
    kind: KeyKind,
    /// Only if the certificate ends within this time: 15days; for a timer that calls this every day
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    within: Option<Duration>,
    /// The extension that carries the role
    #[arg(long, value_name = "OID", default_value_t)]
    role_oid: RoleOid,
}

pub(crate) async fn renew(globals: &Globals, args: RenewArgs) -> anyhow::Result<u8> {
    let RenewArgs { kind, within, role_oid } = args;
    let target = Target::resolve(globals)?;
    let (credentials, pair) = (target.credentials.clone(), Pair::of(&target.credentials));
    pair.complete()?;
    let before = own::read(&credentials.cert, &role_oid)?;
    if let Some(within) = within.filter(|within| lasts_longer(&before, *within)) {
        let left = left_words(left_sec(&before));
        render::note(&format!(
            "not renewed: it ends in {left}, and not within {}",
            humantime::format_duration(within)
        ));
        return Ok(exit::SUCCESS);
    }
    // What a renewed certificate says comes from the one before, so the request need not say it.
    let names = RequestedNames { common_name: before.common_name.clone(), ..RequestedNames::default() };
    let request = NewRequest::make(kind, &names)?;
    let client = Client::connect(Arc::new(target.clone())).await?;
    let chain_pem = client.renew(request.csr_der.clone()).await?;
    let kept = || format!("{} is kept as it was", credentials.cert.display());
    let after = check(&chain_pem, &before, &request, &role_oid).with_context(kept)?;
    let staged = pair.stage(&chain_pem, &request.key_pem).with_context(kept)?;
    let trial = Target { credentials: staged.credentials(&credentials), ..target.clone() };
    try_out(trial).await.with_context(kept)?;
    // One that can't be read is of no use to anybody.
    let older = own::read(pair.former().cert(), &role_oid).ok();
    staged.replace(former::what_becomes_of(&before, &after, older.as_ref())).with_context(kept)?;
    let of_former = former::told(&before, &after, older.as_ref(), &pair);
    match globals.output {
        Format::Json => {
            show(Format::Json, &credentials.cert, &after)?;
            render::note(&of_former);
        }
        Format::Text => {
            let path = credentials.cert.display().to_string();
            render::out(&format!("{}\n{of_former}\n", told(&path, &after)))?;
        }
    }
    for line in former::doubtful_contexts(&chain_pem, &target, &pair) {
        render::note(&line);
    }
    Ok(exit::SUCCESS)
}

fn lasts_longer(leaf: &Leaf, within: Duration) -> bool {
    u64::try_from(left_sec(leaf)).is_ok_and(|left| left > within.as_secs())
}

fn told(path: &str, after: &Leaf) -> String {
    let until = words::local_time(not_after_unix_usec(after));
    let (serial, ca) = (after.serial.digits(), words::printable(&after.issuer.name));
    format!("{path}: renewed, valid until {until}, serial {serial}, signed by the CA {ca:?}")
}

/// What came is this client's next certificate, and nothing else.
fn check(chain_pem: &str, before: &Leaf, request: &NewRequest, role_oid: &RoleOid) -> anyhow::Result<Leaf> {
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.context("the worker's answer holds no certificate that can be read")?;
    let Some(leaf) = chain.first() else { bail!("the worker's answer holds no certificate") };
    let leaf = Leaf::from_der(leaf, role_oid).map_err(anyhow::Error::msg)?;
    ensure!(leaf.public_key == request.public_key, "the worker's certificate is for another key");
    let names = |leaf: &Leaf| (leaf.common_name.clone(), leaf.uris.clone(), leaf.dns_names.clone());
    ensure!(
        names(&leaf) == names(before),
        "the worker's certificate has other names: {:?} instead of {:?}",
        names(&leaf),
        names(before)
    );
    ensure!(
        leaf.role == before.role,
        "the worker's certificate has another role: {:?} instead of {:?} (--role-oid names the extension)",
        leaf.role,
        before.role
    );
    ensure!(
        // Two renewals within a second end at the same time, as do all that end with their CA.
        leaf.not_after_unix_sec >= before.not_after_unix_sec,
        "the worker's certificate would end on {}, and yours lasts until {}",
        words::local_time(not_after_unix_usec(&leaf)),
        words::local_time(not_after_unix_usec(before))
    );
    Ok(leaf)
}

/// The worker has to let the new certificate in before the old one is given up.
async fn try_out(target: Target) -> anyhow::Result<()> {
    let tried = async { Ok(Client::connect(Arc::new(target)).await?.is_known().await?) };
    let tried: anyhow::Result<()> = tried.await;
    tried.context("the worker does not let its own new certificate in")
}
