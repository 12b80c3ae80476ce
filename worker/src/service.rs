//! The gRPC API: for each call who asks, what for, whether that is allowed, then the engine, then the answer.
//!
//! `Service::authorize` is the one way to a permit. It asks the policy before it looks at anything of a request, so
//! a client that may not stop jobs can't find out which there are by trying; and it writes one audit line, always.

mod delivery;
mod followers;
mod framing;
mod reply;
pub mod request;
mod requests;
mod routes;
mod status;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use jobworker_proto::v1;
use jobworker_proto::v1::job_worker_server::JobWorker;
use nix::sys::signal::Signal as UnixSignal;
use tonic::{Request, Response, Status};

pub use self::request::Caps;
pub use self::routes::Routes;
pub use self::status::InvalidField;

use self::followers::{Followers, Seat};
use self::status::CallError;
use crate::audit::{self, Asked, Decision};
use crate::job::engine::{Engine, Follower, Stopped};
use crate::policy::action::{self, Action};
use crate::policy::{Permit, Policy};
use crate::tls::Peer;

/// The key under which a stream's response says where it begins.
const OFFSET_METADATA: &str = "jobworker-offset";

type Answer<T> = Result<Response<T>, Status>;

/// The API of one worker.
pub struct Service {
    engine: Engine,
    policy: Policy,
    settings: Settings,
    followers: Followers,
}

/// What of the API an operator chooses.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How much one request may hold.
    pub caps: Caps,
    /// How many streams and waits a client may have open, over all its connections.
    pub max_followers: usize,
    /// The grace period of a stop that names none.
    pub grace: Duration,
}

impl Service {
    /// The API in front of an engine.
    pub fn new(engine: Engine, policy: Policy, settings: Settings) -> Self {
        Self { engine, policy, settings, followers: Followers::new(settings.max_followers) }
    }

    /// Asks the policy twice: whether this client may do such a thing at all, and, once `parse` has made an action of
    /// the request, whether it may do just this. `parse` runs only after the first yes.
    async fn authorize<A: Action>(
        &self,
        peer: &Peer,
        asked: Asked,
        parse: impl Future<Output = Result<A, CallError>>,
    ) -> Result<Permit<A>, CallError> {
        let asked = Asked { action: A::VERB.to_string(), ..asked };
        let decided = match self.policy.admits(&peer.identity, A::VERB) {
            Err(denial) => Err(denial.into()),
            Ok(()) => match parse.await {
                Err(error) => Err(error),
                Ok(action) => self.policy.decide(&peer.identity, action).map_err(CallError::from),
            },
        };
        match &decided {
            Ok(permit) => {
                let job = permit.action().job().map(|job| job.to_string());
                let asked = Asked { job, ..asked };
                audit::decision(peer, &asked, &Decision::Allowed { rule: permit.rule() });
            }
            Err(CallError::Denied(denial)) => {
                audit::decision(peer, &asked, &Decision::Denied { rule: denial.rule(), reason: denial });
            }
            Err(error) => audit::decision(peer, &asked, &Decision::Invalid { reason: error }),
        }
        decided
    }
}

#[tonic::async_trait]
impl JobWorker for Service {
    type StreamStream = delivery::Placeholder;

    async fn start(&self, request: Request<v1::StartRequest>) -> Answer<v1::StartResponse> {
        let (peer, v1::StartRequest { id, spec }) = open(request)?;
        let (spec, caps) = (spec.unwrap_or_default(), self.settings.caps);
        let asked = asked_to_start(&id, &spec);
        let parse = async { Ok(action::Start { id: request::id(&id)?, request: request::job(spec, caps)? }) };
        let permit = self.authorize(&peer, asked, parse).await?;
        let view = self.engine.start(permit).await?;
        Ok(Response::new(v1::StartResponse { job: Some(reply::job(view, &peer.identity.name)) }))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Answer<v1::StopResponse> {
        let (peer, v1::StopRequest { job, signal, grace_msec }) = open(request)?;
        let grace = grace_msec.map_or(self.settings.grace, Duration::from_millis);
        let parse = async {
            let signal = match signal.as_str() {
                "" => UnixSignal::SIGTERM,
                signal => request::signal("signal", signal)?,
            };
            Ok(action::Stop { job: self.engine.resolve(&job).await?, signal, grace })
        };
        let permit = self.authorize(&peer, asked_to_signal(&job, &signal), parse).await?;
        let Stopped { view, already_ended } = self.engine.stop(permit).await?;
        let job = Some(reply::job(view, &peer.identity.name));
        Ok(Response::new(v1::StopResponse { job, already_ended }))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let (peer, v1::StatusRequest { job }) = open(request)?;
        let parse = async { Ok(action::Status { job: self.engine.resolve(&job).await? }) };
        let permit = self.authorize(&peer, asked_about(&job), parse).await?;
        let view = self.engine.status(permit).await?;
        Ok(Response::new(v1::StatusResponse { job: Some(reply::job(view, &peer.identity.name)) }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Answer<v1::ListResponse> {
        let (peer, list) = open(request)?;
        let mut page = None;
        let parse = async {
            page = Some(request::page(&list)?);
            Ok(action::List)
        };
        let permit = self.authorize(&peer, Asked::default(), parse).await?;
        let name = peer.identity.name.clone();
        let show = move |view| reply::listed(view, &name);
        let (jobs, next) = self.engine.list(permit, page.unwrap_or_default(), show).await?;
        let next_page_token = next.map(|next| next.to_string()).unwrap_or_default();
        Ok(Response::new(v1::ListResponse { jobs, next_page_token }))
    }

    async fn wait(&self, request: Request<v1::WaitRequest>) -> Answer<v1::WaitResponse> {
        let (peer, v1::WaitRequest { job }) = open(request)?;
        let parse = async { Ok(action::Wait { job: self.engine.resolve(&job).await? }) };
        let permit = self.authorize(&peer, asked_about(&job), parse).await?;
        let _seat = self.followers.enter(&peer.identity.name)?;
        let view = self.engine.wait(permit).await?;
        Ok(Response::new(v1::WaitResponse { job: Some(reply::job(view, &peer.identity.name)) }))
    }

    async fn signal(&self, request: Request<v1::SignalRequest>) -> Answer<v1::SignalResponse> {
        let (peer, v1::SignalRequest { job, signal, all }) = open(request)?;
        let parse = async {
            let signal = request::signal("signal", &signal)?;
            Ok(action::Signal { job: self.engine.resolve(&job).await?, signal, all })
        };
        let permit = self.authorize(&peer, asked_to_signal(&job, &signal), parse).await?;
        let view = self.engine.signal(permit).await?;
        Ok(Response::new(v1::SignalResponse { job: Some(reply::job(view, &peer.identity.name)) }))
    }

    async fn remove(&self, request: Request<v1::RemoveRequest>) -> Answer<v1::RemoveResponse> {
        let (peer, v1::RemoveRequest { job }) = open(request)?;
        let parse = async { Ok(action::Remove { job: self.engine.resolve(&job).await? }) };
        let permit = self.authorize(&peer, asked_about(&job), parse).await?;
        let removed = self.engine.remove(permit).await?;
        Ok(Response::new(v1::RemoveResponse { job: Some(reply::removed(removed, &peer.identity.name)) }))
    }

    async fn stream(&self, request: Request<v1::StreamRequest>) -> Answer<Self::StreamStream> {
        let (peer, v1::StreamRequest { job, only, from, no_follow }) = open(request)?;
        let mut kind = None;
        let parse = async {
            kind = request::only(only)?;
            Ok(action::Stream { job: self.engine.resolve(&job).await? })
        };
        let permit = self.authorize(&peer, asked_about(&job), parse).await?;
        let seat = self.followers.enter(&peer.identity.name)?;
        let follower = self.engine.stream(permit, request::beginning(from), kind, !no_follow).await?;
        let begins_at = follower.begins_at();
        let mut response = delivery::response(messages(follower, seat));
        if let Some(offset) = begins_at {
            response.metadata_mut().insert(OFFSET_METADATA, offset.into());
        }
        Ok(response)
    }
}

/// Takes a request apart: who sent it, and what it says.
fn open<T>(request: Request<T>) -> Result<(Peer, T), Status> {
    let peer = request.extensions().get::<Peer>().cloned();
    let peer = peer.ok_or_else(|| Status::internal("the connection carries no client identity"))?;
    Ok((peer, request.into_inner()))
}

fn asked_about(job: &str) -> Asked {
    Asked { job: Some(job.to_owned()), ..Asked::default() }
}

fn asked_to_signal(job: &str, signal: &str) -> Asked {
    let signal = Some(signal).filter(|signal| !signal.is_empty()).map(str::to_owned);
    Asked { signal, ..asked_about(job) }
}

fn asked_to_start(id: &str, spec: &v1::JobSpec) -> Asked {
    let given = |text: &str| Some(text).filter(|text| !text.is_empty()).map(str::to_owned);
    let words = std::iter::once(&spec.command).chain(&spec.args).map(Vec::as_slice);
    Asked {
        job: given(id),
        argv: Some(audit::argv(words)),
        limits: spec.limits.as_ref().and_then(limits_text),
        user: given(&spec.user),
        ..Asked::default()
    }
}

fn limits_text(limits: &v1::Limits) -> Option<String> {
    let single = [
        ("cpu", &limits.cpu),
        ("cpu_weight", &limits.cpu_weight),
        ("memory", &limits.memory),
        ("memory_high", &limits.memory_high),
        ("swap", &limits.swap),
        ("pids", &limits.pids),
    ];
    let io = limits.io.iter().map(|io| ("io", io));
    let given = single.into_iter().chain(io).filter(|(_, text)| !text.is_empty());
    let texts: Vec<_> = given.map(|(name, text)| format!("{name}={text}")).collect();
    (!texts.is_empty()).then(|| texts.join(" "))
}

/// The follower's events as they go out. The seat is taken for as long as they may be read.
fn messages(follower: Follower, seat: Seat) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    stream::unfold((follower, seat), async |(mut follower, seat)| {
        let event = follower.next().await?;
        let message = event.map(|event| framing::frame(event, seat.client())).map_err(Status::from);
        Some((message, (follower, seat)))
    })
}
