//! A role: what it may do, who has it, and what its jobs may be.

use super::action::Verb;
use super::envelope::Envelope;
use super::grant::Grant;
use super::identify::Fingerprint;
use super::rule::Rule;

/// A role of a policy.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) name: String,
    /// The line that it begins with.
    pub(super) rule: Rule,
    /// What is named, or stands in `all`; each verb at most once.
    pub(super) rights: Vec<Right>,
    pub(super) fingerprints: Vec<Fingerprint>,
    pub(super) uris: Vec<String>,
    pub(super) envelope: Envelope,
}

/// What a line says about one kind of action.
#[derive(Clone, Debug)]
pub(super) struct Right {
    pub(super) verb: Verb,
    pub(super) reach: Grant,
    pub(super) rule: Rule,
}

impl Role {
    pub(super) fn right(&self, verb: Verb) -> Option<&Right> {
        self.rights.iter().find(|right| right.verb == verb)
    }

    /// The line that denies an action of which no line says anything.
    pub(super) fn silence(&self, verb: Verb) -> Rule {
        self.rule.and(format_args!("does not name {verb}"))
    }
}
