//! Throw-away certificates: the ordinary ones through the project's own PKI, the broken ones by hand.

use std::fs;
use std::path::{Path, PathBuf};

use jobworker_certs::{
    Authority, AuthorityRequest, ClientRequest, Days, Existing, Folder, Holder, KeyKind, RoleOid,
    ServerRequest,
};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
};
use tempfile::TempDir;

/// A folder with a CA, a server and clients.
pub struct Pki {
    dir: TempDir,
    authority: Authority,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

impl Pki {
    /// A CA, a server certificate for loopback, `alice` (admin) and `bob` (user).
    ///
    /// # Panics
    /// When that fails, as everything here does.
    pub fn new() -> Self {
        Self::with_key(KeyKind::P256)
    }

    /// The same with keys of one kind.
    pub fn with_key(key: KeyKind) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::at(dir.path());
        let request = AuthorityRequest { name: "test CA".parse().expect("a name"), key, days: Days::YEAR };
        let authority = folder.init(&request).expect("a CA");
        let hosts = vec!["localhost".parse().expect("a host"), "127.0.0.1".parse().expect("a host")];
        let server = ServerRequest { hosts, key, days: Days::YEAR };
        folder
            .issue(&Holder::Server, Existing::Keep, |ca| ca.issue_server(&server))
            .expect("a server certificate");
        let pki = Self { dir, authority };
        pki.client_with_key("alice", "admin", &[], key);
        pki.client_with_key("bob", "user", &[], key);
        pki
    }

    /// The files that something else has made in a folder.
    ///
    /// # Panics
    /// When there is no CA in it.
    pub fn found_in(dir: TempDir) -> Self {
        let authority = Authority::load(dir.path()).expect("a CA in the folder");
        Self { dir, authority }
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir().join("ca.pem")
    }

    /// The list of revoked certificates.
    pub fn crl(&self) -> PathBuf {
        self.dir().join("crl.pem")
    }

    /// The server's certificate.
    pub fn server(&self) -> Identity {
        self.identity("server")
    }

    /// A certificate made before, by its name.
    pub fn identity(&self, name: &str) -> Identity {
        Identity {
            cert: self.dir().join(format!("{name}.pem")),
            key: self.dir().join(format!("{name}-key.pem")),
        }
    }

    /// An ordinary client's certificate.
    pub fn client(&self, name: &str, role: &str, uris: &[&str]) -> Identity {
        self.client_with_key(name, role, uris, KeyKind::P256)
    }

    fn client_with_key(&self, name: &str, role: &str, uris: &[&str], key: KeyKind) -> Identity {
        let name = name.parse().expect("a client's name");
        let request = ClientRequest {
            name,
            role: role.parse().expect("a role"),
            role_oid: RoleOid::default(),
            uris: uris.iter().map(|uri| uri.parse().expect("a URI")).collect(),
            key,
            days: Days::CLIENT,
        };
        let holder = Holder::Client(request.name.clone());
        Folder::at(self.dir())
            .issue(&holder, Existing::Keep, |ca| ca.issue_client(&request))
            .expect("a client certificate");
        self.identity(request.name.as_str())
    }

    /// Revokes a certificate made before.
    pub fn revoke(&self, name: &str) {
        let folder = Folder::at(self.dir());
        let holder = Holder::Client(name.parse().expect("a client's name"));
        let serial = folder.serial_of(&holder).expect("a serial");
        folder.revoke(&serial).expect("a new CRL");
    }

    /// A client's certificate with anything wrong that one likes: changed by `edit` before the CA signs it.
    pub fn odd_client(&self, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        // A month, not rcgen's two thousand years.
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(30);
        edit(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, self.authority.issuer()).expect("a signature");
        let identity = self.identity(name);
        fs::write(&identity.cert, certificate.pem()).expect("a writable folder");
        fs::write(&identity.key, key.serialize_pem()).expect("a writable folder");
        identity
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

/// The role extension with any bytes as its value.
pub fn role_extension(value: &[u8]) -> CustomExtension {
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 32473, 1, 1], value.to_vec())
}

/// A role's value: a DER UTF8String.
pub fn role_value(role: &str) -> Vec<u8> {
    let length = u8::try_from(role.len()).expect("a short role");
    [&[0x0c, length], role.as_bytes()].concat()
}

/// A certificate request (DER) for a new key, that names nobody and asks for nothing but what `edit` puts into it.
///
/// # Panics
/// When it can't be made.
pub fn csr(edit: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    edit(&mut params);
    let key = KeyPair::generate().expect("a key");
    params.serialize_request(&key).expect("a request").der().to_vec()
}
