//! What a CA signs: certificates of servers and of clients, each for one purpose, none beyond the CA's own end.

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::{
    Authority, ClientGrant, ClientRequest, Csr, Days, Error, Host, InvalidValue, Issued, PublicKey, Renewal,
    Serial, ServerGrant, ServerRequest, Signed, Uri, hex::hex, names::ia5_name, validity::Validity,
};

/// The common name of every server's certificate; clients look at its hosts.
pub(crate) const SERVER_NAME: &str = "jobworker server";

impl Authority {
    /// Makes a server's certificate and its key: server authentication only, the hosts as alternative names.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a host, [`Error::AuthorityExpired`], [`Error::Crypto`].
    pub fn issue_server(&self, request: &ServerRequest) -> Result<Issued, Error> {
        let ServerRequest { hosts, key, days } = request;
        let key = key.generate()?;
        let signed = self.server(hosts, *days, &key)?;
        Ok(signed.with_key(key.serialize_pem()))
    }

    /// Makes a client's certificate and its key: client authentication only, the role as a non-critical extension.
    ///
    /// # Errors
    /// [`Error::AuthorityExpired`], [`Error::Crypto`].
    pub fn issue_client(&self, request: &ClientRequest) -> Result<Issued, Error> {
        let ClientRequest { name, role, role_oid, uris, key, days } = request;
        let key = key.generate()?;
        let names = (uris.iter().map(Uri::alternative_name)).collect::<Result<_, _>>()?;
        let role = Some(role_oid.extension(role));
        let signed = self.client(Some(name.as_str()), names, role, *days, &key)?;
        Ok(signed.with_key(key.serialize_pem()))
    }

    /// Signs a client's request: what the certificate says is all in `grant`, and the request may ask for no more.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::AuthorityExpired`], [`Error::Crypto`].
    pub fn sign_client(&self, csr: &Csr, grant: &ClientGrant) -> Result<Signed, Error> {
        let ClientGrant { name, role, role_oid, uris, days } = grant;
        let given: Vec<_> = uris.iter().map(|uri| uri.as_str().to_owned()).collect();
        // The name is the signer's choice, whatever the request says.
        csr.for_client(crate::ClientNames { common_name: None, uris: &given, dns_names: &[] })?;
        let names = (uris.iter().map(Uri::alternative_name)).collect::<Result<_, _>>()?;
        let role = Some(role_oid.extension(role));
        self.client(Some(name.as_str()), names, role, *days, &csr.key().info)
    }

    /// Signs a server's request: the hosts are those in `grant`, and the request may ask for no more.
    ///
    /// # Errors
    /// [`Error::Request`]; as [`Self::issue_server`].
    pub fn sign_server(&self, csr: &Csr, grant: &ServerGrant) -> Result<Signed, Error> {
        csr.for_server(&grant.hosts)?;
        self.server(&grant.hosts, grant.days, &csr.key().info)
    }

    /// Makes a client's next certificate: the same names and the same role, for another key.
    ///
    /// # Errors
    /// [`Error::AuthorityExpired`], [`Error::Crypto`]; [`Error::Invalid`] if the role is too long for one.
    pub fn renew(&self, key: &PublicKey, renewal: &Renewal<'_>) -> Result<Signed, Error> {
        let uris = renewal.uris.iter().map(|uri| ia5_name(uri, SanType::URI));
        let dns_names = renewal.dns_names.iter().map(|name| ia5_name(name, SanType::DnsName));
        let names = uris.chain(dns_names).collect::<Result<_, _>>()?;
        let role = renewal.role.map(|role| renewal.role_oid.extension_of(role)).transpose()?;
        self.client(renewal.common_name, names, role, renewal.days, &key.info)
    }

    fn server(&self, hosts: &[Host], days: Days, key: &impl PublicKeyData) -> Result<Signed, Error> {
        if hosts.is_empty() {
            let expected = "at least one DNS name or IP address at which clients reach the server";
            return Err(InvalidValue { field: "hosts", value: String::new(), expected }.into());
        }
        let names = hosts.iter().map(Host::alternative_name).collect::<Result<_, _>>()?;
        self.sign(Some(SERVER_NAME), days, key, |params| {
            params.subject_alt_names = names;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    fn client(
        &self,
        common_name: Option<&str>,
        names: Vec<SanType>,
        role: Option<CustomExtension>,
        days: Days,
        key: &impl PublicKeyData,
    ) -> Result<Signed, Error> {
        self.sign(common_name, days, key, |params| {
            params.subject_alt_names = names;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.custom_extensions = role.into_iter().collect();
        })
    }

    /// When a certificate would end that it signed now for so many days.
    ///
    /// # Errors
    /// [`Error::AuthorityExpired`]
    pub fn end_of(&self, days: Days) -> Result<OffsetDateTime, Error> {
        let now = OffsetDateTime::now_utc();
        Ok(Validity::starting(now, days).within(now, self.not_after())?.not_after)
    }

    fn sign(
        &self,
        common_name: Option<&str>,
        days: Days,
        key: &impl PublicKeyData,
        complete: impl FnOnce(&mut CertificateParams),
    ) -> Result<Signed, Error> {
        let now = OffsetDateTime::now_utc();
        let asked = Validity::starting(now, days);
        let asked_not_after = asked.not_after;
        let validity = asked.within(now, self.not_after())?;
        let serial = Serial::random()?;
        let mut params = params(common_name, &serial, &validity);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        complete(&mut params);
        let certificate =
            params.signed_by(key, self.issuer()).map_err(Error::crypto("sign a certificate"))?;
        Ok(Signed {
            certificate_pem: certificate.pem(),
            fingerprint_sha256: hex(&Sha256::digest(certificate.der())),
            serial,
            not_after: validity.not_after,
            cut_to_authority: validity.not_after < asked_not_after,
        })
    }
}

/// A certificate's beginning: whose, its number and its dates.
pub(crate) fn params(common_name: Option<&str>, serial: &Serial, validity: &Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.serial_number = Some(serial.into());
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params
}
