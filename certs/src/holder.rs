//! Who a certificate is for, and so how its files are called.

use std::{fmt, str::FromStr};

use crate::{ClientName, InvalidValue};

/// A server or a client; it names the two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// `server.pem`, `server-key.pem`.
    Server,
    /// `NAME.pem`, `NAME-key.pem`.
    Client(ClientName),
}

impl Holder {
    /// The name of the certificate's file.
    #[must_use]
    pub fn certificate_file(&self) -> String {
        format!("{self}.pem")
    }

    /// The name of the file of a request for the certificate.
    #[must_use]
    pub fn request_file(&self) -> String {
        format!("{self}.csr")
    }

    /// The name of the private key's file.
    #[must_use]
    pub fn key_file(&self) -> String {
        format!("{self}-key.pem")
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("server"),
            Self::Client(name) => name.fmt(f),
        }
    }
}

impl FromStr for Holder {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "server" => Ok(Self::Server),
            name => name.parse().map(Self::Client),
        }
    }
}
