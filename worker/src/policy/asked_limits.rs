//! Which limits the clients of a role may ask for: `limits` of a `[roles.….jobs]`.

use std::fmt::{self, Display};

use serde::Deserialize;

/// Which limits may be asked for. Whatever it says, what a job gets without asking is set by the ceilings' defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AskedLimits {
    /// None at all.
    None,
    /// Those that have a ceiling, up to it.
    Ceiling,
    /// Those that have a ceiling, up to it; the others freely.
    #[default]
    Any,
}

/// A limit of a request: its field, whether it was asked for, and whether the role's jobs have a ceiling for it.
pub(super) struct Asked {
    pub(super) field: &'static str,
    pub(super) is_asked: bool,
    pub(super) has_ceiling: bool,
}

impl AskedLimits {
    /// The first limit that may not be asked for, and why not.
    pub(super) fn refused(
        self,
        asked: impl IntoIterator<Item = Asked>,
    ) -> Option<(&'static str, &'static str)> {
        let mut asked = asked.into_iter().filter(|asked| asked.is_asked);
        match self {
            Self::Any => None,
            Self::None => asked.next().map(|asked| (asked.field, "this role may not ask for limits")),
            Self::Ceiling => asked.find(|asked| !asked.has_ceiling).map(|asked| {
                (asked.field, "this role may ask for a limit only where the policy has a ceiling")
            }),
        }
    }

    /// For the one who wrote the policy.
    pub(super) fn explained(self) -> &'static str {
        match self {
            Self::None => "its clients may not ask for limits; jobs get the defaults, if there are any",
            Self::Ceiling => {
                "its clients may ask for limits that have a ceiling, up to it, and for no others"
            }
            Self::Any => "its clients may ask for any limit, up to its ceiling where it has one",
        }
    }
}

impl Display for AskedLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Ceiling => "ceiling",
            Self::Any => "any",
        })
    }
}
