//! Throw-away certificates.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// A CA in a folder of its own, with `ca.pem`, `server.pem` (for localhost and 127.0.0.1) and `alice.pem`.
pub(crate) struct Pki {
    folder: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::of_ca("test CA")
    }

    pub(crate) fn of_ca(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let pki = Self { folder: tempfile::tempdir().expect("a folder"), ca };
        fs::write(pki.path("ca.pem"), pki.ca.pem()).expect("ca.pem");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        pki.issue(
            "server",
            CertificateParams::new(names).expect("names"),
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        pki.issue("alice", CertificateParams::default(), ExtendedKeyUsagePurpose::ClientAuth);
        pki
    }

    /// A client certificate that expired a day ago.
    pub(crate) fn issue_expired(&self, name: &str) {
        let mut params = CertificateParams::default();
        params.not_before = OffsetDateTime::now_utc() - Duration::days(10);
        params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
        self.issue(name, params, ExtendedKeyUsagePurpose::ClientAuth);
    }

    /// A certificate for servers, not for clients.
    pub(crate) fn issue_for_servers(&self, name: &str) {
        self.issue(name, CertificateParams::default(), ExtendedKeyUsagePurpose::ServerAuth);
    }

    /// A client's certificate that ends in so many days.
    pub(crate) fn issue_short(&self, name: &str, days: i64) {
        let mut params = CertificateParams::default();
        params.not_after = OffsetDateTime::now_utc() + Duration::days(days) + Duration::hours(1);
        self.issue(name, params, ExtendedKeyUsagePurpose::ClientAuth);
    }

    /// A certificate (PEM) for a request's key (DER), that says what the request and then `edit` say.
    pub(crate) fn sign(&self, csr: &[u8], edit: impl FnOnce(&mut CertificateParams)) -> String {
        let mut csr = CertificateSigningRequestParams::from_der(&csr.into()).expect("a request");
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        edit(&mut csr.params);
        csr.signed_by(&self.ca).expect("a certificate").pem()
    }

    fn issue(&self, name: &str, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) {
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.ca).expect("a certificate");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("certificate");
        fs::write(self.path(&format!("{name}-key.pem")), key.serialize_pem()).expect("key");
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}
