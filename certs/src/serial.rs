//! Serial numbers: how a certificate is named in a revocation list and in an audit log.

use std::{fmt, fs::File, io::Read, str::FromStr};

use rcgen::SerialNumber;
use x509_parser::num_bigint::BigUint;

use crate::{Error, InvalidValue};

/// RFC 5280 §4.1.2.2: at most 20 octets.
const MAX_BYTES: usize = 20;

/// A certificate's serial number, big-endian, positive, without leading zeros.
///
/// Written and read as `openssl x509 -text` has it, `4f:03:…`; digits without colons are read too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// 127 bits from the kernel: unguessable, so that nobody can prepare a collision.
    pub(crate) fn random() -> Result<Self, Error> {
        const SOURCE: &str = "/dev/urandom";
        let mut bytes = [0; 16];
        File::open(SOURCE)
            .and_then(|mut source| source.read_exact(&mut bytes))
            .map_err(Error::io("read", SOURCE))?;
        // Top bit clear: a DER integer is signed. The next bit set: never zero, always 16 bytes.
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Ok(Self(bytes.to_vec()))
    }
}

impl Serial {
    /// As a worker's audit log has it: lower-case hex without colons and leading zeros.
    #[must_use]
    pub fn digits(&self) -> String {
        format!("{:x}", BigUint::from_bytes_be(&self.0))
    }
}

impl From<&BigUint> for Serial {
    fn from(number: &BigUint) -> Self {
        Self(number.to_bytes_be())
    }
}

impl From<&Serial> for SerialNumber {
    fn from(serial: &Serial) -> Self {
        serial.0.clone().into()
    }
}

impl FromStr for Serial {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let digits = text.replace(':', "");
        let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
        match BigUint::parse_bytes(digits.as_bytes(), 16).filter(|_| is_hex) {
            Some(number) if number != BigUint::ZERO && number.bits() <= 8 * MAX_BYTES as u64 => {
                Ok(Self::from(&number))
            }
            _ => Err(InvalidValue {
                field: "serial",
                value: text.to_owned(),
                expected: "hexadecimal, with or without colons, at most 20 bytes, not zero (4f:03:9a or 4F039A)",
            }),
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SerialNumber::from(self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_serials_are_positive_distinct_and_16_bytes() {
        let serials: Vec<_> = (0..64).map(|_| Serial::random().unwrap()).collect();
        for (i, serial) in serials.iter().enumerate() {
            assert_eq!(serial.0.len(), 16);
            assert!((0x40..0x80).contains(&serial.0[0]), "{serial}");
            assert!(!serials[..i].contains(serial), "{serial} twice");
        }
    }

    #[test]
    fn text_is_read_in_both_notations_and_written_in_one() {
        for text in ["4f:03:9a", "4F039A", "00:4f:03:9a", "004F039A"] {
            assert_eq!(text.parse::<Serial>().unwrap().to_string(), "4f:03:9a", "{text}");
            assert_eq!(text.parse::<Serial>().unwrap().digits(), "4f039a", "{text}");
        }
        let longest = "7f".repeat(20);
        assert!(longest.parse::<Serial>().is_ok());
        assert_eq!("0a:00".parse::<Serial>().unwrap().digits(), "a00");
        for text in ["", ":", "0", "00:00", "-1", "+4f", "4_f", "alice", "0x4f", &"7f".repeat(21)] {
            let error = text.parse::<Serial>().unwrap_err();
            assert_eq!((error.field, error.value.as_str()), ("serial", text));
        }
    }
}
