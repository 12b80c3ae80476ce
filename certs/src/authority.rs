//! The CA: made once, loaded for every certificate it signs.

use std::{fs, io, path::Path};

use rcgen::{BasicConstraints, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ParsedExtension, X509Extension},
    prelude::FromDer,
    x509::X509Name,
};

use crate::{
    AuthorityRequest, Error, Serial,
    files::{pem_blocks, pem_contents},
    folder::{AUTHORITY_CERTIFICATE, AUTHORITY_KEY},
    issuance::params,
    validity::Validity,
};

/// A CA that can sign: its certificate and its private key.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    intermediates_pem: String,
    subject_der: Vec<u8>,
    key_id: Option<Vec<u8>>,
    serial: Serial,
    not_after: OffsetDateTime,
}

impl Authority {
    /// A new CA with a new key. It may sign certificates of servers and clients, and revocation lists, but no
    /// further CA. Nothing is stored; see [`crate::Folder::init`].
    ///
    /// # Errors
    /// [`Error::Crypto`] if the key can't be made or used.
    pub fn create(request: &AuthorityRequest) -> Result<Self, Error> {
        let key = request.key.generate()?;
        let validity = Validity::starting(OffsetDateTime::now_utc(), request.days);
        let mut params = params(Some(request.name.as_str()), &Serial::random()?, &validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(Error::crypto("sign the CA's certificate"))?;
        let path = Path::new(AUTHORITY_CERTIFICATE);
        Self::new(certificate.pem(), key, Path::new(AUTHORITY_KEY)).map_err(malformed(path))
    }

    /// The CA of a folder: `ca.pem` and `ca-key.pem`, made by this crate or by openssl (PKCS #8, SEC 1 or PKCS #1).
    ///
    /// # Errors
    /// [`Error::NoAuthority`], [`Error::Io`]; [`Error::Malformed`] if a file is not what its name says, the
    /// certificate is not a CA's, or the key belongs to another certificate.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let (certificate_path, key_path) = (dir.join(AUTHORITY_CERTIFICATE), dir.join(AUTHORITY_KEY));
        Self::read(&certificate_path, &key_path).map_err(|error| match error {
            Error::Io { path, source, .. }
                if path == certificate_path && source.kind() == io::ErrorKind::NotFound =>
            {
                Error::NoAuthority { dir: dir.to_owned() }
            }
            error => error,
        })
    }

    /// The CA of two files. The first certificate is the CA's own; where another CA has signed it, those between it and
    /// the one that everybody trusts follow.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let certificate_pem = fs::read_to_string(certificate).map_err(Error::io("read", certificate))?;
        let key_pem = fs::read_to_string(key).map_err(Error::io("read", key))?;
        let pair = KeyPair::from_pem(&key_pem)
            .map_err(|error| malformed(key)(format!("not a private key this program can use: {error}")))?;
        Self::new(certificate_pem, pair, key).map_err(malformed(certificate))
    }

    /// The one place that looks into a CA's certificate. The error is the reason alone.
    fn new(certificate_pem: String, key: KeyPair, key_path: &Path) -> Result<Self, String> {
        let der = pem_contents(&certificate_pem, "CERTIFICATE")?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|error| format!("not a certificate: {error}"))?;
        if !parsed.is_ca() {
            return Err("not a CA's certificate (basic constraints)".to_owned());
        }
        let usage = parsed.key_usage().map_err(|error| format!("its key usage can't be read: {error}"))?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err("it may not sign certificates (its key usage lacks keyCertSign)".to_owned());
        }
        if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
            let key = key_path.file_name().unwrap_or_default().display();
            return Err(format!("{key} is not this certificate's private key"));
        }
        let issuer =
            Issuer::from_ca_cert_der(&der.as_slice().into(), key).map_err(|error| error.to_string())?;
        Ok(Self {
            issuer,
            subject_der: parsed.subject().as_raw().to_vec(),
            key_id: parsed.iter_extensions().find_map(subject_key_id),
            serial: Serial::from(&parsed.serial),
            not_after: parsed.validity().not_after.to_datetime(),
            intermediates_pem: intermediates(&certificate_pem),
            certificate_pem,
        })
    }

    /// The CA as rcgen signs with it, for certificates that [`Self::issue_client`] and [`Self::issue_server`]
    /// would not make.
    #[must_use]
    pub fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// The CA's certificate, PEM: what workers and clients trust.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// What holders send along with a certificate of this CA: its own certificate and those above it, as far as they are
    /// no roots. Empty for a root.
    #[must_use]
    pub fn intermediates_pem(&self) -> &str {
        &self.intermediates_pem
    }

    /// The CA's private key, PKCS #8 PEM: whoever has it is admin everywhere.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The CA's last second, and the latest of every certificate it signs.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The CA's own serial number.
    #[must_use]
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    pub(crate) fn key_id(&self) -> Option<&[u8]> {
        self.key_id.as_deref()
    }

    /// Whether a certificate or a list with this issuer and these extensions is ours. The name alone does not tell:
    /// two CAs made with the defaults share it.
    pub(crate) fn issued(&self, issuer: &X509Name<'_>, extensions: &[X509Extension<'_>]) -> bool {
        let same_key =
            extensions.iter().find_map(authority_key_id).is_none_or(|id| Some(id) == self.key_id());
        issuer.as_raw() == self.subject_der && same_key
    }
}

/// The blocks of a file whose issuer is not their own subject.
fn intermediates(pem: &str) -> String {
    let is_root = |block: &str| {
        let der = pem_contents(block, "CERTIFICATE").unwrap_or_default();
        X509Certificate::from_der(&der).is_ok_and(|(_, of)| of.issuer().as_raw() == of.subject().as_raw())
    };
    pem_blocks(pem, "CERTIFICATE").into_iter().filter(|block| !is_root(block)).collect()
}

fn malformed(path: &Path) -> impl FnOnce(String) -> Error {
    let path = path.to_owned();
    move |reason| Error::Malformed { path, reason }
}

fn subject_key_id(extension: &X509Extension<'_>) -> Option<Vec<u8>> {
    match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    }
}

pub(crate) fn authority_key_id<'a>(extension: &'a X509Extension<'_>) -> Option<&'a [u8]> {
    match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    }
}
