//! Which OS user a client's jobs run as, by its certificate.
//!
//! The spawner decides for itself all the same, by its `--default-user` and `--allow-user`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::identity::ClientIdentity;

/// The longest name of an OS user, in bytes: useradd(8).
const MAX_OS_USER_BYTES: usize = 32;

/// From a client to an OS user.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RunAs {
    /// The certificate's common name.
    CommonName,
    /// What comes after this in the certificate's URI name that begins with it.
    Uri(String),
    /// This one for all.
    User(String),
    /// By the client's name. Who is not in here has none.
    Names(BTreeMap<String, String>),
}

impl RunAs {
    /// The OS user of this client's jobs, or why there is none.
    pub(super) fn os_user(&self, identity: &ClientIdentity) -> Result<String, String> {
        match self {
            Self::CommonName => from_certificate(&identity.common_name),
            Self::Uri(prefix) => {
                let mut users = identity.uris.iter().filter_map(|uri| uri.strip_prefix(prefix.as_str()));
                match (users.next(), users.next()) {
                    (Some(user), None) => from_certificate(user),
                    (None, _) => Err(format!("none of the certificate's URI names begins with {prefix:?}")),
                    (Some(_), Some(_)) => {
                        Err(format!("more than one of the certificate's URI names begins with {prefix:?}"))
                    }
                }
            }
            Self::User(user) => Ok(user.clone()),
            Self::Names(users) => users
                .get(&identity.name)
                .cloned()
                .ok_or_else(|| format!("no OS user is named for {:?}", identity.name)),
        }
    }
}

impl RunAs {
    /// Which clients' jobs run as one and the same OS user, in words; none where each client has its own.
    pub(super) fn shared(&self) -> Option<String> {
        match self {
            Self::CommonName | Self::Uri(_) => None,
            Self::User(user) => Some(format!("all jobs of its clients run as one OS user, {user:?}")),
            Self::Names(users) => {
                let mut by_user = BTreeMap::<_, Vec<_>>::new();
                for (client, user) in users {
                    by_user.entry(user).or_default().push(client.as_str());
                }
                let (user, clients) = by_user.into_iter().find(|(_, clients)| clients.len() > 1)?;
                Some(format!("the jobs of {} run as one OS user, {user:?}", clients.join(" and ")))
            }
        }
    }
}

/// A number would be looked up as one, and 0 is root; who issues certificates does not thereby give out root.
fn from_certificate(name: &str) -> Result<String, String> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let rest = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let is_name = name.starts_with(first) && name.chars().all(rest) && name.len() <= MAX_OS_USER_BYTES;
    match name {
        "root" => Err("certificates may not name root".to_owned()),
        _ if is_name => Ok(name.to_owned()),
        _ => Err(format!("{name:?} in the certificate is no OS user's name")),
    }
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommonName => f.write_str("\"common_name\""),
            Self::Uri(prefix) => write!(f, "{{ uri = {prefix:?} }}"),
            Self::User(user) => write!(f, "{{ user = {user:?} }}"),
            Self::Names(_) => f.write_str("{ names = … }"),
        }
    }
}
