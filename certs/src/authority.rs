//! The CA: made once, loaded for every certificate it signs.

use std::{fs, io, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ParsedExtension, X509Extension},
    prelude::FromDer,
    x509::X509Name,
};

use crate::{
    AuthorityRequest, ClientRequest, Days, Error, Host, InvalidValue, Issued, KeyKind, Serial, ServerRequest,
    Uri,
    files::pem_contents,
    folder::{AUTHORITY_CERTIFICATE, AUTHORITY_KEY},
    validity::Validity,
};

/// A CA that can sign: its certificate and its private key.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
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
        let mut params = params(request.name.as_str(), &Serial::random()?, &validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(Error::crypto("sign the CA's certificate"))?;
        Self::new(certificate.pem(), key).map_err(malformed(Path::new(AUTHORITY_CERTIFICATE)))
    }

    /// The CA of a folder: `ca.pem` and `ca-key.pem`, made by this crate or by openssl (PKCS #8, SEC 1 or PKCS #1).
    ///
    /// # Errors
    /// [`Error::NoAuthority`], [`Error::Io`]; [`Error::Malformed`] if a file is not what its name says, the
    /// certificate is not a CA's, or the key belongs to another certificate.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let (certificate_path, key_path) = (dir.join(AUTHORITY_CERTIFICATE), dir.join(AUTHORITY_KEY));
        let certificate_pem =
            fs::read_to_string(&certificate_path).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::NoAuthority { dir: dir.to_owned() },
                _ => Error::io("read", &certificate_path)(source),
            })?;
        let key_pem = fs::read_to_string(&key_path).map_err(Error::io("read", &key_path))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|error| {
            malformed(&key_path)(format!("not a private key this program can use: {error}"))
        })?;
        Self::new(certificate_pem, key).map_err(malformed(&certificate_path))
    }

    /// The one place that looks into a CA's certificate. The error is the reason alone.
    fn new(certificate_pem: String, key: KeyPair) -> Result<Self, String> {
        let der = pem_contents(&certificate_pem, "CERTIFICATE")?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|error| format!("not a certificate: {error}"))?;
        if !parsed.is_ca() {
            return Err("not a CA's certificate (basic constraints)".to_owned());
        }
        if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err(format!("{AUTHORITY_KEY} is not this certificate's private key"));
        }
        let issuer =
            Issuer::from_ca_cert_der(&der.as_slice().into(), key).map_err(|error| error.to_string())?;
        Ok(Self {
            issuer,
            subject_der: parsed.subject().as_raw().to_vec(),
            key_id: parsed.iter_extensions().find_map(subject_key_id),
            serial: Serial::from(&parsed.serial),
            not_after: parsed.validity().not_after.to_datetime(),
            certificate_pem,
        })
    }

    /// Signs a server's certificate: server authentication only, the hosts as alternative names.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a host, [`Error::AuthorityExpired`], [`Error::Crypto`].
    pub fn issue_server(&self, request: &ServerRequest) -> Result<Issued, Error> {
        if request.hosts.is_empty() {
            let expected = "at least one DNS name or IP address at which clients reach the server";
            return Err(InvalidValue { field: "hosts", value: String::new(), expected }.into());
        }
        let mut names = request.hosts.iter().map(Host::alternative_name);
        self.issue("jobworker server", request.key, request.days, |params| {
            params.subject_alt_names = names.by_ref().collect::<Result<Vec<SanType>, Error>>()?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            Ok(())
        })
    }

    /// Signs a client's certificate: client authentication only, the role as a non-critical extension.
    ///
    /// # Errors
    /// [`Error::AuthorityExpired`], [`Error::Crypto`].
    pub fn issue_client(&self, request: &ClientRequest) -> Result<Issued, Error> {
        self.issue(request.name.as_str(), request.key, request.days, |params| {
            params.subject_alt_names =
                request.uris.iter().map(Uri::alternative_name).collect::<Result<_, _>>()?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.custom_extensions = vec![request.role_oid.extension(&request.role)];
            Ok(())
        })
    }

    fn issue(
        &self,
        common_name: &str,
        key: KeyKind,
        days: Days,
        complete: impl FnOnce(&mut CertificateParams) -> Result<(), Error>,
    ) -> Result<Issued, Error> {
        let now = OffsetDateTime::now_utc();
        let asked = Validity::starting(now, days);
        let asked_not_after = asked.not_after;
        let validity = asked.within(now, self.not_after)?;
        let serial = Serial::random()?;
        let mut params = params(common_name, &serial, &validity);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        complete(&mut params)?;
        let key = key.generate()?;
        let certificate =
            params.signed_by(&key, &self.issuer).map_err(Error::crypto("sign a certificate"))?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            serial,
            not_after: validity.not_after,
            cut_to_authority: validity.not_after < asked_not_after,
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

fn params(common_name: &str, serial: &Serial, validity: &Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(serial.into());
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params
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

fn authority_key_id<'a>(extension: &'a X509Extension<'_>) -> Option<&'a [u8]> {
    match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    }
}
