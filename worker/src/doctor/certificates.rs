//! CA, certificate, key and revocation list, and the clock that they are measured by.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jobworker_certs::ChainFault;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};

use super::Subject;
use super::dates::{CERTIFICATE_SOON_DAYS, LIST_SOON_DAYS, Standing, standing};
use super::finding::{Finding, Level};
use super::key::{self, anew};
use crate::identity::{
    Certificate, certificate_hosts, certificate_validity, revocation_list_next_update, utc,
};
use crate::tls::{self, Files, certificates, client_verifier, provider, revocation_lists};

type Chain = Vec<CertificateDer<'static>>;

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let files = &subject.config.tls;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    let mut findings = Vec::new();
    let new_ca = format!(
        "jobworker certs init --dir DIR, or --ca with the CA's file; {} is now given",
        files.ca.display()
    );
    let cas = certificates("the CA", &files.ca).map_err(|error| error.to_string());
    findings.extend(dated(&files.ca, cas.as_deref(), "the CA", now, &new_ca));
    let chain = certificates("the certificate", &files.cert).map_err(|error| error.to_string());
    let renew = anew(&files.cert, chain.as_deref().ok());
    findings.extend(dated(&files.cert, chain.as_deref(), "the worker's certificate", now, &renew));
    if let (Ok(cas), Ok(chain)) = (&cas, &chain)
        && findings.iter().all(|finding| finding.level != Level::Fail)
    {
        findings.extend(verified(files, cas, chain, now));
    }
    if findings.iter().all(|finding| finding.subject != "clock") {
        findings.push(Finding::ok("clock", utc(now)));
    }
    findings.push(key::check(&files.key, &files.cert, chain.ok()));
    if files.crl.is_empty() {
        findings.push(Finding::ok("revocation list", "none (--crl): no certificate is revoked"));
    }
    findings.extend(files.crl.iter().map(|path| list(path, files, now, cas.is_ok())));
    // What none of the above looks at keeps a worker from starting all the same.
    if findings.iter().all(|finding| finding.level != Level::Fail) {
        match tls::warnings(files) {
            Ok(warnings) => {
                let remedy = "--crl FILE for each CA (jobworker certs init and revoke make them: crl.pem)";
                let locked_out = |warning| Finding::fail("revocation list", warning, remedy);
                findings.extend(warnings.into_iter().map(locked_out));
            }
            Err(error) => findings.push(Finding::fail("TLS", error.to_string(), "mend or replace that file")),
        }
    }
    findings
}

/// What a file's dates say; of several certificates, the worst one's.
fn dated(
    path: &Path,
    chain: Result<&[CertificateDer<'_>], &String>,
    what: &str,
    now: i64,
    renew: &str,
) -> Option<Finding> {
    let subject = path.display().to_string();
    let chain = match chain {
        Ok(chain) => chain,
        Err(reason) => return Some(Finding::fail(subject, reason, renew)),
    };
    let mut worst = None;
    for certificate in chain {
        let Some((begin, end)) = certificate_validity(certificate) else {
            return Some(Finding::fail(subject, format!("{what} is no X.509 certificate"), renew));
        };
        let found = match standing(now, begin, end, CERTIFICATE_SOON_DAYS) {
            Standing::Early => return Some(too_early(path, begin, now)),
            Standing::Over => Finding::fail(&subject, format!("{what} expired on {}", utc(end)), renew),
            Standing::Soon(days) => {
                Finding::warn(&subject, format!("{what} expires in {days} days ({})", utc(end)), renew)
            }
            Standing::Within => Finding::ok(&subject, format!("{what}, valid until {}", utc(end))),
        };
        let rank = |level| [Level::Ok, Level::Warn, Level::Fail].into_iter().position(|other| other == level);
        if worst.as_ref().is_none_or(|worst: &Finding| rank(found.level) > rank(worst.level)) {
            worst = Some(found);
        }
    }
    worst
}

fn too_early(path: &Path, begin: i64, now: i64) -> Finding {
    let text = format!("it says {}, and {} is not valid before {}", utc(now), path.display(), utc(begin));
    Finding::fail(
        "clock",
        text,
        "set this host's clock (timedatectl set-ntp true; date -u), or make that file anew",
    )
}

/// The certificate as a client sees it that trusts the same CA.
fn verified(files: &Files, cas: &[CertificateDer<'_>], chain: &Chain, now: i64) -> Option<Finding> {
    let (subject, again) = (files.cert.display().to_string(), anew(&files.cert, Some(chain)));
    let (certificate, intermediates) = chain.split_first()?;
    if Certificate::from_der(certificate).is_some_and(|certificate| !certificate.may_serve) {
        let text = "clients refuse it: it is not meant for servers, its extended key usage lacks serverAuth";
        return Some(Finding::fail(subject, text, again));
    }
    let hosts = certificate_hosts(certificate);
    let Some(name) = hosts.iter().find_map(|host| ServerName::try_from(host.replace('*', "any")).ok()) else {
        let text = "it names no host, and clients compare the one that they call with those in it";
        return Some(Finding::fail(subject, text, again));
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(cas.iter().map(|ca| ca.clone().into_owned()));
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider())).build();
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.unsigned_abs()));
    let verdict = verifier
        .map_err(|error| error.to_string())
        .map(|verifier| verifier.verify_server_cert(certificate, intermediates, &name, &[], time));
    Some(match verdict {
        Ok(Ok(_)) => Finding::ok(
            subject,
            format!("signed by a CA of {}, for {}", files.ca.display(), hosts.join(", ")),
        ),
        Ok(Err(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ))) => Finding::warn(
            subject,
            format!("no CA in {} has signed it: clients need the CA that has", files.ca.display()),
            format!("give clients that CA's file (jobctl --ca), or, with this CA: {again}"),
        ),
        Ok(Err(error)) => {
            let words = ChainFault::of(&error, chain, cas).words(utc);
            Finding::fail(subject, format!("clients refuse it: it {words}"), again)
        }
        Err(error) => Finding::fail(files.ca.display().to_string(), error, "--ca with the CA's file"),
    })
}

fn list(path: &Path, files: &Files, now: i64, has_ca: bool) -> Finding {
    let subject = path.display().to_string();
    let renew = "openssl ca -gencrl, or --crl with the right file; a list by `jobworker certs` lasts as long as its CA, \
                 so that CA has to be made anew (certs init)";
    let lists = match revocation_lists(path) {
        Ok(lists) => lists,
        Err(error) => return Finding::fail(subject, error.to_string(), renew),
    };
    let alone = Files { crl: vec![path.to_owned()], ..files.clone() };
    if has_ca && let Err(error) = client_verifier(&alone, &Arc::new(provider())) {
        return Finding::fail(subject, error.to_string(), renew);
    }
    let end = lists.iter().filter_map(|list| revocation_list_next_update(list)).min();
    match end.map(|end| (end, standing(now, i64::MIN, end, LIST_SOON_DAYS))) {
        Some((end, Standing::Over)) => {
            let text =
                format!("the revocation list expired on {}: nobody whom its CA has signed gets in", utc(end));
            Finding::fail(subject, text, renew)
        }
        Some((end, Standing::Soon(days))) => {
            let text = format!(
                "the revocation list expires in {days} days ({}): nobody whom its CA has signed gets in then",
                utc(end)
            );
            Finding::warn(subject, text, renew)
        }
        Some((end, _)) => Finding::ok(subject, format!("the revocation list, valid until {}", utc(end))),
        None => Finding::ok(subject, "the revocation list"),
    }
}
