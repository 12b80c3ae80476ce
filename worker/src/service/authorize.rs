//! The one way to a permit: the policy is asked twice. First whether this client may do such a thing at all, before
//! anything of its request is looked at, so that who may not stop jobs can't find out which there are by trying; then,
//! once the request has become an action, whether it may do just this. One audit line, always.
//!
//! A call that lasts keeps its [`Standing`]: what takes the right away ends the call, be it another policy or the end of
//! the client's certificate ([`crate::tls::CutOff`]).

use std::fmt::Display;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Poll;
use std::time::SystemTime;

use futures_util::{Stream, stream};
use tonic::Status;

use super::Service;
use super::status::CallError;
use crate::audit::{self, Asked, Decision};
use crate::job::JobId;
use crate::job::engine::{Engine, EngineError};
use crate::metrics::Metrics;
use crate::policy::action::{Action, Verb};
use crate::policy::live::InForce;
use crate::policy::{Admission, Claim, Denial, Permit, Policy};
use crate::tls::{CutOff, Peer};

/// A client's call that the policy has not refused outright; both questions go to the same policy.
pub(super) struct Asking<'a, A> {
    engine: &'a Engine,
    peer: &'a Peer,
    asked: Asked,
    policies: InForce,
    policy: Arc<Policy>,
    admission: Admission,
    metrics: &'a Metrics,
    action: PhantomData<fn() -> A>,
}

/// A client's right to go on with a call about a job.
pub(super) struct Standing {
    engine: Engine,
    peer: Peer,
    policies: InForce,
    metrics: Metrics,
    verb: Verb,
    job: JobId,
}

impl Service {
    /// The first question.
    pub(super) fn ask<'a, A: Action>(
        &'a self,
        peer: &'a Peer,
        asked: Asked,
    ) -> Result<Asking<'a, A>, CallError> {
        let mut policies = self.policies.clone();
        let (engine, policy) = (&self.engine, policies.now());
        let asked = Asked { action: A::VERB.to_string(), ..asked };
        // It may have been a while until the request was whole.
        still_valid(peer, &asked).inspect_err(|cut| self.metrics.denied(Some(A::VERB), cut.label()))?;
        match policy.admits(&peer.identity, A::VERB) {
            Ok(admission) => {
                let metrics = &self.metrics;
                Ok(Asking { engine, peer, asked, policies, policy, admission, metrics, action: PhantomData })
            }
            Err(denial) => {
                count_denial(&self.metrics, A::VERB, &denial);
                audit_denial(peer, &asked, &denial);
                Err(denial.into())
            }
        }
    }
}

impl<A: Action> Asking<'_, A> {
    /// The job that a client means, as far as it may know which there are.
    pub(super) async fn resolve(&self, text: &str) -> Result<JobId, CallError> {
        Ok(self.engine.resolve(text, self.admission.among(), &self.peer.identity.name).await?)
    }

    /// What the client calls its own.
    pub(super) fn claim(&self) -> Claim {
        self.admission.claim().clone()
    }

    /// The second question, about what `parse` makes of the request.
    pub(super) async fn authorize(
        &self,
        parse: impl Future<Output = Result<A, CallError>>,
    ) -> Result<Permit<A>, CallError> {
        let decided = match parse.await {
            Ok(action) => self.decide(action).await,
            Err(error) => Err(error),
        };
        match &decided {
            Ok(permit) => {
                let job = permit.action().job().map(|job| job.to_string());
                let user = permit.action().request().and_then(|request| request.user.clone());
                let asked = Asked { job, user, ..self.asked.clone() };
                audit::decision(self.peer, &asked, &Decision::Allowed { rule: permit.rule().as_str() });
            }
            Err(CallError::Denied(denial)) => {
                count_denial(self.metrics, A::VERB, denial);
                audit_denial(self.peer, &self.asked, denial);
            }
            // It has its line already: that of the start.
            Err(CallError::StartRefused { .. }) => {}
            Err(error) => audit::decision(self.peer, &self.asked, &Decision::Invalid { reason: error }),
        }
        decided
    }

    async fn decide(&self, action: A) -> Result<Permit<A>, CallError> {
        let job = action.job().filter(|_| A::VERB.is_about_a_job() && self.admission.is_own_only());
        let whose = match job {
            Some(job) => Some(self.engine.whose(job).await?),
            None => None,
        };
        Ok(self.policy.decide(&self.peer.identity, action, whose.as_ref())?)
    }

    /// Writes the line of what was allowed and came to nothing; a start may be one job too many.
    pub(super) fn failed(&self, job: JobId, error: &EngineError) {
        let decision = match error {
            EngineError::TooManyRunning { rule, .. } => {
                self.metrics.denied(Some(A::VERB), "running");
                Decision::Denied { rule: rule.as_str(), reason: error }
            }
            error => Decision::Failed { reason: error },
        };
        let asked = Asked { job: Some(job.to_string()), ..self.asked.clone() };
        audit::decision(self.peer, &asked, &decision);
    }

    /// The same of what is about no job.
    pub(super) fn failed_without_job(&self, reason: &dyn Display) {
        audit::decision(self.peer, &self.asked, &Decision::Failed { reason });
    }

    /// That the client's certificate is still good, after what took a while.
    pub(super) fn still_valid(&self) -> Result<(), CallError> {
        Ok(still_valid(self.peer, &self.asked)?)
    }

    /// The right to go on with this about a job, from the policy that was asked on.
    pub(super) fn standing(&self, job: JobId) -> Standing {
        let (engine, policies) = (self.engine.clone(), self.policies.clone());
        let (peer, metrics) = (self.peer.clone(), self.metrics.clone());
        Standing { engine, peer, policies, metrics, verb: A::VERB, job }
    }
}

impl Standing {
    /// Returns when the right is lost, with what to tell the client.
    pub(super) async fn lost(mut self) -> Status {
        loop {
            let policy = tokio::select! {
                biased;
                cut = self.peer.chain.lost() => {
                    self.metrics.denied(Some(self.verb), cut.label());
                    audit_cut(&self.peer, &self.asked(), &cut);
                    return CallError::from(cut).into();
                }
                policy = self.policies.next() => policy,
            };
            if let Err(error) = self.check(&policy).await {
                if let CallError::Denied(denial) = &error {
                    count_denial(&self.metrics, self.verb, denial);
                    audit_denial(&self.peer, &self.asked(), denial);
                }
                return error.into();
            }
        }
    }

    fn asked(&self) -> Asked {
        let (action, job) = (self.verb.to_string(), Some(self.job.to_string()));
        Asked { action, job, ..Asked::default() }
    }

    async fn check(&self, policy: &Policy) -> Result<(), CallError> {
        let identity = &self.peer.identity;
        let whose = match policy.admits(identity, self.verb)?.is_own_only() {
            true => Some(self.engine.whose(self.job).await?),
            false => None,
        };
        policy.still_allows(identity, self.verb, whose.as_ref())?;
        Ok(())
    }
}

/// `items` until their end, or until the right to them is lost, which is the last that comes.
pub(super) fn while_allowed<T>(
    items: impl Stream<Item = Result<T, Status>> + Send,
    standing: Standing,
) -> impl Stream<Item = Result<T, Status>> + Send {
    let (mut items, mut lost, mut is_over) = (Box::pin(items), Box::pin(standing.lost()), false);
    stream::poll_fn(move |cx| {
        if is_over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = lost.as_mut().poll(cx) {
            is_over = true;
            return Poll::Ready(Some(Err(status)));
        }
        items.as_mut().poll_next(cx)
    })
}

fn count_denial(metrics: &Metrics, verb: Verb, denial: &Denial) {
    metrics.denied(Some(verb), denial.label());
}

/// That the client's certificate is still good. What is told otherwise has its audit line.
///
/// # Errors
/// The end of its certificate.
pub(super) fn still_valid(peer: &Peer, asked: &Asked) -> Result<(), CutOff> {
    let identity = &peer.identity;
    let cut = match peer.chain.cut() {
        Some(cut) => cut.clone(),
        None if identity.has_expired(SystemTime::now()) => {
            CutOff::expired(&identity.name, identity.not_after_unix_sec)
        }
        None => return Ok(()),
    };
    audit_cut(peer, asked, &cut);
    Err(cut)
}

pub(super) fn audit_cut(peer: &Peer, asked: &Asked, cut: &CutOff) {
    let decision = Decision::Denied { rule: "certificate valid at every call", reason: cut };
    audit::decision(peer, asked, &decision);
}

fn audit_denial(peer: &Peer, asked: &Asked, denial: &Denial) {
    audit::decision(peer, asked, &Decision::Denied { rule: denial.rule().as_str(), reason: denial });
}
