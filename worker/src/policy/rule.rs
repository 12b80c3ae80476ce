//! Which line of a policy decided: a decision carries it into the audit log and to whoever asks for an explanation.

use std::fmt::{self, Display};
use std::ops::Range;
use std::sync::Arc;

use super::PolicyError;

/// The line that decided, as people look for it: `owner.toml:12: roles.user.stop = "own"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(Arc<str>);

impl Rule {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same line, and what follows from it.
    pub(super) fn and(&self, words: impl Display) -> Self {
        Self(format!("{} {words}", self.0).into())
    }
}

#[cfg(test)]
impl Rule {
    /// Any rule.
    pub(crate) fn example() -> Self {
        Self("policy.toml:1: an example".into())
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A policy's text and what it is called: turns places in it into lines.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// The number of the line in which a place is, from 1.
    pub(super) fn line(&self, place: &Range<usize>) -> usize {
        let before = self.text.get(..place.start).unwrap_or(self.text);
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    /// A rule that stands at a place.
    pub(super) fn rule(&self, place: &Range<usize>, words: impl Display) -> Rule {
        Rule(format!("{}:{}: {words}", self.name, self.line(place)).into())
    }

    /// A rule that is nowhere in particular.
    pub(super) fn rule_of_all(&self, words: impl Display) -> Rule {
        Rule(format!("{}: {words}", self.name).into())
    }

    /// What is wrong at a place, with the line as it stands there.
    pub(super) fn wrong(&self, place: &Range<usize>, problem: impl Display) -> PolicyError {
        let line = self.line(place);
        let text = self.text.lines().nth(line - 1).unwrap_or_default().trim();
        PolicyError::Wrong { file: self.name.to_owned(), problem: format!("{line}: `{text}`: {problem}") }
    }

    /// What toml or serde does not like.
    pub(super) fn malformed(&self, error: &toml::de::Error) -> PolicyError {
        match error.span() {
            Some(place) => self.wrong(&place, error.message().trim()),
            None => PolicyError::Wrong { file: self.name.to_owned(), problem: error.message().to_owned() },
        }
    }
}
