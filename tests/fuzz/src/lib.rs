//! What the targets share: texts and documents that have to come back as they were written.

pub mod worker;

use std::fmt::{Debug, Display};
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a JSON document holds, if it is one; written again, it must read back as the same.
pub fn json<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, value);
    Some(value)
}

/// What a text stands for, if it is one; its own text must be understood as the same, and be written the same again.
pub fn text<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Debug + Display> + Display + PartialEq + Debug,
{
    let value: T = match text.parse() {
        Ok(value) => value,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    let written = value.to_string();
    assert_eq!(written.parse::<T>().expect("what was written is understood"), value, "{written:?}");
    Some(value)
}
