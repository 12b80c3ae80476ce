//! The names a person types, each parsed once into a type that holds nothing else.

use std::{fmt, net::IpAddr, str::FromStr};

use rcgen::{SanType, string::Ia5String};

use crate::{Error, InvalidValue};

/// A text type with a check: `as_str`, `Display`, and a `FromStr` that says what would have been right.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $field:literal, $check:path, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                if $check(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(InvalidValue { field: $field, value: text.to_owned(), expected: $expected })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(crate) use checked_text;

checked_text! {
    /// The CA's common name.
    AuthorityName, "CA name", is_authority_name, "1 to 64 printable characters, no space at either end"
}

checked_text! {
    /// A client's common name, which is also the name of its files.
    ClientName, "client name", is_client_name,
    "1 to 64 of A-Z a-z 0-9 . _ @ -, beginning with a letter or digit; not ca, crl or server, nor ending in \
     -key (those are files of their own)"
}

checked_text! {
    /// A URI that names the client; the first one is the owner of the jobs it starts, whatever its common name.
    Uri, "URI", is_uri, "scheme:rest in printable ASCII without spaces (spiffe://example.org/alice), at most 256"
}

/// X.520: a common name has at most 64 characters.
const MAX_COMMON_NAME: usize = 64;

fn is_authority_name(text: &str) -> bool {
    let length = text.chars().count();
    (1..=MAX_COMMON_NAME).contains(&length) && text.trim() == text && !text.chars().any(char::is_control)
}

fn is_client_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@' | '-');
    let lower = text.to_ascii_lowercase();
    text.len() <= MAX_COMMON_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(allowed)
        && !matches!(lower.as_str(), "ca" | "crl" | "server")
        && !lower.ends_with("-key")
}

/// RFC 3986 §3.1 for the scheme; the rest is the reader's business.
fn is_uri(text: &str) -> bool {
    let in_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    text.len() <= 256
        && text.bytes().all(|b| b.is_ascii_graphic())
        && text.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(in_scheme)
                && !rest.is_empty()
        })
}

impl Uri {
    pub(crate) fn alternative_name(&self) -> Result<SanType, Error> {
        ia5_name(self.as_str(), SanType::URI)
    }
}

/// A name of a kind that X.509 writes in ASCII.
pub(crate) fn ia5_name(name: &str, kind: fn(Ia5String) -> SanType) -> Result<SanType, Error> {
    name.try_into().map(kind).map_err(Error::crypto("encode a name"))
}

/// A name or address at which clients reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
    /// A DNS name in lower case; `*.` in front stands for any one label.
    Dns(String),
}

impl Host {
    pub(crate) fn alternative_name(&self) -> Result<SanType, Error> {
        match self {
            Self::Ip(ip) => Ok(SanType::IpAddress(*ip)),
            Self::Dns(name) => ia5_name(name, SanType::DnsName),
        }
    }
}

impl FromStr for Host {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        if is_dns_name(text.strip_prefix("*.").unwrap_or(text)) {
            return Ok(Self::Dns(text.to_ascii_lowercase()));
        }
        Err(InvalidValue {
            field: "host",
            value: text.to_owned(),
            expected: "a DNS name or an IP address, without scheme, port or brackets (localhost, 192.0.2.7, ::1); an \
                       international name in its xn-- form",
        })
    }
}

/// RFC 1123 §2.1, and `_` as it occurs in container networks. A last label of digits alone is a mistyped IPv4 address.
fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let last = text.rsplit('.').next().unwrap_or(text);
    text.len() <= 253 && text.split('.').all(is_label) && !last.bytes().all(|b| b.is_ascii_digit())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Dns(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_names() {
        for good in ["alice", "Alice.B_c@example.org", "7", "ca2", "servers", "a-b", &"a".repeat(64)] {
            assert_eq!(good.parse::<ClientName>().unwrap().as_str(), good);
        }
        let bad = ["", ".", "..", "../x", "a/b", ".hidden", "-rf", "_x", "@x", "a b", "a\n", "a\0", "älice"];
        for bad in
            bad.into_iter().chain(["ca", "CA", "crl", "server", "ca-key", "alice-key", &"a".repeat(65)])
        {
            let error = bad.parse::<ClientName>().unwrap_err();
            assert_eq!((error.field, error.value.as_str()), ("client name", bad));
        }
    }

    #[test]
    fn hosts() {
        assert_eq!("127.0.0.1".parse(), Ok(Host::Ip([127, 0, 0, 1].into())));
        assert_eq!("::1".parse(), Ok(Host::Ip([0, 0, 0, 0, 0, 0, 0, 1].into())));
        for good in
            ["localhost", "build_1.example.org", "*.example.org", "xn--bcher-kva.example", "3com.example"]
        {
            assert_eq!(good.parse(), Ok(Host::Dns(good.to_owned())));
        }
        assert_eq!("Build.Example".parse(), Ok(Host::Dns("build.example".to_owned())));
        let bad = [
            "",
            ".",
            "*",
            "a..b",
            "a.",
            "-a",
            "a-",
            "host:50051",
            "https://host",
            "[::1]",
            "a b",
            "bücher.de",
        ];
        for bad in bad.into_iter().chain(["127.0.0.256", "1.2.3", "a.*.b", "a,b", &"a".repeat(64)]) {
            let error = bad.parse::<Host>().unwrap_err();
            assert_eq!((error.field, error.value.as_str()), ("host", bad));
        }
    }

    #[test]
    fn uris_and_authority_names() {
        assert!("spiffe://example.org/alice".parse::<Uri>().is_ok());
        assert!("urn:x".parse::<Uri>().is_ok());
        for bad in ["", "alice", ":x", "x:", "1x:y", "a b:c", "x:a b", "x:ü", "x:a\n"] {
            assert!(bad.parse::<Uri>().is_err(), "{bad:?}");
        }
        assert!("Büro CA".parse::<AuthorityName>().is_ok());
        for bad in ["", " ", " x", "x\ny", &"x".repeat(65)] {
            assert!(bad.parse::<AuthorityName>().is_err(), "{bad:?}");
        }
    }
}
