//! The policy's yes: proof that can't be made outside of it.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::grant::{Among, Claim, Grant};
use super::rule::Rule;
use crate::identity::ClientIdentity;
use crate::job::Whose;

/// Proof that the policy allows `action` to this client.
#[derive(Debug)]
pub struct Permit<A> {
    pub(super) identity: Arc<ClientIdentity>,
    pub(super) action: A,
    pub(super) rule: Rule,
    pub(super) reach: Grant,
    pub(super) claim: Claim,
    pub(super) max_running: Option<MaxRunning>,
}

/// How many jobs of one owner may run at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxRunning {
    /// The number.
    pub jobs: NonZeroU32,
    /// The line that says so.
    pub rule: Rule,
}

/// A client may do such a thing, at least to some jobs.
#[derive(Clone, Debug)]
pub struct Admission {
    pub(super) claim: Claim,
    pub(super) reach: Grant,
    pub(super) lists_any: bool,
}

impl Admission {
    /// What the client calls its own.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Whether the right reaches to the client's own jobs only, so that [`decide`](super::Policy::decide) has to know whose one is.
    pub fn is_own_only(&self) -> bool {
        self.reach == Grant::Own
    }

    /// The jobs that the beginning of an id is looked for among.
    pub fn among(&self) -> Among {
        match (self.reach, self.lists_any) {
            (Grant::Any, _) => Among::All,
            (_, true) => Among::OwnFirst(self.claim.clone()),
            (_, false) => Among::Own(self.claim.clone()),
        }
    }
}

impl<A> Permit<A> {
    /// Who is allowed.
    pub fn identity(&self) -> &ClientIdentity {
        &self.identity
    }

    /// What is allowed.
    pub fn action(&self) -> &A {
        &self.action
    }

    /// What is allowed, to be carried out.
    pub fn into_action(self) -> A {
        self.action
    }

    /// The rule that allowed it, for the audit line.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// What the client calls its own.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The jobs that it is allowed on, of those that an action like a list is about.
    pub fn reaches(&self, whose: &Whose) -> bool {
        match self.reach {
            Grant::None => false,
            Grant::Own => self.claim.owns(whose),
            Grant::Any => true,
        }
    }

    /// Whether it is allowed on any job.
    pub fn reaches_any(&self) -> bool {
        self.reach == Grant::Any
    }

    /// How many of the client's jobs may run at a time, with the one to start; none: any number.
    pub fn max_running(&self) -> Option<&MaxRunning> {
        self.max_running.as_ref()
    }
}
