//! The policy's no, in words for the client, with the line for the audit log.

use super::action::Verb;
use super::envelope::Refused;
use super::role::Role;
use super::rule::Rule;

/// The policy's no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The client has no role, so nothing is allowed.
    #[error("certificate of {name} carries no usable role: {reason}")]
    NoRole {
        /// The client's name.
        name: String,
        /// What is wrong with the role.
        reason: String,
        /// The line.
        rule: Rule,
    },
    /// The role has no right to this.
    #[error("role {role:?} may not {verb}")]
    Denied {
        /// The client's role.
        role: String,
        /// What it asked for.
        verb: Verb,
        /// The line.
        rule: Rule,
    },
    /// The role has a right to this on its own jobs only.
    #[error("role {role:?} has the right to {verb} on jobs of its own only, and this is another's")]
    NotOwn {
        /// The client's role.
        role: String,
        /// What it asked for.
        verb: Verb,
        /// The line.
        rule: Rule,
    },
    /// The role may start jobs, but not such a one.
    #[error("{field}: {problem} (role {role:?})")]
    Request {
        /// The client's role.
        role: String,
        /// The path of what is not allowed, like `spec.limits.memory`.
        field: String,
        /// What was asked for, and what is allowed.
        problem: String,
        /// The line.
        rule: Rule,
    },
}

impl Denial {
    /// The rule that denied, for the audit line.
    pub fn rule(&self) -> &Rule {
        match self {
            Self::NoRole { rule, .. }
            | Self::Denied { rule, .. }
            | Self::NotOwn { rule, .. }
            | Self::Request { rule, .. } => rule,
        }
    }
}

impl Denial {
    /// For metrics: one word of few.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NoRole { .. } => "no_role",
            Self::Denied { .. } => "role",
            Self::NotOwn { .. } => "not_own",
            Self::Request { .. } => "request",
        }
    }

    /// Of a part of a request to start.
    pub(super) fn of_request(role: &Role, refused: Refused) -> Self {
        let Refused { field, problem, rule } = refused;
        let rule = rule.unwrap_or_else(|| role.rule.and(format_args!("allows no {field}")));
        Self::Request { role: role.name.clone(), field, problem, rule }
    }
}
