//! Which names may be used: OS users for jobs, variables for their environment.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// `"any"`, or a list of names; one that ends with `*` stands for all that begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Any,
    Only(Vec<String>),
}

impl Names {
    /// True unless the list is empty.
    pub(super) fn allow_some(&self) -> bool {
        !matches!(self, Self::Only(patterns) if patterns.is_empty())
    }

    /// Whether this one is among them.
    pub(super) fn allow(&self, name: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        };
        match self {
            Self::Any => true,
            Self::Only(patterns) => patterns.iter().any(fits),
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("\"any\""),
            Self::Only(patterns) => write!(f, "{patterns:?}"),
        }
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"any\" or a list of names")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Names, E> {
        match text {
            "any" => Ok(Names::Any),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Names, S::Error> {
        let mut names = Vec::new();
        while let Some(name) = seq.next_element::<String>()? {
            let stars = name.matches('*').count();
            if name.is_empty() || stars > 1 || (stars == 1 && !name.ends_with('*')) {
                return Err(de::Error::invalid_value(
                    de::Unexpected::Str(&name),
                    &"a name, maybe with a * at its end",
                ));
            }
            names.push(name);
        }
        Ok(Names::Only(names))
    }
}
