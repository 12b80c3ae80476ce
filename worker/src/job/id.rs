//! A job's id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::{Uuid, Variant};

/// A UUID, version 4. Written in lower case with hyphens everywhere: in the API, as folder and as group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct JobId(Uuid);

/// What is not a job's id.
#[derive(Debug, thiserror::Error)]
#[error("{value:?} is not a job id: a version 4 UUID is needed, like 3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f")]
pub struct InvalidId {
    value: String,
}

impl JobId {
    /// A fresh random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl FromStr for JobId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match Uuid::try_parse(text) {
            Ok(uuid) if uuid.get_version_num() == 4 && uuid.get_variant() == Variant::RFC4122 => {
                Ok(Self(uuid))
            }
            _ => Err(InvalidId { value: text.chars().take(64).collect() }),
        }
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for JobId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::any;

    proptest! {
        #[test]
        fn an_id_reads_back_as_written(id in any::id()) {
            prop_assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
            prop_assert_eq!(serde_json::from_value::<JobId>(serde_json::to_value(id).unwrap()).unwrap(), id);
        }

        /// What is taken for an id has one way to be written, and that names a folder.
        #[test]
        fn any_text_is_an_id_or_an_error(text in ".*|(urn:uuid:|[{])?[0-9a-fA-F]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}[}]?") {
            if let Ok(id) = text.parse::<JobId>() {
                let written = id.to_string();
                prop_assert!(written.len() == 36 && written.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f' | '-')));
            }
        }
    }

    #[test]
    fn only_version_4_is_an_id() {
        let id = JobId::random();
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        for bad in [
            "",
            "x",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "../../../etc",
            "00000000-0000-0000-0000-000000000000",
        ] {
            let error = bad.parse::<JobId>().unwrap_err().to_string();
            assert!(error.contains("version 4 UUID"), "{error}");
        }
    }

    /// A job under any other id would have a folder that nobody finds.
    #[test]
    fn json_holds_the_same_ids_and_no_others() {
        let id = JobId::random();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<JobId>(&json).unwrap(), id);
        for bad in ["a0000000-0000-4800-0000-000000000000", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", ""] {
            let error = serde_json::from_str::<JobId>(&format!("\"{bad}\"")).unwrap_err().to_string();
            assert!(error.contains("version 4 UUID"), "{error}");
        }
    }
}
