//! A certificate request (CSR; PKCS #10, RFC 2986) that somebody else made: read, checked, and held to what a
//! certificate of ours can say.
//!
//! Nothing in a request is granted because it stands there. What it says is compared with what its signer gives: a
//! request for less is fine, one for anything else is refused in words, so that nobody believes to have got it.

mod asked;

use x509_parser::{
    certification_request::X509CertificationRequest,
    der_parser::{Oid, oid},
    prelude::FromDer,
};

use self::asked::Asked;
use crate::{Host, PublicKey, files::pem_contents};

/// The longest request that is read, in bytes: an RSA-8192 key with its signature takes 2 KiB, names the rest.
pub const MAX_CSR_BYTES: usize = 16 * 1024;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCsr {
    /// Longer than any that makes sense.
    #[error("it has {bytes} bytes, and {MAX_CSR_BYTES} are the most")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not PKCS #10, or not all of it.
    #[error("it is no certificate request: {0}")]
    Malformed(String),
    /// Whoever made it does not have the private key, or it was changed on its way.
    #[error("its signature was not made with the private key of the public key in it")]
    Signature,
    /// Too weak a key, or one that nothing here can use.
    #[error("its key is {0}; RSA with 2048 to 8192 bits, P-256, P-384 or Ed25519 is needed")]
    Key(String),
    /// It asks for what it can't have.
    #[error("it asks for {asked}: {why}")]
    Asks {
        /// What, with its value.
        asked: String,
        /// Why not, or who decides that.
        why: &'static str,
    },
}

fn asks(asked: impl Into<String>, why: &'static str) -> BadCsr {
    BadCsr::Asks { asked: asked.into(), why }
}

/// A request whose signature was made with its own key, and that asks for nothing that no certificate here may have.
#[derive(Clone, Debug)]
pub struct Csr {
    key: PublicKey,
    asked: Asked,
}

/// Who a client's certificate is for, as its signer says.
#[derive(Clone, Copy, Debug)]
pub struct ClientNames<'a> {
    /// The common name; none: the request's, whatever it is.
    pub common_name: Option<&'a str>,
    /// The URI names.
    pub uris: &'a [String],
    /// The DNS names.
    pub dns_names: &'a [String],
}

impl Csr {
    /// Reads a request in PEM form.
    ///
    /// # Errors
    /// [`BadCsr`]
    pub fn from_pem(text: &str) -> Result<Self, BadCsr> {
        let der = pem_contents(text, "CERTIFICATE REQUEST")
            // What openssl before 1.0 and Java's keytool write.
            .or_else(|reason| pem_contents(text, "NEW CERTIFICATE REQUEST").map_err(|_| reason))
            .map_err(BadCsr::Malformed)?;
        Self::from_der(&der)
    }

    /// Reads a request in DER form.
    ///
    /// # Errors
    /// [`BadCsr`]
    pub fn from_der(der: &[u8]) -> Result<Self, BadCsr> {
        if der.len() > MAX_CSR_BYTES {
            return Err(BadCsr::TooLarge { bytes: der.len() });
        }
        let malformed = |error: String| BadCsr::Malformed(error);
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed(format!("{} bytes follow it", rest.len())));
        }
        let info = &request.certification_request_info;
        let key = PublicKey::new(&info.subject_pki)?;
        if is_sha1(&request.signature_algorithm.algorithm) || request.verify_signature().is_err() {
            return Err(BadCsr::Signature);
        }
        Ok(Self { key, asked: Asked::read(info)? })
    }

    /// The key that it is for.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The common name that it asks for.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.asked.common_name.as_deref()
    }

    /// Whether a client who is called so gets all that is asked for.
    ///
    /// # Errors
    /// [`BadCsr::Asks`]: another name, or to be a server.
    pub fn for_client(&self, names: ClientNames<'_>) -> Result<(), BadCsr> {
        let why = "another's name, or one that its signer does not give";
        if let (Some(asked), Some(given)) = (&self.asked.common_name, names.common_name)
            && asked != given
        {
            return Err(asks(format!("the common name {asked:?}"), why));
        }
        only("the URI name", &self.asked.uris, names.uris)?;
        only("the DNS name", &self.asked.dns_names, names.dns_names)?;
        if let Some(address) = self.asked.addresses.first() {
            return Err(asks(format!("the address {address}"), "clients have none"));
        }
        match self.asked.for_servers {
            true => Err(asks("the extended key usage serverAuth", "a client is no server")),
            false => Ok(()),
        }
    }

    /// Whether a server at these hosts gets all that is asked for.
    ///
    /// # Errors
    /// [`BadCsr::Asks`]: another host, or to be a client.
    pub fn for_server(&self, hosts: &[Host]) -> Result<(), BadCsr> {
        let of = |host: &Host| match host {
            Host::Dns(name) => (Some(name.clone()), None),
            Host::Ip(ip) => (None, Some(*ip)),
        };
        let (dns_names, addresses): (Vec<_>, Vec<_>) = hosts.iter().map(of).unzip();
        let dns_names: Vec<_> = dns_names.into_iter().flatten().collect();
        let asked: Vec<_> = self.asked.dns_names.iter().map(|name| name.to_ascii_lowercase()).collect();
        only("the DNS name", &asked, &dns_names)?;
        if let Some(address) =
            self.asked.addresses.iter().find(|address| !addresses.contains(&Some(**address)))
        {
            return Err(asks(format!("the address {address}"), NOT_GIVEN));
        }
        let is_known = |name: &String| {
            name == crate::issuance::SERVER_NAME || hosts.iter().any(|host| host.to_string() == *name)
        };
        if let Some(name) = self.asked.common_name.as_ref().filter(|name| !is_known(name)) {
            return Err(asks(format!("the common name {name:?}"), NOT_GIVEN));
        }
        if let Some(uri) = self.asked.uris.first() {
            return Err(asks(format!("the URI name {uri:?}"), "servers have none"));
        }
        match self.asked.for_clients {
            true => Err(asks("the extended key usage clientAuth", "a server is no client")),
            false => Ok(()),
        }
    }
}

const NOT_GIVEN: &str = "its signer does not give that";

/// All that is asked for is among what is given.
fn only(what: &str, asked: &[String], given: &[String]) -> Result<(), BadCsr> {
    match asked.iter().find(|name| !given.contains(name)) {
        Some(name) => Err(asks(format!("{what} {name:?}"), NOT_GIVEN)),
        None => Ok(()),
    }
}

/// SHA-1 signatures can be forged, and the library would take them.
fn is_sha1(algorithm: &Oid<'_>) -> bool {
    *algorithm == oid!(1.2.840.113549.1.1.5) || *algorithm == oid!(1.3.14.3.2.29)
}
