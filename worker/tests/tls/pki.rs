//! Throw-away certificates: ordinary ones, and ones with anything wrong that a test likes.

use std::fs;
use std::path::PathBuf;

use jobworker::identity::ClientIdentity;
use jobworker_certs::{
    Authority, AuthorityRequest, ClientRequest, Days, Existing, Folder, Holder, KeyKind, Leaf, RoleOid,
    ServerRequest,
};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

/// A folder with a CA, a server, `alice` (admin) and `bob` (user).
pub(crate) struct Pki {
    dir: TempDir,
    authority: Authority,
}

/// A certificate and its key, as files.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Identity {
    /// Its name, serial number and fingerprint.
    pub(crate) fn says(&self) -> [String; 3] {
        let der = CertificateDer::from_pem_file(&self.cert).unwrap();
        let says = ClientIdentity::from_der(&der, &RoleOid::default()).unwrap();
        [says.name, says.serial, says.fingerprint_sha256]
    }

    /// Its serial number and fingerprint, whatever else it says.
    pub(crate) fn numbers(&self) -> [String; 2] {
        let der = CertificateDer::from_pem_file(&self.cert).unwrap();
        let says = Leaf::from_der(&der, &RoleOid::default()).unwrap();
        [says.serial.digits(), says.fingerprint_sha256]
    }
}

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path());
        let request =
            AuthorityRequest { name: "test CA".parse().unwrap(), key: KeyKind::P256, days: Days::YEAR };
        let authority = folder.init(&request).unwrap();
        let hosts = vec!["localhost".parse().unwrap()];
        let server = ServerRequest { hosts, key: KeyKind::P256, days: Days::YEAR };
        folder.issue(&Holder::Server, Existing::Keep, |ca| ca.issue_server(&server)).unwrap();
        let pki = Self { dir, authority };
        pki.client("alice", "admin");
        pki.client("bob", "user");
        pki
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn identity(&self, name: &str) -> Identity {
        Identity { cert: self.file(&format!("{name}.pem")), key: self.file(&format!("{name}-key.pem")) }
    }

    pub(crate) fn client(&self, name: &str, role: &str) -> Identity {
        let request = ClientRequest {
            name: name.parse().unwrap(),
            role: role.parse().unwrap(),
            role_oid: RoleOid::default(),
            uris: Vec::new(),
            key: KeyKind::P256,
            days: Days::CLIENT,
        };
        let holder = Holder::Client(request.name.clone());
        Folder::at(self.dir.path()).issue(&holder, Existing::Keep, |ca| ca.issue_client(&request)).unwrap();
        self.identity(name)
    }

    pub(crate) fn revoke(&self, name: &str) {
        let folder = Folder::at(self.dir.path());
        let serial = folder.serial_of(&Holder::Client(name.parse().unwrap())).unwrap();
        folder.revoke(&serial).unwrap();
    }

    /// A client's certificate that `edit` has changed before it was signed.
    pub(crate) fn odd(&self, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.custom_extensions = vec![role(b"\x0c\x05admin")];
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, self.authority.issuer()).unwrap();
        let identity = self.identity(name);
        fs::write(&identity.cert, certificate.pem()).unwrap();
        fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }
}

/// The role extension with any bytes as its value.
pub(crate) fn role(value: &[u8]) -> CustomExtension {
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 32473, 1, 1], value.to_vec())
}
