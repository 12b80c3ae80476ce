//! What a certificate says that it may be refused for.

use x509_parser::{
    certificate::X509Certificate,
    der_parser::{Oid, asn1_rs::FromDer as _, oid},
    extensions::ParsedExtension,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::CLIENT_AUTH;

/// Bits of an RSA key that signatures are verified with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Extensions that a verifier looks at when they are critical: key usage, alternative names, basic constraints, name
/// constraints, distribution points, extended key usage.
static KNOWN_EXTENSIONS: [Oid<'static>; 6] =
    [oid!(2.5.29.15), oid!(2.5.29.17), oid!(2.5.29.19), oid!(2.5.29.30), oid!(2.5.29.31), oid!(2.5.29.37)];

/// Signature algorithms that nobody here accepts, by name; and the others that are met with.
static SIGNATURES: [(Oid<'static>, &str, bool); 18] = [
    (oid!(1.2.840.113549.1.1.2), "MD2 and RSA", false),
    (oid!(1.2.840.113549.1.1.4), "MD5 and RSA", false),
    (oid!(1.2.840.113549.1.1.5), "SHA-1 and RSA", false),
    (oid!(1.3.14.3.2.29), "SHA-1 and RSA", false),
    (oid!(1.2.840.113549.1.1.14), "SHA-224 and RSA", false),
    // Some parameters are accepted, most are not: what openssl makes by itself is not.
    (oid!(1.2.840.113549.1.1.10), "RSASSA-PSS", true),
    (oid!(1.2.840.113549.1.1.11), "SHA-256 and RSA", true),
    (oid!(1.2.840.113549.1.1.12), "SHA-384 and RSA", true),
    (oid!(1.2.840.113549.1.1.13), "SHA-512 and RSA", true),
    (oid!(1.2.840.10040.4.3), "SHA-1 and DSA", false),
    (oid!(2.16.840.1.101.3.4.3.2), "SHA-256 and DSA", false),
    (oid!(1.2.840.10045.4.1), "SHA-1 and ECDSA", false),
    (oid!(1.2.840.10045.4.3.1), "SHA-224 and ECDSA", false),
    (oid!(1.2.840.10045.4.3.2), "SHA-256 and ECDSA", true),
    (oid!(1.2.840.10045.4.3.3), "SHA-384 and ECDSA", true),
    (oid!(1.2.840.10045.4.3.4), "SHA-512 and ECDSA", true),
    (oid!(1.3.101.112), "Ed25519", true),
    (oid!(1.3.101.113), "Ed448", false),
];

/// A certificate, as far as it can be read.
#[derive(Default)]
pub(super) struct Reading {
    /// The common name, else the whole subject.
    pub(super) name: String,
    /// DER.
    pub(super) subject: Vec<u8>,
    /// DER.
    pub(super) issuer: Vec<u8>,
    /// Its first and last second, since the Unix epoch.
    pub(super) validity: Option<(i64, i64)>,
    pub(super) is_ca: bool,
    /// How many CAs may be below this one.
    pub(super) max_cas_below: Option<u32>,
    pub(super) has_name_constraints: bool,
    pub(super) signature_algorithm: String,
    /// The signature's algorithm, if nobody here accepts it.
    pub(super) bad_signature: Option<&'static str>,
    /// The key, if nobody here accepts it.
    pub(super) bad_key: Option<String>,
    /// Critical extensions that no verifier here looks at.
    pub(super) unknown_critical: Vec<String>,
    /// Why it can't be read.
    pub(super) unreadable: Option<String>,
    purposes: Option<(bool, bool)>,
}

impl Reading {
    pub(super) fn of(der: &[u8]) -> Self {
        match X509Certificate::from_der(der) {
            Ok((_, certificate)) => Self::of_certificate(&certificate),
            Err(error) => {
                Self { unreadable: Some(error.to_string()), name: "unreadable".to_owned(), ..Self::default() }
            }
        }
    }

    fn of_certificate(certificate: &X509Certificate<'_>) -> Self {
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let constraints = certificate.basic_constraints().ok().flatten().map(|found| found.value);
        let usage = certificate.extended_key_usage().ok().flatten().map(|found| found.value);
        let validity = certificate.validity();
        let algorithm = &certificate.signature_algorithm.algorithm;
        let known = SIGNATURES.iter().find(|(oid, ..)| oid == algorithm);
        let unknown = |extension: &&x509_parser::extensions::X509Extension<'_>| {
            extension.critical && !KNOWN_EXTENSIONS.contains(&extension.oid)
        };
        Self {
            name: common_name.map_or_else(|| subject.to_string(), str::to_owned),
            subject: subject.as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
            validity: Some((validity.not_before.timestamp(), validity.not_after.timestamp())),
            is_ca: constraints.is_some_and(|constraints| constraints.ca),
            max_cas_below: constraints.and_then(|constraints| constraints.path_len_constraint),
            has_name_constraints: certificate
                .extensions()
                .iter()
                .any(|extension| matches!(extension.parsed_extension(), ParsedExtension::NameConstraints(_))),
            signature_algorithm: oid_name(algorithm),
            bad_signature: known.filter(|(.., is_accepted)| !is_accepted).map(|(_, name, _)| *name),
            bad_key: bad_key(certificate.public_key()),
            unknown_critical: certificate
                .extensions()
                .iter()
                .filter(unknown)
                .map(|found| found.oid.to_string())
                .collect(),
            unreadable: None,
            purposes: usage.map(|usage| (usage.client_auth, usage.server_auth)),
        }
    }

    /// True if it is meant for something, and not for this.
    pub(super) fn lacks(&self, purpose: &str) -> bool {
        self.purposes.is_some_and(|(client, server)| if purpose == CLIENT_AUTH { !client } else { !server })
    }
}

/// The name of the algorithm in an `AlgorithmIdentifier` (DER, without its outer header).
pub(super) fn algorithm_name(id: &[u8]) -> String {
    Oid::from_der(id).map_or_else(|_| "an algorithm that can't be read".to_owned(), |(_, oid)| oid_name(&oid))
}

fn oid_name(oid: &Oid<'_>) -> String {
    let known = SIGNATURES.iter().find(|(known, ..)| known == oid);
    known.map_or_else(|| format!("the algorithm {oid}"), |(_, name, _)| (*name).to_owned())
}

/// A key that nobody here accepts, with its kind and size.
fn bad_key(info: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    const RSA_PSS: Oid<'static> = oid!(1.2.840.113549.1.1.10);
    static CURVES: [(Oid<'static>, &str, bool); 9] = [
        (oid!(1.2.840.10045.3.1.7), "P-256", true),
        (oid!(1.3.132.0.34), "P-384", true),
        (oid!(1.3.132.0.35), "P-521", true),
        (oid!(1.2.840.10045.3.1.1), "P-192", false),
        (oid!(1.3.132.0.33), "P-224", false),
        (oid!(1.3.132.0.10), "secp256k1", false),
        (oid!(1.3.36.3.3.2.8.1.1.7), "brainpoolP256r1", false),
        (oid!(1.3.36.3.3.2.8.1.1.11), "brainpoolP384r1", false),
        (oid!(1.3.36.3.3.2.8.1.1.13), "brainpoolP512r1", false),
    ];
    const EC: Oid<'static> = oid!(1.2.840.10045.2.1);
    static OTHERS: [(Oid<'static>, &str); 4] = [
        (RSA_PSS, "an RSA key that is for RSASSA-PSS only"),
        (oid!(1.2.840.10040.4.1), "a DSA key"),
        (oid!(1.3.101.113), "an Ed448 key"),
        (oid!(1.3.101.110), "an X25519 key, which signs nothing"),
    ];
    let kind = &info.algorithm.algorithm;
    if let Some((_, name)) = OTHERS.iter().find(|(oid, _)| oid == kind) {
        return Some((*name).to_owned());
    }
    if *kind == EC {
        let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        return match curve.as_ref().map(|curve| (curve, CURVES.iter().find(|(oid, ..)| oid == curve))) {
            Some((_, Some((.., true)))) => None,
            Some((_, Some((_, name, false)))) => Some(format!("a key on the curve {name}")),
            Some((curve, None)) => Some(format!("a key on the curve {curve}")),
            None => Some("a key on a curve without a name".to_owned()),
        };
    }
    match info.parsed() {
        Ok(PublicKey::RSA(key)) if !RSA_BITS.contains(&key.key_size()) => {
            Some(format!("an RSA key of {} bits", key.key_size()))
        }
        _ => None,
    }
}
