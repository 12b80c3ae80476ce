//! Bytes that are mostly text: commands, arguments, paths and values of the environment, as Linux has them.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A byte string without NUL, so that it can be handed to the kernel. In JSON a string where it is UTF-8, else an
/// array of numbers: nothing is lost and people can read the ordinary case.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Text", try_from = "Text")]
pub struct ByteStr(Vec<u8>);

/// A NUL in what should be a byte string.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("holds a NUL byte at position {position}; Linux can't pass it on")]
pub struct NulError {
    /// Where the first NUL is, counted from 0.
    pub position: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Utf8(String),
    Bytes(Vec<u8>),
}

impl ByteStr {
    /// # Errors
    /// When there is a NUL among the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NulError> {
        let bytes = bytes.into();
        match bytes.iter().position(|&b| b == 0) {
            Some(position) => Err(NulError { position }),
            None => Ok(Self(bytes)),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same as a path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The same as the kernel takes it.
    pub fn to_c_string(&self) -> CString {
        CString::new(self.0.clone()).expect("a ByteStr holds no NUL")
    }
}

impl fmt::Display for ByteStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for ByteStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl From<ByteStr> for Text {
    fn from(value: ByteStr) -> Self {
        String::from_utf8(value.0).map_or_else(|e| Text::Bytes(e.into_bytes()), Text::Utf8)
    }
}

impl TryFrom<Text> for ByteStr {
    type Error = NulError;

    fn try_from(value: Text) -> Result<Self, NulError> {
        match value {
            Text::Utf8(text) => Self::new(text),
            Text::Bytes(bytes) => Self::new(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_without_nul_read_back_as_written(bytes: Vec<u8>, text: bool) {
            let bytes = if text { String::from_utf8_lossy(&bytes).into_owned().into_bytes() } else { bytes };
            match ByteStr::new(bytes.clone()) {
                Ok(value) => {
                    let json = serde_json::to_vec(&value).unwrap();
                    prop_assert_eq!(&serde_json::from_slice::<ByteStr>(&json).unwrap(), &value);
                    prop_assert_eq!(value.to_c_string().into_bytes(), bytes);
                }
                Err(NulError { position }) => prop_assert_eq!(bytes.iter().position(|b| *b == 0), Some(position)),
            }
        }
    }

    #[test]
    fn json_keeps_every_byte() {
        for bytes in [&b"make"[..], b"", "gr\u{fc}n".as_bytes(), b"\xff\xfe"] {
            let value = ByteStr::new(bytes).unwrap();
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<ByteStr>(&json).unwrap(), value, "{json}");
        }
        assert_eq!(serde_json::to_string(&ByteStr::new("make").unwrap()).unwrap(), "\"make\"");
    }

    #[test]
    fn nul_is_refused() {
        assert_eq!(ByteStr::new(*b"a\0b"), Err(NulError { position: 1 }));
        assert!(serde_json::from_str::<ByteStr>("\"a\\u0000b\"").is_err());
    }
}
