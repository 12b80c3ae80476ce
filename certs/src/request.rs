//! What a certificate is to say, and what comes of it.

use std::fmt;

use time::OffsetDateTime;

use crate::{AuthorityName, ClientName, Days, Host, KeyKind, Role, RoleOid, Serial, Uri};

/// What a new CA is to be.
#[derive(Debug)]
pub struct AuthorityRequest {
    /// Its common name.
    pub name: AuthorityName,
    /// Its key; the kind decides the signature on every certificate.
    pub key: KeyKind,
    /// Its life, and with it the longest life of any certificate it signs.
    pub days: Days,
}

/// What a server's certificate is to say.
#[derive(Debug)]
pub struct ServerRequest {
    /// The names and addresses clients use; at least one.
    pub hosts: Vec<Host>,
    /// The kind of key to make.
    pub key: KeyKind,
    /// Its life, cut to the CA's.
    pub days: Days,
}

/// What a client's certificate is to say.
#[derive(Debug)]
pub struct ClientRequest {
    /// The common name.
    pub name: ClientName,
    /// The role, as the worker's policy knows it.
    pub role: Role,
    /// The extension that carries the role.
    pub role_oid: RoleOid,
    /// URI names; the first is the owner of the client's jobs.
    pub uris: Vec<Uri>,
    /// The kind of key to make.
    pub key: KeyKind,
    /// Its life, cut to the CA's.
    pub days: Days,
}

/// What a client's certificate is to say, where somebody else has the key.
#[derive(Debug)]
pub struct ClientGrant {
    /// The common name.
    pub name: ClientName,
    /// The role, as the worker's policy knows it.
    pub role: Role,
    /// The extension that carries the role.
    pub role_oid: RoleOid,
    /// URI names; the first is the owner of the client's jobs.
    pub uris: Vec<Uri>,
    /// Its life, cut to the CA's.
    pub days: Days,
}

/// What a server's certificate is to say, where somebody else has the key.
#[derive(Debug)]
pub struct ServerGrant {
    /// The names and addresses clients use; at least one.
    pub hosts: Vec<Host>,
    /// Its life, cut to the CA's.
    pub days: Days,
}

/// What a client's certificate says, to be said again by the next one.
#[derive(Debug)]
pub struct Renewal<'a> {
    /// The common name, where it has one.
    pub common_name: Option<&'a str>,
    /// URI names, in their order: the first is the owner of the client's jobs.
    pub uris: &'a [String],
    /// DNS names.
    pub dns_names: &'a [String],
    /// The role, where it has one.
    pub role: Option<&'a str>,
    /// The extension that carries the role.
    pub role_oid: &'a RoleOid,
    /// The next one's life, cut to the CA's.
    pub days: Days,
}

/// A certificate just signed.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its SHA-256, lower-case hex.
    pub fingerprint_sha256: String,
    /// Its serial number.
    pub serial: Serial,
    /// Its last second.
    pub not_after: OffsetDateTime,
    /// The days asked for were cut because the CA ends earlier.
    pub cut_to_authority: bool,
}

impl Signed {
    pub(crate) fn with_key(self, key_pem: String) -> Issued {
        let Self { certificate_pem, serial, not_after, cut_to_authority, .. } = self;
        Issued { certificate_pem, key_pem, serial, not_after, cut_to_authority }
    }
}

/// A certificate just signed, with its private key.
pub struct Issued {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS #8 PEM.
    pub key_pem: String,
    /// The certificate's serial number.
    pub serial: Serial,
    /// The certificate's last second.
    pub not_after: OffsetDateTime,
    /// The days asked for were cut because the CA ends earlier.
    pub cut_to_authority: bool,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The private key stays out of logs and panics.
        f.debug_struct("Issued").field("serial", &self.serial).finish_non_exhaustive()
    }
}
