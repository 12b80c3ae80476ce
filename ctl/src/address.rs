//! Where the worker listens: `HOST:PORT`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};
use rustls::pki_types::ServerName;

/// A host (name, IPv4 or bracketed IPv6 address) and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
}

impl Address {
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What the worker's certificate must be valid for.
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let expected = || format!("{text:?} is not HOST:PORT, such as worker.example:50051 or [::1]:50051");
        let (host, port) = text.rsplit_once(':').with_context(expected)?;
        let port = match port.parse() {
            Ok(port @ 1..) => port,
            _ => bail!("{port:?} in {text:?} is not a port, 1 to 65535"),
        };
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(ipv6) if ipv6.contains(':') => ipv6,
            None if !host.contains(':') => host,
            _ => bail!(expected()),
        };
        let server_name = ServerName::try_from(host.to_owned())
            .with_context(|| format!("{host:?} in {text:?} is neither a host name nor an IP address"))?;
        Ok(Self { host: host.to_owned(), port, server_name })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_and_addresses() {
        for text in ["127.0.0.1:50051", "[::1]:50051", "worker.example:1", "localhost:65535"] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
        let address: Address = "[::1]:50051".parse().expect("IPv6");
        assert_eq!((address.host(), address.port()), ("::1", 50051));
        assert!(matches!(address.server_name(), ServerName::IpAddress(_)));
    }

    #[test]
    fn names_the_value_that_it_refuses() {
        let refused = [
            "localhost",
            "",
            ":1",
            "host:",
            "host:0",
            "host:65536",
            "host:-1",
            "::1:50051",
            "[::1]",
            "[host]:1",
            "a b:1",
            "https://host:1",
        ];
        for text in refused {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
