//! The role: a word in a private X.509 extension of a client's certificate.

use std::{fmt, str::FromStr};

use rcgen::CustomExtension;
use x509_parser::der_parser::Oid;

use crate::{InvalidValue, names::checked_text};

/// The extension's object identifier where nothing else is said.
///
/// A placeholder under the arc that RFC 5612 sets aside for documentation, until a Private Enterprise Number is
/// assigned; whoever has one of their own passes it to `--role-oid` and to the worker.
pub const ROLE_OID: &str = "1.3.6.1.4.1.32473.1.1";

checked_text! {
    /// A role: a short lower-case word. What it allows is the worker's policy, not the certificate's.
    Role, "role", is_role,
    "1 to 32 lower-case letters, digits, '-' and '_', beginning with a letter (admin, user)"
}

fn is_role(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    text.len() <= 32 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(rest)
}

/// The object identifier of the role extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleOid(Vec<u64>);

impl RoleOid {
    /// The extension for `role`: not critical, so that verifiers that do not know it go on; a DER `UTF8String`.
    pub(crate) fn extension(&self, role: &Role) -> CustomExtension {
        self.extension_of(role.as_str()).expect("a role has at most 32 bytes")
    }

    /// The same for a role that another program has put into a certificate.
    ///
    /// # Errors
    /// When it does not fit into DER's short length form.
    pub(crate) fn extension_of(&self, role: &str) -> Result<CustomExtension, InvalidValue> {
        match u8::try_from(role.len()) {
            Ok(length @ 1..=MAX_LENGTH) => Ok(CustomExtension::from_oid_content(
                &self.0,
                [&[UTF8_STRING, length], role.as_bytes()].concat(),
            )),
            _ => {
                let expected = "1 to 127 bytes";
                Err(InvalidValue { field: "role", value: role.to_owned(), expected })
            }
        }
    }

    /// The text in the extension's value, where it is such a text.
    pub(crate) fn role_text(value: &[u8]) -> Option<&str> {
        let [UTF8_STRING, length @ 1..=MAX_LENGTH, text @ ..] = value else { return None };
        str::from_utf8(text).ok().filter(|text| text.len() == usize::from(*length))
    }

    /// As x509-parser compares it.
    pub(crate) fn parsed(&self) -> Oid<'static> {
        Oid::from(&self.0).expect("checked when it was parsed")
    }
}

/// X.690, 8.23 and 8.1.3.4.
const UTF8_STRING: u8 = 0x0c;
const MAX_LENGTH: u8 = 0x7f;

impl Default for RoleOid {
    fn default() -> Self {
        ROLE_OID.parse().expect("ROLE_OID is an object identifier")
    }
}

impl FromStr for RoleOid {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let arcs: Option<Vec<u64>> = text.split('.').map(arc).collect();
        arcs.filter(|arcs| is_private_extension(arcs)).map(Self).ok_or_else(|| InvalidValue {
            field: "role OID",
            value: text.to_owned(),
            expected: "a dotted object identifier with numbers below 2^31, not under 2.5.29 (the standard \
                       extensions), such as 1.3.6.1.4.1.32473.1.1",
        })
    }
}

/// Numbers from 2^31 on, as under 2.25, are refused by Go programs of some age: "malformed extension OID field".
fn arc(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|arc| canonical && *arc < 1 << 31)
}

/// X.660: the first number is 0, 1 or 2; the second is below 40 under 0 and 1.
fn is_private_extension(arcs: &[u64]) -> bool {
    match arcs {
        [2, 5, 29, ..] => false,
        [0 | 1, second, _, ..] => *second < 40,
        [2, _, _, ..] => true,
        _ => false,
    }
}

impl fmt::Display for RoleOid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arcs: Vec<_> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&arcs.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_is_a_non_critical_der_utf8string() {
        let extension = RoleOid::default().extension(&"admin".parse().unwrap());
        assert_eq!(extension.content(), b"\x0c\x05admin");
        assert!(!extension.criticality());
        assert_eq!(extension.oid_components().collect::<Vec<_>>(), [1, 3, 6, 1, 4, 1, 32473, 1, 1]);
    }

    #[test]
    fn roles() {
        for good in ["admin", "user", "log", "build-bot_2", &"a".repeat(32)] {
            assert_eq!(good.parse::<Role>().unwrap().as_str(), good);
        }
        for bad in ["", "Admin", "2nd", "-x", "ad min", "admin\n", "ädmin", "a,b", &"a".repeat(33)] {
            assert!(bad.parse::<Role>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn object_identifiers() {
        for good in [ROLE_OID, "2.999.1", "0.9.2342", "1.3.6.1.4.1.2147483647"] {
            assert_eq!(good.parse::<RoleOid>().unwrap().to_string(), good);
        }
        let bad =
            ["", "1", "1.3", "3.1.1", "1.40.1", "1..3.6", "1.3.6.", "1.3.06", "1.3.+6", "1.3.x", "2.5.29.17"];
        for bad in bad.into_iter().chain(["2.25.329800735698586629295641978511506172918", "1.3.2147483648"]) {
            assert!(bad.parse::<RoleOid>().is_err(), "{bad:?}");
        }
    }
}
