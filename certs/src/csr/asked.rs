//! What a request asks for: its subject and its extensions, as far as any certificate here may have them.

use std::net::IpAddr;

use x509_parser::{
    certification_request::X509CertificationRequestInfo,
    cri_attributes::ParsedCriAttribute,
    der_parser::{Oid, oid},
    extensions::{ExtendedKeyUsage, GeneralName, ParsedExtension, X509Extension},
    x509::X509Name,
};

use super::{BadCsr, asks};

/// The longest common name, in bytes: the longest that a worker takes for a client's name.
const MAX_NAME_BYTES: usize = 256;

/// Names and purposes.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) common_name: Option<String>,
    pub(super) uris: Vec<String>,
    pub(super) dns_names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    /// The extended key usage clientAuth.
    pub(super) for_clients: bool,
    /// The extended key usage serverAuth.
    pub(super) for_servers: bool,
}

impl Asked {
    /// # Errors
    /// [`BadCsr::Asks`] for anything else, [`BadCsr::Malformed`].
    pub(super) fn read(info: &X509CertificationRequestInfo<'_>) -> Result<Self, BadCsr> {
        let mut asked = Self { common_name: common_name(&info.subject)?, ..Self::default() };
        asked.read_extensions(info)?;
        Ok(asked)
    }

    fn read_extensions(&mut self, info: &X509CertificationRequestInfo<'_>) -> Result<(), BadCsr> {
        let mut seen: Vec<Oid<'_>> = Vec::new();
        for attribute in info.iter_attributes() {
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
                names.general_names.iter().try_for_each(|name| self.read_name(name))
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
        (self.for_clients, self.for_servers) = (usage.client_auth, usage.server_auth);
        Ok(())
    }

    fn read_name(&mut self, name: &GeneralName<'_>) -> Result<(), BadCsr> {
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
