//! Where a client's role comes from: its certificate's extension, or lists of certificates or names in the policy.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use super::Role;
use crate::identity::ClientIdentity;

/// Where a client's role comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identify {
    /// The certificate's role extension.
    #[default]
    Extension,
    /// The first role that lists the SHA-256 of the certificate.
    Fingerprint,
    /// The first role that lists one of the certificate's URI names.
    Uri,
}

/// The SHA-256 of a whole certificate (DER), lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(String);

impl Identify {
    /// The key, as a policy has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Extension => "extension",
            Self::Fingerprint => "fingerprint",
            Self::Uri => "uri",
        }
    }

    /// A client's role among these, which are in the policy's order; or why it has none.
    pub(super) fn role<'a>(self, identity: &ClientIdentity, roles: &'a [Role]) -> Result<&'a Role, String> {
        match self {
            Self::Extension => {
                let role = identity.role.as_ref().map_err(ToString::to_string)?;
                roles.iter().find(|known| known.name == *role).ok_or_else(|| unknown(role, roles))
            }
            Self::Fingerprint => {
                let listed = |role: &&Role| {
                    role.fingerprints.iter().any(|Fingerprint(hex)| *hex == identity.fingerprint_sha256)
                };
                roles.iter().find(listed).ok_or_else(|| "no role lists its SHA-256 fingerprint".to_owned())
            }
            Self::Uri => {
                let listed = |role: &&Role| role.uris.iter().any(|uri| identity.uris.contains(uri));
                roles.iter().find(listed).ok_or_else(|| "no role lists one of its URI names".to_owned())
            }
        }
    }
}

fn unknown(role: &str, roles: &[Role]) -> String {
    let known: Vec<_> = roles.iter().map(|role| role.name.as_str()).collect();
    format!("unknown role {role:?}; known are {}", known.join(" and "))
}

impl Fingerprint {
    /// 64 hex digits.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    /// As openssl prints it, `9F:86:…`, or without colons.
    fn from_str(text: &str) -> Result<Self, String> {
        let hex = text.replace(':', "").to_ascii_lowercase();
        if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Self(hex));
        }
        Err(format!(
            "{text:?} is not a SHA-256 fingerprint: 64 hex digits are needed, as `openssl x509 -noout -fingerprint \
             -sha256` prints them, with colons or without"
        ))
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
