//! Why a chain of certificates is refused: which certificate of it, and what is wrong with that one.
//!
//! A verifier says what is wrong, and not with which certificate; a TLS alert says even less. The worker explains its
//! refusals with this in the audit log, and jobctl, which gets an alert only, explains them by looking at its own files.

mod reading;

use std::fmt::Write;

use rustls::pki_types::CertificateDer;
use rustls::{CertRevocationListError, CertificateError, Error};

use self::reading::{Reading, algorithm_name};

/// What signatures of certificates and lists may be made with: what the cryptography of both programs verifies.
const ACCEPTED_SIGNATURES: &str =
    "ECDSA, Ed25519, or RSA (PKCS #1) with SHA-256, SHA-384 or SHA-512, are accepted";

/// Keys that both programs can use.
pub const ACCEPTED_KEYS: &str = "RSA with 2048 to 8192 bits, P-256, P-384, P-521 and Ed25519 are accepted";

/// Why a chain of certificates is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainFault {
    /// The CA whose certificate is at fault; `None`: the holder's own is.
    pub ca: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Its last second has passed, in seconds since the Unix epoch.
    Expired(i64),
    /// Its first second has not come, in seconds since the Unix epoch.
    NotYetValid(i64),
    /// It, or one above it, is on a revocation list.
    Revoked,
    /// No CA that is trusted has its issuer's name.
    UnknownIssuer,
    /// A CA that is trusted has its issuer's name, and another key.
    OtherIssuer,
    /// It is not meant for this: the word for what its extended key usage lacks.
    Purpose(&'static str),
    /// No list tells whether it is revoked.
    NoRevocationList,
    /// The list that would tell is past its next update, in seconds since the Unix epoch.
    RevocationListExpired(Option<i64>),
    /// The list that would tell can't be used: why not.
    RevocationListUnusable(String),
    /// Anything else, as what follows "the certificate".
    Other(String),
}

impl ChainFault {
    /// What `error` means, which a verifier that trusts `cas` has given for `chain`, whose first is the holder's.
    #[must_use]
    pub fn of(error: &Error, chain: &[CertificateDer<'_>], cas: &[CertificateDer<'_>]) -> Self {
        let chain: Vec<_> = chain.iter().map(|der| Reading::of(der)).collect();
        let cas: Vec<_> = cas.iter().map(|der| Reading::of(der)).collect();
        match error {
            Error::InvalidCertificate(error) => of_certificate(error, &chain, &cas),
            Error::InvalidCertRevocationList(error) => Self::own(of_list(error)),
            other => Self::own(Fault::Other(format!("is not acceptable: {other}"))),
        }
    }

    /// What can be seen to be wrong with a chain without knowing who trusts which CA: a signature or a key that nobody
    /// here accepts.
    #[must_use]
    pub fn apparent(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let chain: Vec<_> = chain.iter().map(|der| Reading::of(der)).collect();
        let signed_badly = first(&chain, |of| of.bad_signature.map(|name| Fault::Other(signed_with(name))));
        signed_badly.or_else(|| bad_key(&chain))
    }

    /// The first certificate's key, if it is one that nobody here accepts.
    #[must_use]
    pub fn of_key(certificate: &CertificateDer<'_>) -> Option<Self> {
        bad_key(&[Reading::of(certificate)])
    }

    fn own(fault: Fault) -> Self {
        Self { ca: None, fault }
    }

    /// What follows "the certificate", with times as `date` writes them.
    #[must_use]
    pub fn words(&self, date: impl Fn(i64) -> String) -> String {
        let words = self.fault.words(date);
        match &self.ca {
            None => words,
            Some(ca) => format!("comes from the CA {ca:?}, whose certificate {words}"),
        }
    }
}

impl Fault {
    /// What follows "the certificate", with times as `date` writes them.
    #[must_use]
    pub fn words(&self, date: impl Fn(i64) -> String) -> String {
        match self {
            Self::Expired(end) => format!("expired on {}", date(*end)),
            Self::NotYetValid(begin) => format!("is not valid before {}", date(*begin)),
            Self::Revoked => "is revoked".to_owned(),
            Self::UnknownIssuer => "is not signed by a CA that is trusted".to_owned(),
            Self::OtherIssuer => {
                "is not signed by a CA that is trusted: there is one of that name, with another key"
                    .to_owned()
            }
            Self::Purpose(lacks) => {
                let whom = if *lacks == CLIENT_AUTH { "clients" } else { "servers" };
                format!("is not meant for {whom}: its extended key usage lacks {lacks}")
            }
            Self::NoRevocationList => {
                "can't be checked for revocation: there is no list of the CA that signed it".to_owned()
            }
            Self::RevocationListExpired(end) => {
                let when = end.map(|end| format!(" on {}", date(end))).unwrap_or_default();
                format!("can't be checked for revocation: the list of the CA that signed it expired{when}")
            }
            Self::RevocationListUnusable(why) => format!("can't be checked for revocation: {why}"),
            Self::Other(words) => words.clone(),
        }
    }
}

const CLIENT_AUTH: &str = "clientAuth";
const SERVER_AUTH: &str = "serverAuth";

/// The first certificate of a chain that something is wrong with.
fn first(chain: &[Reading], wrong: impl Fn(&Reading) -> Option<Fault>) -> Option<ChainFault> {
    chain.iter().enumerate().find_map(|(number, of)| {
        let ca = (number > 0).then(|| of.name.clone());
        Some(ChainFault { ca, fault: wrong(of)? })
    })
}

fn bad_key(chain: &[Reading]) -> Option<ChainFault> {
    first(chain, |of| of.bad_key.as_ref().map(|key| Fault::Other(keyed_with(key))))
}

fn keyed_with(key: &str) -> String {
    format!("has {key}: {ACCEPTED_KEYS}")
}

fn signed_with(name: &str) -> String {
    format!("is signed with {name}: only {ACCEPTED_SIGNATURES}")
}

fn of_certificate(error: &CertificateError, chain: &[Reading], cas: &[Reading]) -> ChainFault {
    let found_or = |found: Option<ChainFault>, fault| found.unwrap_or(ChainFault::own(fault));
    let other = |words: &str| Fault::Other(words.to_owned());
    match error {
        CertificateError::Expired => {
            let reversed = |of: &Reading| of.validity.is_some_and(|(begin, end)| end < begin);
            let words = other("ends before it begins");
            found_or(first(chain, |of| reversed(of).then(|| words.clone())), other("has expired"))
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            let end = not_after.as_secs().cast_signed();
            let is_it = |of: &Reading| of.validity.is_some_and(|(_, other)| other == end);
            let expired = || Fault::Expired(end);
            found_or(first(chain, |of| is_it(of).then(expired)), expired())
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            let begin = not_before.as_secs().cast_signed();
            let is_it = |of: &Reading| of.validity.is_some_and(|(other, _)| other == begin);
            let early = || Fault::NotYetValid(begin);
            found_or(first(chain, |of| is_it(of).then(early)), early())
        }
        CertificateError::NotValidYet => ChainFault::own(other("is not valid yet")),
        // Which one of the chain, the verifier does not say.
        CertificateError::Revoked => ChainFault::own(Fault::Revoked),
        CertificateError::UnknownIssuer => ChainFault::own(Fault::UnknownIssuer),
        // What it is verified with may be at fault: a key that is too small verifies nothing.
        CertificateError::BadSignature => {
            weak_issuer(chain, cas).unwrap_or(ChainFault::own(Fault::OtherIssuer))
        }
        CertificateError::InvalidPurposeContext { required, .. } => {
            let lacks = match required {
                rustls::ExtendedKeyPurpose::ServerAuth => SERVER_AUTH,
                _ => CLIENT_AUTH,
            };
            found_or(
                first(chain, |of| of.lacks(lacks).then_some(Fault::Purpose(lacks))),
                Fault::Purpose(lacks),
            )
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. } => {
            unsupported_signature(signature_algorithm_id, chain)
        }
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id, ..
        } => weak_issuer(chain, cas).unwrap_or_else(|| unsupported_signature(signature_algorithm_id, chain)),
        CertificateError::UnknownRevocationStatus => ChainFault::own(Fault::NoRevocationList),
        CertificateError::ExpiredRevocationList => ChainFault::own(Fault::RevocationListExpired(None)),
        CertificateError::ExpiredRevocationListContext { next_update, .. } => {
            ChainFault::own(Fault::RevocationListExpired(Some(next_update.as_secs().cast_signed())))
        }
        CertificateError::BadEncoding => {
            let unreadable =
                |of: &Reading| of.unreadable.clone().map(|why| Fault::Other(format!("can't be read: {why}")));
            found_or(first(chain, unreadable), other("can't be read"))
        }
        CertificateError::UnhandledCriticalExtension => critical_extension(chain),
        CertificateError::Other(error) => match error.0.downcast_ref() {
            Some(error) => of_webpki(error, chain, cas),
            None => ChainFault::own(Fault::Other(format!("is not acceptable: {error}"))),
        },
        error => ChainFault::own(Fault::Other(format!("is not acceptable: {error}"))),
    }
}

/// What rustls has no word of its own for.
fn of_webpki(error: &webpki::Error, chain: &[Reading], cas: &[Reading]) -> ChainFault {
    let other = |words: &str| Fault::Other(words.to_owned());
    let found_or = |found: Option<ChainFault>, fault| found.unwrap_or(ChainFault::own(fault));
    match error {
        webpki::Error::CaUsedAsEndEntity => ChainFault::own(other(
            "is a CA's own (basicConstraints CA:TRUE), and that of no client or server",
        )),
        webpki::Error::EndEntityUsedAsCa => {
            let words = other("may not sign others: it is not a CA's (basicConstraints)");
            let no_ca = |of: &Reading| (!of.is_ca).then(|| words.clone());
            let above = chain.get(1..).and_then(|above| {
                above.iter().find_map(|of| Some(ChainFault { ca: Some(of.name.clone()), fault: no_ca(of)? }))
            });
            found_or(above, words.clone())
        }
        webpki::Error::PathLenConstraintViolated => {
            // Below the certificate with this number are so many CAs.
            let exceeded = |(number, of): (usize, &Reading)| {
                let max = of.max_cas_below.filter(|max| number > 0 && (*max as usize) < number - 1)?;
                let fault =
                    Fault::Other(format!("allows {max} CAs below it at most (pathlen), and there are more"));
                Some(ChainFault { ca: Some(of.name.clone()), fault })
            };
            let words = other("has more CAs above it than one of them allows (pathlen)");
            found_or(chain.iter().enumerate().find_map(exceeded), words)
        }
        webpki::Error::NameConstraintViolation => {
            let words = || other("may not sign for the names in it (name constraints)");
            let constrained = |of: &&Reading| of.has_name_constraints;
            let ca = chain.iter().skip(1).chain(cas).find(constrained).map(|of| of.name.clone());
            match ca {
                Some(_) => ChainFault { ca, fault: words() },
                None => ChainFault::own(other(
                    "has a name that a CA above it may not sign for (name constraints)",
                )),
            }
        }
        webpki::Error::EmptyEkuExtension => {
            ChainFault::own(other("is meant for nothing: its extended key usage is empty"))
        }
        webpki::Error::UnsupportedCriticalExtension => critical_extension(chain),
        webpki::Error::UnsupportedCertVersion => ChainFault::own(other("is not of X.509 version 3")),
        webpki::Error::SignatureAlgorithmMismatch => {
            ChainFault::own(other("names two signature algorithms, one outside and one inside"))
        }
        webpki::Error::InvalidSerialNumber => {
            ChainFault::own(other("has a serial number that is none (RFC 5280, 4.1.2.2)"))
        }
        webpki::Error::ExtensionValueInvalid | webpki::Error::MalformedExtensions => {
            ChainFault::own(other("has an extension that can't be read, or twice the same"))
        }
        webpki::Error::MaximumPathDepthExceeded => ChainFault::own(other("has too many CAs above it")),
        error => ChainFault::own(Fault::Other(format!("is not acceptable: {error}"))),
    }
}

fn of_list(error: &CertRevocationListError) -> Fault {
    let why = match error {
        CertRevocationListError::BadSignature => {
            "the list of that CA's name is signed with another key: it is another CA's of the same name"
                .to_owned()
        }
        CertRevocationListError::IssuerInvalidForCrl => {
            "the CA that signed its list may not sign lists (its key usage lacks cRLSign)".to_owned()
        }
        CertRevocationListError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. }
        | CertRevocationListError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id,
            ..
        } => format!("its CA's list {}", signed_with(&algorithm_name(signature_algorithm_id))),
        other => format!("its CA's list can't be used: {other:?}"),
    };
    Fault::RevocationListUnusable(why)
}

/// The signature was verified with a key that can't verify any: whose that is.
fn weak_issuer(chain: &[Reading], cas: &[Reading]) -> Option<ChainFault> {
    let is_above =
        |of: &&Reading| chain.iter().any(|below| !below.issuer.is_empty() && below.issuer == of.subject);
    let above = chain.iter().skip(1).chain(cas).filter(is_above);
    let weak = above.into_iter().find_map(|of| Some((of, of.bad_key.as_ref()?)));
    weak.map(|(of, key)| ChainFault { ca: Some(of.name.clone()), fault: Fault::Other(keyed_with(key)) })
}

fn unsupported_signature(algorithm_id: &[u8], chain: &[Reading]) -> ChainFault {
    let name = algorithm_name(algorithm_id);
    let is_it = |of: &Reading| of.signature_algorithm == name;
    let fault = || Fault::Other(signed_with(&name));
    first(chain, |of| is_it(of).then(fault)).unwrap_or_else(|| ChainFault::own(fault()))
}

fn critical_extension(chain: &[Reading]) -> ChainFault {
    let words = |of: &Reading| {
        let mut words = "has a critical extension that is not known here".to_owned();
        for oid in &of.unknown_critical {
            // Writing to a String can't fail.
            let _ = write!(words, " ({oid})");
        }
        Fault::Other(words)
    };
    let found = first(chain, |of| (!of.unknown_critical.is_empty()).then(|| words(of)));
    found.unwrap_or_else(|| {
        ChainFault::own(Fault::Other("has a critical extension that is not known here".to_owned()))
    })
}
