//! Which files are looked at, and what is in them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jobworker_certs::{RoleOid, pem_fault};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::line::{Key, Line, State};
use crate::identity::{Certificate, ClientIdentity, RevocationList, certificate_hosts};
use crate::renewal;
use crate::tls::{self, provider};

/// What names of files in a folder may end in.
const SUFFIXES: [&str; 4] = ["pem", "crt", "cer", "crl"];

/// The files, and the keys of some: of a certificate's file the key's.
#[derive(Default)]
pub(super) struct Files {
    files: Vec<PathBuf>,
    keys: HashMap<PathBuf, PathBuf>,
}

/// What was found in one.
struct Found {
    path: PathBuf,
    certificates: Vec<(CertificateDer<'static>, Certificate)>,
    lists: Vec<RevocationList>,
}

impl Files {
    /// Those that somebody names. A key belongs to the certificate whose name it has, or to the only one.
    pub(super) fn given(files: &[PathBuf]) -> Self {
        let mut all = Self { files: files.to_vec(), keys: HashMap::new() };
        all.pair_by_name();
        let (keys, others): (Vec<_>, Vec<_>) = files.iter().partition(|file| is_key(file));
        let certificates: Vec<_> = others.into_iter().filter(|file| has_leaf(file)).collect();
        if let ([key], [certificate]) = (&keys[..], &certificates[..]) {
            all.keys.insert((*certificate).clone(), (*key).clone());
        }
        all
    }

    /// Those of a worker.
    pub(super) fn of_worker(files: &tls::Files, renewal: Option<&renewal::Settings>) -> Self {
        let mut all: Vec<_> = [&files.ca, &files.cert].into_iter().chain(&files.crl).cloned().collect();
        let mut keys = HashMap::from([(files.cert.clone(), files.key.clone())]);
        if let Some(renewal::Settings { ca, key, .. }) = renewal {
            keys.insert(ca.clone(), key.clone());
            // The one CA may do both.
            all.extend((!all.contains(ca)).then(|| ca.clone()));
        }
        Self { files: all, keys }
    }

    /// And whatever a folder has.
    pub(super) fn add_folder(&mut self, dir: &Path) -> anyhow::Result<()> {
        let cannot = || format!("can't read the folder {}", dir.display());
        for entry in fs::read_dir(dir).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            let is_known =
                path.extension().and_then(OsStr::to_str).is_some_and(|end| SUFFIXES.contains(&end));
            if is_known && !is_named_key(&path) && !self.files.contains(&path) {
                self.files.push(path);
            }
        }
        self.pair_by_name();
        Ok(())
    }

    /// `NAME-key.pem` is the key of `NAME.pem`.
    fn pair_by_name(&mut self) {
        for file in &self.files {
            let Some(stem) = file.file_stem().and_then(OsStr::to_str) else { continue };
            let key = file.with_file_name(format!("{stem}-key.pem"));
            if key.exists() {
                self.keys.entry(file.clone()).or_insert(key);
            }
        }
    }

    /// A line for each certificate and list.
    ///
    /// # Errors
    /// When a file can't be read or is not right.
    pub(super) fn lines(&self, role_oid: &RoleOid, now: i64) -> anyhow::Result<Vec<Line>> {
        let found = self.files.iter().map(|path| Found::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut lists: Vec<_> = found.iter().flat_map(|found| &found.lists).cloned().collect();
        if lists.is_empty() {
            lists = self.lists_beside()?;
        }
        let mut lines = Vec::new();
        for Found { path, certificates, lists: own_lists } in &found {
            for (number, (der, certificate)) in certificates.iter().enumerate() {
                let is_revoked = lists.iter().any(|list| list.revokes(certificate));
                // Behind the first are those of the CAs above it.
                let key = self.keys.get(path).filter(|_| number == 0).map(|key| key_of(der, key));
                let end = certificate.not_after_unix_sec;
                let state = if is_revoked { State::Revoked } else { State::of(Some(end), now) };
                let (what, role) = what(der, certificate, role_oid);
                lines.push(Line::new(path, what, &certificate.subject, role, Some(end), now, state, key));
            }
            for list in own_lists {
                let (end, what) =
                    (list.next_update_unix_sec, format!("revocation list of CA {}", list.issuer));
                lines.push(Line::new(path, what, &list.issuer, None, end, now, State::of(end, now), None));
            }
        }
        Ok(lines)
    }
}

impl Files {
    /// `crl.pem` in the folders of the files, where none is given.
    fn lists_beside(&self) -> anyhow::Result<Vec<RevocationList>> {
        let mut beside: Vec<_> = self.files.iter().map(|file| file.with_file_name("crl.pem")).collect();
        beside.sort();
        beside.dedup();
        let mut lists = Vec::new();
        for path in beside.into_iter().filter(|path| path.exists()) {
            lists.extend(Found::read(&path)?.lists);
        }
        Ok(lists)
    }
}

impl Found {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let bytes = fs::read(path).with_context(|| format!("can't read {shown}"))?;
        let not_pem =
            |error: pem::Error| anyhow::anyhow!("{shown} {}", pem_fault(&error, &bytes, "CERTIFICATE"));
        let mut certificates = Vec::new();
        for der in CertificateDer::pem_slice_iter(&bytes) {
            let der = der.map_err(not_pem)?;
            let Some(read) = Certificate::from_der(&der) else {
                bail!("{shown} holds something that calls itself a certificate, and is none");
            };
            certificates.push((der, read));
        }
        let mut lists = Vec::new();
        for der in CertificateRevocationListDer::pem_slice_iter(&bytes) {
            let Some(read) = RevocationList::from_der(&der.map_err(not_pem)?) else {
                bail!("{shown} holds something that calls itself a revocation list, and is none");
            };
            lists.push(read);
        }
        if certificates.is_empty() && lists.is_empty() && !is_key(path) {
            bail!("{shown} holds neither a certificate nor a revocation list (PEM)");
        }
        Ok(Self { path: path.to_owned(), certificates, lists })
    }
}

/// Whether it is the key of a certificate.
fn key_of(der: &CertificateDer<'static>, key: &Path) -> Key {
    let bytes = match fs::read(key) {
        Ok(bytes) => bytes,
        Err(error) => return Key::Unknown(error.to_string()),
    };
    let private = match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(private) => private,
        Err(error) => return Key::Unknown(format!("it {}", pem_fault(&error, &bytes, "PRIVATE KEY"))),
    };
    match CertifiedKey::from_der(vec![der.clone()], private, &provider()) {
        Ok(_) => Key::Matches,
        Err(rustls::Error::InconsistentKeys(_)) => Key::Differs,
        Err(error) => Key::Unknown(error.to_string()),
    }
}

/// What a certificate is for, and the role in it.
fn what(der: &CertificateDer<'_>, certificate: &Certificate, role_oid: &RoleOid) -> (String, Option<String>) {
    let name = &certificate.subject;
    if certificate.is_ca {
        return (format!("CA {name}"), None);
    }
    let hosts = certificate_hosts(der);
    // One that says nothing of its purpose is what its names say.
    if certificate.may_serve && (!certificate.may_call || !hosts.is_empty()) {
        let hosts = if hosts.is_empty() { name.clone() } else { hosts.join(", ") };
        return (format!("server {hosts}"), None);
    }
    match ClientIdentity::from_der(der, role_oid) {
        Ok(ClientIdentity { name, role: Ok(role), .. }) => (format!("client {name} role {role}"), Some(role)),
        Ok(ClientIdentity { name, role: Err(_), .. }) => (format!("client {name} without a role"), None),
        Err(_) => (format!("client {name}, who is nobody to a worker"), None),
    }
}

fn is_named_key(path: &Path) -> bool {
    path.file_stem().and_then(OsStr::to_str).is_some_and(|stem| stem.ends_with("-key"))
}

/// By its name, else by what is in it.
fn is_key(path: &Path) -> bool {
    is_named_key(path) || PrivateKeyDer::from_pem_file(path).is_ok()
}

fn has_leaf(path: &Path) -> bool {
    let first = CertificateDer::from_pem_file(path).ok();
    first.and_then(|der| Certificate::from_der(&der)).is_some_and(|certificate| !certificate.is_ca)
}
