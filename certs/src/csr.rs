//! A certificate request (CSR; PKCS #10, RFC 2986) that somebody else made: read, checked, and held to what a
//! certificate of ours can say.
//!
//! Nothing in a request is granted because it stands there. What it says is compared with what its signer gives: a
//! request for less is fine, one for anything else is refused in words, so that nobody believes to have got it.

use std::net::IpAddr;

use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    der_parser::{Oid, oid},
    extensions::{ExtendedKeyUsage, GeneralName, ParsedExtension, X509Extension},
    prelude::FromDer,
    x509::X509Name,
};

use crate::{Host, PublicKey, files::pem_contents};

/// The longest request that is read, in bytes: an RSA-8192 key with its signature takes 2 KiB, names the rest.
pub const MAX_CSR_BYTES: usize = 16 * 1024;

/// The longest common name, in bytes: the longest that a worker takes for a client's name.
const MAX_NAME_BYTES: usize = 256;

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
    common_name: Option<String>,
    names: Names,
    /// It wants to authenticate clients, servers.
    usages: Usages,
}

/// Its subject's alternative names.
#[derive(Clone, Debug, Default)]
struct Names {
    uris: Vec<String>,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Usages {
    client: bool,
    server: bool,
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
        let mut csr = Self {
            key,
            common_name: common_name(&info.subject)?,
            names: Names::default(),
            usages: Usages::default(),
        };
        csr.read_extensions(&request)?;
        Ok(csr)
    }

    /// The key that it is for.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The common name that it asks for.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Whether a client who is called so gets all that is asked for.
    ///
    /// # Errors
    /// [`BadCsr::Asks`]: another name, or to be a server.
    pub fn for_client(&self, names: ClientNames<'_>) -> Result<(), BadCsr> {
        let why = "another's name, or one that its signer does not give";
        if let (Some(asked), Some(given)) = (&self.common_name, names.common_name)
            && asked != given
        {
            return Err(asks(format!("the common name {asked:?}"), why));
        }
        only("the URI name", &self.names.uris, names.uris)?;
        only("the DNS name", &self.names.dns_names, names.dns_names)?;
        if let Some(address) = self.names.addresses.first() {
            return Err(asks(format!("the address {address}"), "clients have none"));
        }
        match self.usages.server {
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
        let asked: Vec<_> = self.names.dns_names.iter().map(|name| name.to_ascii_lowercase()).collect();
        only("the DNS name", &asked, &dns_names)?;
        if let Some(address) =
            self.names.addresses.iter().find(|address| !addresses.contains(&Some(**address)))
        {
            return Err(asks(format!("the address {address}"), NOT_GIVEN));
        }
        let is_known = |name: &String| {
            name == crate::authority::SERVER_NAME || hosts.iter().any(|host| host.to_string() == *name)
        };
        if let Some(name) = self.common_name.as_ref().filter(|name| !is_known(name)) {
            return Err(asks(format!("the common name {name:?}"), NOT_GIVEN));
        }
        if let Some(uri) = self.names.uris.first() {
            return Err(asks(format!("the URI name {uri:?}"), "servers have none"));
        }
        match self.usages.client {
            true => Err(asks("the extended key usage clientAuth", "a server is no client")),
            false => Ok(()),
        }
    }

    fn read_extensions(&mut self, request: &X509CertificationRequest<'_>) -> Result<(), BadCsr> {
        let mut seen: Vec<Oid<'_>> = Vec::new();
        for attribute in request.certification_request_info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else {
                return Err(asks(
                    format!("the attribute {}", attribute.oid),
                    "certificates here have none of these",
                ));
            };
            for extension in &asked.extensions {
                if seen.contains(&extension.oid) {
                    return Err(BadCsr::Malformed(format!("it has the extension {} twice", extension.oid)));
                }
                seen.push(extension.oid.clone());
                self.read_extension(extension)?;
            }
        }
        Ok(())
    }

    fn read_extension(&mut self, extension: &X509Extension<'_>) -> Result<(), BadCsr> {
        /// `KeyUsage`, RFC 5280 §4.2.1.3: bit 0.
        const DIGITAL_SIGNATURE: u16 = 1;
        match extension.parsed_extension() {
            // It says which key this is, and that is known.
            ParsedExtension::SubjectKeyIdentifier(_) => Ok(()),
            ParsedExtension::BasicConstraints(constraints) if !constraints.ca => Ok(()),
            ParsedExtension::BasicConstraints(_) => {
                Err(asks("basic constraints with CA:TRUE", "a certificate here signs no others"))
            }
            ParsedExtension::KeyUsage(usage) if usage.flags & !DIGITAL_SIGNATURE == 0 => Ok(()),
            ParsedExtension::KeyUsage(usage) => {
                Err(asks(format!("the key usages {usage}"), "certificates here have digitalSignature alone"))
            }
            ParsedExtension::ExtendedKeyUsage(usage) => self.read_usage(usage),
            ParsedExtension::SubjectAlternativeName(names) => {
                names.general_names.iter().try_for_each(|name| self.names.read(name))
            }
            _ => Err(asks(
                format!("the extension {}", extension.oid),
                "its signer decides on such ones, as on the role",
            )),
        }
    }

    fn read_usage(&mut self, usage: &ExtendedKeyUsage<'_>) -> Result<(), BadCsr> {
        let ExtendedKeyUsage { any, code_signing, email_protection, time_stamping, ocsp_signing, .. } =
            *usage;
        if any || code_signing || email_protection || time_stamping || ocsp_signing || !usage.other.is_empty()
        {
            let why = "certificates here are for clientAuth or for serverAuth";
            return Err(asks("another extended key usage", why));
        }
        self.usages = Usages { client: usage.client_auth, server: usage.server_auth };
        Ok(())
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

impl Names {
    fn read(&mut self, name: &GeneralName<'_>) -> Result<(), BadCsr> {
        match name {
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => self.addresses.push(address(bytes)?),
            other => {
                return Err(asks(
                    format!("the name {other:?}"),
                    "certificates here have URI names, DNS names and addresses",
                ));
            }
        }
        Ok(())
    }
}

fn address(bytes: &[u8]) -> Result<IpAddr, BadCsr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    address.map_err(|_| BadCsr::Malformed(format!("an IP address of {} bytes", bytes.len())))
}

/// A subject is a common name or nothing: what else it says would be lost.
fn common_name(subject: &X509Name<'_>) -> Result<Option<String>, BadCsr> {
    const COMMON_NAME: Oid<'_> = oid!(2.5.4.3);
    let mut common_name = None;
    for attribute in subject.iter_attributes() {
        let (oid, text) = (attribute.attr_type(), attribute.as_str());
        if *oid != COMMON_NAME || common_name.is_some() {
            let asked = format!("{oid} = {:?} in its subject", text.unwrap_or_default());
            return Err(asks(asked, "a subject here is one common name (2.5.4.3), like /CN=alice"));
        }
        let text = text.map_err(|error| BadCsr::Malformed(format!("its common name: {error}")))?;
        if text.is_empty() || text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
            let why = "a name has 1 to 256 bytes and no control characters";
            return Err(asks(format!("the common name {text:?}"), why));
        }
        common_name = Some(text.to_owned());
    }
    Ok(common_name)
}

/// SHA-1 signatures can be forged, and the library would take them.
fn is_sha1(algorithm: &Oid<'_>) -> bool {
    *algorithm == oid!(1.2.840.113549.1.1.5) || *algorithm == oid!(1.3.14.3.2.29)
}
