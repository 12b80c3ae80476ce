//! Who may do what: a pure function of identity, action, job and arguments. Knows neither tonic nor rustls.
//!
//! [`Policy::decide`] is the only maker of a [`Permit`], and every method of the engine takes one: a check that was
//! forgotten does not compile, and a permit for one job can't be used on another, because the action with all its
//! arguments is inside it.

pub mod action;

use std::sync::Arc;

use action::{Action, Verb};

use crate::identity::ClientIdentity;

/// Proof that the policy allows `action` to this client.
#[derive(Debug)]
pub struct Permit<A> {
    identity: Arc<ClientIdentity>,
    action: A,
    rule: &'static str,
}

/// The policy's no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The certificate carries no usable role, so nothing is allowed.
    #[error("certificate of {name} carries no usable role: {reason}")]
    NoRole {
        /// The client's name.
        name: String,
        /// What is wrong with the role.
        reason: String,
    },
    /// The role has no right to this.
    #[error("role {role:?} may not {verb}")]
    Denied {
        /// The client's role.
        role: String,
        /// What it asked for.
        verb: Verb,
    },
}

impl Denial {
    /// The rule that denied, for the audit line.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::NoRole { .. } => "no usable role: nothing",
            Self::Denied { .. } => "default: not listed",
        }
    }
}

/// The rules in force.
#[derive(Debug, Clone, Default)]
pub struct Policy;

impl Policy {
    /// Whether this client may do such a thing to any job with any arguments. Asked before anything of its request is
    /// looked at, so that a refused client learns nothing from it; [`Self::decide`] has the last word.
    ///
    /// # Errors
    /// When it may not.
    pub fn admits(&self, identity: &ClientIdentity, verb: Verb) -> Result<(), Denial> {
        self.allows(identity, verb).map(|_rule| ())
    }

    /// Whether this client may do this; the permit carries the action on to the engine.
    ///
    /// # Errors
    /// When it may not.
    pub fn decide<A: Action>(&self, identity: &Arc<ClientIdentity>, action: A) -> Result<Permit<A>, Denial> {
        let rule = self.allows(identity, A::VERB)?;
        Ok(Permit { identity: Arc::clone(identity), action, rule })
    }

    /// The default policy: admins everything; users list, status, stream (and wait, which tells no more than status).
    fn allows(&self, identity: &ClientIdentity, verb: Verb) -> Result<&'static str, Denial> {
        let role = identity
            .role
            .as_ref()
            .map_err(|reason| Denial::NoRole { name: identity.name.clone(), reason: reason.to_string() })?;
        match (role.as_str(), verb) {
            ("admin", _) => Ok("default: admin everything"),
            ("user", Verb::List | Verb::Status | Verb::Stream | Verb::Wait) => {
                Ok("default: user list, status, stream")
            }
            ("user", _) => Err(Denial::Denied { role: role.clone(), verb }),
            _ => Err(Denial::NoRole {
                name: identity.name.clone(),
                reason: format!("unknown role {role:?}; known are admin and user"),
            }),
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
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::RoleProblem;
    use crate::job::JobId;

    fn client(role: Result<&str, RoleProblem>) -> Arc<ClientIdentity> {
        Arc::new(ClientIdentity {
            name: "alice".to_owned(),
            common_name: "alice".to_owned(),
            role: role.map(str::to_owned),
            serial: "1".to_owned(),
            fingerprint_sha256: "00".repeat(32),
            uris: Vec::new(),
            dns_names: Vec::new(),
            not_after_unix_sec: i64::MAX,
        })
    }

    #[test]
    fn the_default_policy_verb_by_verb() {
        use Verb::{List, Remove, Signal, Start, Status, Stop, Stream, Wait};
        let (admin, user) = (client(Ok("admin")), client(Ok("user")));
        let without = [Ok("root"), Ok("Admin"), Ok("admin "), Ok("")].map(client);
        let broken =
            [RoleProblem::Missing, RoleProblem::Repeated, RoleProblem::Malformed].map(|why| client(Err(why)));
        let table = [
            (Start, false),
            (Stop, false),
            (Signal, false),
            (Remove, false),
            (Status, true),
            (Stream, true),
            (List, true),
            (Wait, true),
        ];
        for (verb, user_may) in table {
            assert_eq!(Policy.admits(&admin, verb), Ok(()), "{verb}");
            let denied = Denial::Denied { role: "user".to_owned(), verb };
            assert_eq!(Policy.admits(&user, verb), if user_may { Ok(()) } else { Err(denied) }, "{verb}");
            for nobody in without.iter().chain(&broken) {
                let denied = Policy.admits(nobody, verb);
                assert!(matches!(denied, Err(Denial::NoRole { .. })), "{verb} {nobody:?}: {denied:?}");
            }
        }
    }

    #[test]
    fn a_permit_holds_the_client_the_action_and_the_rule() {
        let job = JobId::random();
        let permit = Policy.decide(&client(Ok("user")), action::Status { job }).unwrap();
        assert_eq!((permit.identity().name.as_str(), permit.action().job), ("alice", job));
        assert_eq!(permit.rule(), "default: user list, status, stream");
        assert!(Policy.decide(&client(Ok("user")), action::Wait { job }).is_ok());
        assert!(Policy.decide(&client(Ok("user")), action::List).is_ok());
    }

    #[test]
    fn denials_say_what_is_wrong() {
        let denial = Policy.admits(&client(Err(RoleProblem::Missing)), Verb::List).unwrap_err();
        assert_eq!(
            denial.to_string(),
            "certificate of alice carries no usable role: it has no role extension"
        );
        let denial = Policy.admits(&client(Ok("boss")), Verb::List).unwrap_err();
        assert!(denial.to_string().ends_with("unknown role \"boss\"; known are admin and user"), "{denial}");
        let denial = Policy.admits(&client(Ok("user")), Verb::Stop).unwrap_err();
        assert_eq!(
            (denial.to_string().as_str(), denial.rule()),
            ("role \"user\" may not stop", "default: not listed")
        );
    }
}
