//! What an operator says that jobs begin with: limits of setrlimit(2), and their badness for the kernel's out-of-memory
//! killer. What is not said here has the values of [`crate::shim::attributes`].

use std::fmt;
use std::str::FromStr;

use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Deserializer, de};

/// The resources of setrlimit(2), by their names without `RLIMIT_`.
pub const RESOURCES: [(&str, Resource); 16] = [
    ("AS", Resource::As),
    ("CORE", Resource::Core),
    ("CPU", Resource::Cpu),
    ("DATA", Resource::Data),
    ("FSIZE", Resource::Fsize),
    ("LOCKS", Resource::Locks),
    ("MEMLOCK", Resource::Memlock),
    ("MSGQUEUE", Resource::Msgqueue),
    ("NICE", Resource::Nice),
    ("NOFILE", Resource::Nofile),
    ("NPROC", Resource::Nproc),
    ("RSS", Resource::Rss),
    ("RTPRIO", Resource::Rtprio),
    ("RTTIME", Resource::Rttime),
    ("SIGPENDING", Resource::Sigpending),
    ("STACK", Resource::Stack),
];

const UNLIMITED: &str = "unlimited";

/// What jobs begin with, as far as an operator says; each resource at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobDefaults {
    rlimits: Vec<DefaultRlimit>,
    oom_score_adj: Option<OomScoreAdj>,
}

/// Two limits for one resource.
#[derive(Clone, Debug, thiserror::Error)]
#[error("--default-rlimit {first} and {second} are for the same resource: one of them is needed")]
pub struct RepeatedRlimit {
    first: DefaultRlimit,
    second: DefaultRlimit,
}

impl JobDefaults {
    /// Takes what was given.
    ///
    /// # Errors
    /// When a resource is given twice.
    pub fn new(
        rlimits: Vec<DefaultRlimit>,
        oom_score_adj: Option<OomScoreAdj>,
    ) -> Result<Self, RepeatedRlimit> {
        for (behind, &second) in rlimits.iter().enumerate() {
            if let Some(&first) = rlimits[..behind].iter().find(|first| first.name == second.name) {
                return Err(RepeatedRlimit { first, second });
            }
        }
        Ok(Self { rlimits, oom_score_adj })
    }

    /// The limits that are given.
    #[must_use]
    pub fn rlimits(&self) -> &[DefaultRlimit] {
        &self.rlimits
    }

    /// The badness that is given.
    #[must_use]
    pub fn oom_score_adj(&self) -> Option<OomScoreAdj> {
        self.oom_score_adj
    }

    /// The limit given for a resource.
    #[must_use]
    pub fn rlimit(&self, name: &str) -> Option<Rlimit> {
        self.rlimits.iter().find(|given| given.name == name).map(|given| given.limit)
    }
}

/// A limit that jobs begin with: `NOFILE=1024:524288`, soft and hard, or `CORE=unlimited` for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRlimit {
    name: &'static str,
    /// Soft and hard, the soft one at most as high; `None` is unlimited.
    limit: Rlimit,
}

/// A text that is no such limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RlimitError {
    /// No `=`.
    #[error("{0:?} is not NAME=SOFT:HARD or NAME=LIMIT, like NOFILE=1024:524288 or CORE=unlimited")]
    Form(String),
    /// A name that setrlimit(2) does not have.
    #[error("{0:?} is no resource of setrlimit(2); they are {names}", names = RESOURCES.map(|(name, _)| name).join(" "))]
    Name(String),
    /// A value that is no number.
    #[error("{0:?} is not a limit: a number in the unit of setrlimit(2), or {UNLIMITED}, is needed")]
    Value(String),
    /// A soft limit above the hard one.
    #[error("{0:?}: the soft limit is above the hard one")]
    Order(String),
}

impl FromStr for DefaultRlimit {
    type Err = RlimitError;

    fn from_str(text: &str) -> Result<Self, RlimitError> {
        let (name, values) = text.split_once('=').ok_or_else(|| RlimitError::Form(text.to_owned()))?;
        let known = RESOURCES.into_iter().find(|(known, _)| *known == name);
        let (name, _) = known.ok_or_else(|| RlimitError::Name(name.to_owned()))?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let limit = Rlimit { current: value(soft)?, maximum: value(hard)? };
        // Unlimited is more than any number.
        if limit.current.unwrap_or(u64::MAX) > limit.maximum.unwrap_or(u64::MAX) {
            return Err(RlimitError::Order(text.to_owned()));
        }
        Ok(Self { name, limit })
    }
}

/// The highest number stands for unlimited in the kernel, too.
fn value(text: &str) -> Result<Option<u64>, RlimitError> {
    match text.parse() {
        Ok(u64::MAX) => Ok(None),
        Ok(number) => Ok(Some(number)),
        Err(_) if text == UNLIMITED => Ok(None),
        Err(_) => Err(RlimitError::Value(text.to_owned())),
    }
}

impl<'de> Deserialize<'de> for DefaultRlimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for DefaultRlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, in_words(self.limit))
    }
}

/// `SOFT:HARD`.
pub(crate) fn in_words(limit: Rlimit) -> String {
    let [soft, hard] = [limit.current, limit.maximum]
        .map(|value| value.map_or_else(|| UNLIMITED.to_owned(), |number| number.to_string()));
    format!("{soft}:{hard}")
}

/// How much sooner (up to 1000) or later (down to -1000: never) the kernel's out-of-memory killer takes a process than
/// others of its size: proc(5), `oom_score_adj`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct OomScoreAdj(i16);

/// A number that is no such value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no oom_score_adj: a number from -1000 to 1000 is needed")]
pub struct OomScoreAdjError(String);

impl FromStr for OomScoreAdj {
    type Err = OomScoreAdjError;

    fn from_str(text: &str) -> Result<Self, OomScoreAdjError> {
        let number = text.parse().ok().filter(|number| (-1000..=1000).contains(number));
        number.map(Self).ok_or_else(|| OomScoreAdjError(text.to_owned()))
    }
}

impl TryFrom<i64> for OomScoreAdj {
    type Error = OomScoreAdjError;

    fn try_from(number: i64) -> Result<Self, OomScoreAdjError> {
        number.to_string().parse()
    }
}

impl fmt::Display for OomScoreAdj {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DefaultRlimit, RlimitError> {
        text.parse()
    }

    #[test]
    fn limits_are_read_and_written_as_they_are() {
        for (text, soft, hard) in [
            ("NOFILE=1024:524288", Some(1024), Some(524_288)),
            ("CORE=0:unlimited", Some(0), None),
            ("RTTIME=unlimited:unlimited", None, None),
        ] {
            let read = parse(text).unwrap();
            assert_eq!(read.limit, Rlimit { current: soft, maximum: hard });
            assert_eq!(read.to_string(), text);
        }
        assert_eq!(parse("STACK=8388608"), parse("STACK=8388608:8388608"));
        assert_eq!(parse("AS=18446744073709551615"), parse("AS=unlimited"));
        for (name, _) in RESOURCES {
            assert!(parse(&format!("{name}=0")).is_ok());
        }
    }

    #[test]
    fn what_is_no_limit_is_named() {
        for (text, part) in [
            ("NOFILE", "\"NOFILE\" is not NAME=SOFT:HARD"),
            ("RLIMIT_NOFILE=1", "\"RLIMIT_NOFILE\" is no resource of setrlimit(2); they are AS CORE"),
            ("nofile=1", "\"nofile\" is no resource"),
            ("NOFILE=1k", "\"1k\" is not a limit"),
            ("NOFILE=", "\"\" is not a limit"),
            ("NOFILE=1:", "\"\" is not a limit"),
            ("NOFILE=-1", "\"-1\" is not a limit"),
            ("NOFILE=2:1", "\"NOFILE=2:1\": the soft limit is above the hard one"),
            ("NOFILE=unlimited:1", "the soft limit is above"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_resource_has_one_limit() {
        let limits = ["CORE=0", "NOFILE=1", "CORE=1:2"].map(|text| parse(text).unwrap());
        assert_eq!(JobDefaults::new(limits[..2].to_vec(), None).unwrap().rlimits().len(), 2);
        let error = JobDefaults::new(limits.to_vec(), None).unwrap_err().to_string();
        assert_eq!(
            error,
            "--default-rlimit CORE=0:0 and CORE=1:2 are for the same resource: one of them is needed"
        );
    }

    #[test]
    fn badness_has_the_kernels_range() {
        for (text, number) in [("0", 0), ("-1000", -1000), ("1000", 1000)] {
            assert_eq!(text.parse(), Ok(OomScoreAdj(number)));
        }
        for text in ["1001", "-1001", "", "x"] {
            assert!(text.parse::<OomScoreAdj>().unwrap_err().to_string().contains("-1000 to 1000"), "{text}");
        }
    }
}
