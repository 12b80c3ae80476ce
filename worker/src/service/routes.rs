//! The port's services behind one gate: each request, whichever service it is for, comes from a client whose
//! certificate is still valid, and counts for it as long as it is underway. A connection outlives its certificate; the
//! calls on it must not, and neither must an answer that lasts. What tonic refuses before any method sees it gets its
//! audit line here.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use jobworker_proto::v1::job_worker_server::JobWorkerServer;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use super::authorize::still_valid;
use super::delivery;
use super::lasting::until_cut;
use super::requests::Requests;
use super::status::CallError;
use crate::audit::{self, Asked, Decision};
use crate::metrics::Metrics;
use crate::policy::action::Verb;
use crate::tls::{NamelessPeer, Peer, Verified};

type Request = http::Request<Body>;
type Response = http::Response<Body>;
type Inner = BoxCloneSyncService<Request, Response, Infallible>;

/// What the caps on requests' bytes begin with: these are reached before a request is whole.
const MAX_REQUEST_BYTES: &str = "max-request-bytes";

/// The services by their names, to be served.
#[derive(Clone)]
pub struct Routes {
    services: Arc<HashMap<&'static str, Inner>>,
    requests: Requests,
    metrics: Metrics,
}

impl Routes {
    /// No services yet; and how many bytes of requests a client may have underway, over all its connections.
    pub fn new(max_request_bytes_per_client: usize, metrics: Metrics) -> Self {
        let requests = Requests::new(max_request_bytes_per_client);
        Self { services: Arc::default(), requests, metrics }
    }

    /// These and one more.
    #[must_use]
    pub fn with<S>(self, service: S) -> Self
    where
        S: Service<Request, Response = Response, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let mut services = Arc::unwrap_or_clone(self.services);
        let service = service.map_response(name_the_cap).map_response(delivery::unpack);
        services.insert(S::NAME, BoxCloneSyncService::new(service));
        Self { services: Arc::new(services), ..self }
    }

    async fn answer(self, peer: &Peer, path: &str, request: Request) -> Result<Response, Status> {
        if let Err(cut) = still_valid(peer, &asked_for(path)) {
            self.metrics.denied(action(path), cut.label());
            return Err(CallError::from(cut).into());
        }
        let name = path.split('/').nth(1).unwrap_or_default();
        let Some(service) = self.services.get(name).cloned() else {
            return Err(Status::new(Code::Unimplemented, "no such service here"));
        };
        let request = request.map(|body| self.requests.count(&peer.identity.name, body));
        // Infallible.
        let answer = service.oneshot(request).await.map_err(|never| match never {});
        answer.map(|response| response.map(|body| until_cut(body, peer, path)))
    }
}

impl Service<Request> for Routes {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let routes = self.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let metrics = routes.metrics.clone();
            let peer = match request.extensions_mut().remove::<Verified>() {
                Some(Verified::Named(peer)) => peer,
                Some(Verified::Nameless(peer)) => return Ok(refuse_nameless(&metrics, &peer, &path)),
                None => {
                    let status = Status::new(Code::Internal, "the connection carries no client identity");
                    return Ok(status.into_http());
                }
            };
            request.extensions_mut().insert(peer.clone());
            let answer = routes.answer(&peer, &path, request).await;
            let response = answer.unwrap_or_else(Status::into_http);
            count(&metrics, &path, &response);
            audit_refusal(&peer, &path, &response);
            Ok(response)
        })
    }
}

/// As a client without a role: told why at each call, each with its audit line.
fn refuse_nameless(metrics: &Metrics, peer: &NamelessPeer, path: &str) -> Response {
    let verb = action(path);
    metrics.denied(verb, "no_name");
    audit::nameless(&peer.certificate, peer.address, verb.map_or(path, |verb| verb.as_str()));
    let response = Status::from(CallError::Nameless(peer.certificate.error.clone())).into_http();
    count(metrics, path, &response);
    response
}

fn count(metrics: &Metrics, path: &str, response: &Response) {
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    metrics.call(action(path), code);
}

/// The API's methods are called as what they do.
fn action(path: &str) -> Option<Verb> {
    let method =
        path.strip_prefix('/')?.strip_prefix(JobWorkerServer::<Infallible>::NAME)?.strip_prefix('/')?;
    Verb::ALL.into_iter().find(|verb| verb.as_str().eq_ignore_ascii_case(method))
}

/// tonic refuses a request above the cap before any method sees it, with a code that no method of ours answers with.
fn name_the_cap(response: Response) -> Response {
    match Status::from_header_map(response.headers()) {
        Some(refused) if refused.code() == Code::OutOfRange => {
            let sizes = refused.message().trim_start_matches("Error, decoded message length too large: ");
            Status::from(CallError::TooLarge(sizes.to_owned())).into_http()
        }
        _ => response,
    }
}

/// Requests that can't be decoded, methods that there are not, bodies beyond a cap: no method has written a line.
fn audit_refusal(peer: &Peer, path: &str, response: &Response) {
    let Some(status) = Status::from_header_map(response.headers()) else { return };
    if status.code() != Code::Ok && is_unseen(&status) {
        audit::decision(peer, &asked_for(path), &Decision::Invalid { reason: &status.message() });
    }
}

/// What is known of a call whose method has not seen it.
fn asked_for(path: &str) -> Asked {
    Asked { action: path.to_owned(), ..Asked::default() }
}

/// Each error of ours carries details, none of tonic's does; and a body beyond a cap of ours is refused in its name.
fn is_unseen(status: &Status) -> bool {
    let cap = status.get_details_error_info().map(|info| info.metadata.get("cap").cloned());
    cap.is_none_or(|cap| cap.is_some_and(|cap| cap.starts_with(MAX_REQUEST_BYTES)))
}
