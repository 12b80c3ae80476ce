//! Where metrics may be told.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// An address of this host's own: what is told there is neither encrypted nor asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackAddress(SocketAddr);

/// No such address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no loopback address with a port, like 127.0.0.1:9464 or [::1]:9464; metrics are told without \
     encryption, to others through a proxy of yours"
)]
pub struct NotLoopback(String);

impl LoopbackAddress {
    /// The address.
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for LoopbackAddress {
    type Err = NotLoopback;

    fn from_str(text: &str) -> Result<Self, NotLoopback> {
        let address = text.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback());
        address.map(Self).ok_or_else(|| NotLoopback(text.to_owned()))
    }
}

impl fmt::Display for LoopbackAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_will_do() {
        for text in ["127.0.0.1:9464", "127.1.2.3:0", "[::1]:9464"] {
            assert_eq!(text.parse::<LoopbackAddress>().unwrap().to_string(), text);
        }
        for text in ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464", "127.0.0.1", "localhost:9464", ""] {
            let error = text.parse::<LoopbackAddress>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is no loopback address")), "{error}");
        }
    }
}
