//! Who may do what: a pure function of identity, action, job and arguments. Knows neither tonic nor rustls.
//!
//! A policy is a TOML file (its shape stands in `file`), parsed once into types. Every decision carries the line that
//! made it ([`Rule`]).
//!
//! ```text
//!  certificate ──identify──▶ role ──its line for the action──▶ none: denied
//!                                                              own ──ownership──▶ the client's own job? else denied
//!                                                              any ─────────────▶ allowed
//!                                     start: [roles.….jobs] ─▶ above a ceiling: denied; what is not given is set
//! ```
//!
//! [`Policy::decide`] is the only maker of a [`Permit`], and every method of the engine takes one: a check that was
//! forgotten does not compile, and a permit for one job can't be used on another, because the action with all its
//! arguments is inside it.

pub mod action;
mod asked_limits;
mod ceiling;
mod command;
pub mod command_line;
mod denial;
mod envelope;
mod explain;
mod file;
mod grant;
mod identify;
pub mod live;
mod names;
mod permit;
mod role;
mod rule;
mod run_as;
mod summary;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use action::{Action, Verb};

pub use self::denial::Denial;
pub use self::grant::{Among, Claim, Grant, Ownership};
pub use self::identify::Identify;
pub use self::permit::{Admission, MaxRunning, Permit};
pub use self::rule::Rule;

use self::role::{Right, Role};
use crate::identity::ClientIdentity;
use crate::job::Whose;

/// What the policy's lines are called that is in force where none is given.
const BUILT_IN: &str = "built-in default.toml";

/// The rules in force.
#[derive(Clone, Debug)]
pub struct Policy {
    identify: Identify,
    ownership: Ownership,
    /// In the file's order.
    roles: Vec<Role>,
    /// What denies everything to a client without a role.
    no_role: Rule,
}

/// A policy that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file can't be read.
    #[error("can't read the policy {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error("the policy is not right: {file}:{problem}")]
    Wrong {
        /// Which file.
        file: String,
        /// In which line, what stands there, and what would be right.
        problem: String,
    },
}

impl Policy {
    /// The one where none is given: `policies/default.toml`.
    pub fn built_in() -> Self {
        let text = include_str!("../policies/default.toml");
        Self::parse(BUILT_IN, text).expect("a test reads it")
    }

    /// From a file's text; `name` is what rules and errors call it.
    ///
    /// # Errors
    /// When it is not right; with the line.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        file::parse(name, text)
    }

    /// From a file.
    ///
    /// # Errors
    /// When it can't be read, or is not right.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        Self::parse(&path.display().to_string(), &text_of(path)?)
    }

    /// Whether this client may do such a thing to any job with any arguments. Asked before anything of its request is
    /// looked at, so that a refused client learns nothing from it; [`Self::decide`] has the last word.
    ///
    /// # Errors
    /// When it may not.
    pub fn admits(&self, identity: &ClientIdentity, verb: Verb) -> Result<Admission, Denial> {
        let (role, right) = self.right(identity, verb)?;
        let lists_any = role.right(Verb::List).is_some_and(|list| list.reach == Grant::Any);
        Ok(Admission { claim: self.claim(role, identity), reach: right.reach, lists_any })
    }

    /// Whether this client may do this; the permit carries the action on to the engine. `whose` is the job that the
    /// action is about, if that is known: without it, a right that reaches to one's own jobs only is none.
    ///
    /// # Errors
    /// When it may not.
    pub fn decide<A: Action>(
        &self,
        identity: &Arc<ClientIdentity>,
        mut action: A,
        whose: Option<&Whose>,
    ) -> Result<Permit<A>, Denial> {
        let right = self.holds(identity, A::VERB, whose)?;
        let (role, claim) = (self.role(identity)?, self.claim(self.role(identity)?, identity));
        let mut max_running = None;
        if let Some(request) = action.request_mut() {
            role.envelope.apply(identity, request).map_err(|refused| Denial::of_request(role, refused))?;
            let running = role.envelope.running.as_ref();
            max_running = running.map(|max| MaxRunning { jobs: max.value, rule: max.rule.clone() });
        }
        let (rule, reach) = (right.rule.clone(), right.reach);
        Ok(Permit { identity: Arc::clone(identity), action, rule, reach, claim, max_running })
    }

    /// The line by which this client (still) may do such a thing to this job.
    ///
    /// # Errors
    /// When it may not (any more).
    pub fn still_allows(
        &self,
        identity: &ClientIdentity,
        verb: Verb,
        whose: Option<&Whose>,
    ) -> Result<&Rule, Denial> {
        self.holds(identity, verb, whose).map(|right| &right.rule)
    }

    fn holds(&self, identity: &ClientIdentity, verb: Verb, whose: Option<&Whose>) -> Result<&Right, Denial> {
        let (role, right) = self.right(identity, verb)?;
        let is_own = || whose.is_some_and(|whose| self.claim(role, identity).owns(whose));
        if right.reach == Grant::Own && verb.is_about_a_job() && !is_own() {
            return Err(Denial::NotOwn { role: role.name.clone(), verb, rule: right.rule.clone() });
        }
        Ok(right)
    }

    fn right(&self, identity: &ClientIdentity, verb: Verb) -> Result<(&Role, &Right), Denial> {
        let role = self.role(identity)?;
        let denied = |rule| Denial::Denied { role: role.name.clone(), verb, rule };
        match role.right(verb) {
            None => Err(denied(role.silence(verb))),
            Some(right) if right.reach == Grant::None => Err(denied(right.rule.clone())),
            Some(right) => Ok((role, right)),
        }
    }

    fn role(&self, identity: &ClientIdentity) -> Result<&Role, Denial> {
        let name = || identity.name.clone();
        let no_role = |reason| Denial::NoRole { name: name(), reason, rule: self.no_role.clone() };
        self.identify.role(identity, &self.roles).map_err(no_role)
    }

    fn claim(&self, role: &Role, identity: &ClientIdentity) -> Claim {
        Claim::of(self.ownership, identity, role.envelope.os_user(identity))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::built_in()
    }
}

fn text_of(path: &Path) -> Result<String, PolicyError> {
    std::fs::read_to_string(path).map_err(|source| PolicyError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
