//! The gRPC API: for each call who asks, what for, whether that is allowed, then the engine, then the answer.
//!
//! `Service::ask` is the one way to a permit (`authorize`): the policy is asked before anything of a request is looked
//! at, and each call has its audit line.

mod asked;
mod authorize;
mod deadline;
mod delivery;
mod followers;
mod framing;
mod lasting;
mod messages;
mod reply;
pub mod request;
mod requests;
mod routes;
mod status;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, stream};
use jobworker_limits::SignalNumber;
use jobworker_proto::v1;
use jobworker_proto::v1::job_worker_server::JobWorker;
use tonic::{Code, Request, Response, Status};

pub use self::request::Caps;
pub use self::routes::Routes;
pub use self::status::InvalidField;

use self::authorize::while_allowed;
use self::followers::{Followers, Seat};
use self::routes::Seen;
use self::status::CallError;
use crate::audit::{self, Asked};
use crate::job::engine::{Engine, Event, Follower, From, Stopped};
use crate::metrics::{Following, Metrics};
use crate::policy::live::InForce;
use crate::policy::{Claim, action};
use crate::renewal::{Renewal, RenewalError, Renewed};
use crate::shim::clock;
use crate::tally::Tally;
use crate::tls::Peer;

/// The key under which a stream's response says where it begins.
const OFFSET_METADATA: &str = "jobworker-offset";

type Answer<T> = Result<Response<T>, Status>;

/// The API of one worker.
pub struct Service {
    engine: Engine,
    policies: InForce,
    metrics: Metrics,
    settings: Settings,
    followers: Followers,
    lists: Tally,
    renewal: Option<Renewal>,
}

/// What of the API an operator chooses.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How much one request may hold.
    pub caps: Caps,
    /// How many streams and waits a client may have open, over all its connections.
    pub max_followers: usize,
    /// How many lists a client may have underway, over all its connections.
    pub max_lists: usize,
    /// The grace period of a stop that names none.
    pub grace: Duration,
}

impl Service {
    /// The API in front of an engine.
    pub fn new(engine: Engine, policies: InForce, metrics: Metrics, settings: Settings) -> Self {
        let followers = Followers::new(settings.max_followers, metrics.clone());
        let lists = Tally::new(settings.max_lists);
        Self { engine, policies, metrics, settings, followers, lists, renewal: None }
    }

    /// The same, and clients' certificates are renewed, if there is what that takes.
    #[must_use]
    pub fn renewing(self, renewal: Option<Renewal>) -> Self {
        Self { renewal, ..self }
    }

    /// Where what happens is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn renewal(&self) -> Result<&Renewal, RenewalError> {
        self.renewal.as_ref().ok_or(RenewalError::Off)
    }

    async fn start_job(&self, peer: &Peer, request: v1::StartRequest) -> Answer<v1::StartResponse> {
        let v1::StartRequest { id, spec } = request;
        let (spec, caps) = (spec.unwrap_or_default(), self.settings.caps);
        let asking = self.ask(peer, asked::to_start(&id, &spec))?;
        let mut warnings = Vec::new();
        let parse = async {
            let (id, request) = (request::id(&id)?, request::job(spec, caps)?);
            // Of what was asked for: the policy's ceilings are not the client's to change.
            warnings = request::warnings(&request);
            Ok(action::Start { id, request })
        };
        let permit = asking.authorize(parse).await?;
        let (id, permitted) = (permit.action().id, Instant::now());
        let started = self.engine.start(permit).await;
        self.metrics.start(started.is_ok(), permitted.elapsed());
        let view = started.inspect_err(|error| asking.failed(id, error))?;
        let job = Some(reply::job(view, &asking.claim()));
        Ok(Response::new(v1::StartResponse { job, warnings }))
    }

    /// The follower's events as they go out, counted. The seat is taken for as long as they may be read.
    fn messages(
        &self,
        follower: Follower,
        seat: Seat,
        viewer: Claim,
    ) -> impl Stream<Item = Result<Bytes, Status>> + Send + use<> {
        let metrics = self.metrics.clone();
        stream::unfold((follower, seat), move |(mut follower, seat)| {
            let (metrics, viewer) = (metrics.clone(), viewer.clone());
            async move {
                let event = follower.next().await?;
                match &event {
                    Ok(Event::Chunk { data, .. }) => metrics.streamed(data.len()),
                    Ok(Event::Gap(gap)) => metrics.gap(gap.length),
                    _ => {}
                }
                let message = event.map(|event| framing::frame(event, &viewer)).map_err(Status::from);
                Some((message, (follower, seat)))
            }
        })
    }
}

#[tonic::async_trait]
impl JobWorker for Service {
    type StreamStream = delivery::Placeholder;

    async fn start(&self, request: Request<v1::StartRequest>) -> Answer<v1::StartResponse> {
        let (peer, request) = open(request)?;
        let id = request.id.clone();
        self.start_job(&peer, request).await.inspect_err(|status| {
            if status.code() != Code::AlreadyExists {
                self.engine.refused_to_start(&id, &peer.identity.name);
            }
        })
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Answer<v1::StopResponse> {
        let (peer, v1::StopRequest { job, signal, grace_msec }) = open(request)?;
        let grace = grace_msec.map_or(self.settings.grace, Duration::from_millis);
        let asking = self.ask(&peer, asked::to_signal(&job, &signal))?;
        let parse = async {
            let signal = match signal.as_str() {
                "" => SignalNumber::SIGTERM,
                signal => request::signal("signal", signal)?,
            };
            Ok(action::Stop { job: asking.resolve(&job).await?, signal, grace })
        };
        let permit = asking.authorize(parse).await?;
        let id = permit.action().job;
        let stopped = self.engine.stop(permit).await.inspect_err(|error| asking.failed(id, error));
        let Stopped { view, already_ended } = stopped?;
        let job = Some(reply::job(view, &asking.claim()));
        Ok(Response::new(v1::StopResponse { job, already_ended }))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let (peer, v1::StatusRequest { job }) = open(request)?;
        let asking = self.ask(&peer, asked::about(&job))?;
        let parse = async { Ok(action::Status { job: asking.resolve(&job).await? }) };
        let permit = asking.authorize(parse).await?;
        let view = self.engine.status(permit).await?;
        Ok(Response::new(v1::StatusResponse { job: Some(reply::job(view, &asking.claim())) }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Answer<v1::ListResponse> {
        let (peer, list) = open(request)?;
        let mut page = None;
        let asking = self.ask(&peer, Asked::default())?;
        let parse = async {
            page = Some(request::page(&list)?);
            Ok(action::List)
        };
        let permit = asking.authorize(parse).await?;
        let name = &peer.identity.name;
        let refused = || CallError::Lists { name: name.clone(), max: self.lists.max() };
        let _share = self.lists.take(name, 1).ok_or_else(refused)?;
        let claim = asking.claim();
        let show = move |view| reply::listed(view, &claim);
        let (jobs, next) = self.engine.list(permit, page.unwrap_or_default(), show).await?;
        let next_page_token = next.map(|next| next.to_string()).unwrap_or_default();
        Ok(Response::new(v1::ListResponse { jobs, next_page_token }))
    }

    async fn wait(&self, request: Request<v1::WaitRequest>) -> Answer<v1::WaitResponse> {
        let (peer, v1::WaitRequest { job }) = open(request)?;
        let asking = self.ask(&peer, asked::about(&job))?;
        let parse = async { Ok(action::Wait { job: asking.resolve(&job).await? }) };
        let permit = asking.authorize(parse).await?;
        let _seat = self.followers.enter(&peer.identity.name, Following::Wait)?;
        let standing = asking.standing(permit.action().job);
        let view = tokio::select! {
            view = self.engine.wait(permit) => view?,
            lost = standing.lost() => return Err(lost),
        };
        Ok(Response::new(v1::WaitResponse { job: Some(reply::job(view, &asking.claim())) }))
    }

    async fn signal(&self, request: Request<v1::SignalRequest>) -> Answer<v1::SignalResponse> {
        let (peer, v1::SignalRequest { job, signal, all }) = open(request)?;
        let asking = self.ask(&peer, asked::to_signal(&job, &signal))?;
        let parse = async {
            let signal = request::signal("signal", &signal)?;
            Ok(action::Signal { job: asking.resolve(&job).await?, signal, all })
        };
        let permit = asking.authorize(parse).await?;
        let id = permit.action().job;
        let view = self.engine.signal(permit).await.inspect_err(|error| asking.failed(id, error))?;
        Ok(Response::new(v1::SignalResponse { job: Some(reply::job(view, &asking.claim())) }))
    }

    async fn remove(&self, request: Request<v1::RemoveRequest>) -> Answer<v1::RemoveResponse> {
        let (peer, v1::RemoveRequest { job }) = open(request)?;
        let asking = self.ask(&peer, asked::about(&job))?;
        let parse = async { Ok(action::Remove { job: asking.resolve(&job).await? }) };
        let permit = asking.authorize(parse).await?;
        let id = permit.action().job;
        let removed = self.engine.remove(permit).await.inspect_err(|error| asking.failed(id, error))?;
        Ok(Response::new(v1::RemoveResponse { job: Some(reply::removed(removed, &asking.claim())) }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Answer<v1::RenewResponse> {
        let (peer, v1::RenewRequest { csr }) = open(request)?;
        let asking = self.ask(&peer, Asked::default())?;
        let parse = async { Ok(self.renewal()?.parse(&peer.identity, &csr)?) };
        let permit = asking.authorize(parse).await?;
        let rule = permit.rule().clone();
        let renewed = self.renewal()?.issue(permit).await;
        let renewed = renewed.inspect_err(|error| asking.failed_without_job(error))?;
        asking.still_valid()?;
        audit::certificate_issued(&peer, rule.as_str(), &renewed);
        let Renewed { chain_pem, not_after_unix_usec, .. } = renewed;
        Ok(Response::new(v1::RenewResponse { chain_pem, not_after_unix_usec }))
    }

    async fn stream(&self, request: Request<v1::StreamRequest>) -> Answer<Self::StreamStream> {
        let (peer, v1::StreamRequest { job, only, from, no_follow, starting, since_usec_ago }) =
            open(request)?;
        let (mut kind, mut beginning) = (None, From::Start);
        let asking = self.ask(&peer, asked::about(&job))?;
        let name = &peer.identity.name;
        let parse = async {
            kind = request::only(only)?;
            let from = request::since(from, since_usec_ago, clock::unix_usec())?;
            beginning = request::beginning(from)?;
            let start_refused = || CallError::StartRefused { job: job.clone() };
            if starting && !self.engine.begun(&job, name).await {
                return Err(start_refused());
            }
            match asking.resolve(&job).await {
                Ok(job) => Ok(action::Stream { job }),
                Err(_) if starting && self.engine.was_refused(&job, name) => Err(start_refused()),
                Err(error) => Err(error),
            }
        };
        let permit = asking.authorize(parse).await?;
        let seat = self.followers.enter(&peer.identity.name, Following::Stream)?;
        let (standing, claim) = (asking.standing(permit.action().job), asking.claim());
        let follower = self.engine.stream(permit, beginning, kind, !no_follow).await?;
        let begins_at = follower.begins_at();
        let mut response = delivery::response(while_allowed(self.messages(follower, seat, claim), standing));
        if let Some(offset) = begins_at {
            response.metadata_mut().insert(OFFSET_METADATA, offset.into());
        }
        Ok(response)
    }
}

/// Takes a request apart: who sent it, and what it says.
fn open<T>(request: Request<T>) -> Result<(Peer, T), Status> {
    if let Some(seen) = request.extensions().get::<Seen>() {
        seen.set();
    }
    let peer = request.extensions().get::<Peer>().cloned();
    let peer = peer.ok_or_else(|| Status::internal("the connection carries no client identity"))?;
    Ok((peer, request.into_inner()))
}
