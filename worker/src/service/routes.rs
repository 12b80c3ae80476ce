//! The port's services behind one gate: each request, whichever service it is for, comes from a client whose
//! certificate is still valid, and counts for it as long as it is underway. A connection outlives its certificate; the
//! calls on it must not, and neither must an answer that lasts. A call's deadline is kept here, and what tonic refuses
//! before any method sees it gets its words and its audit line.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::HeaderMap;
use jobworker_proto::v1::job_worker_server::JobWorkerServer;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use super::authorize::still_valid;
use super::deadline::Deadline;
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

/// The longest metadata of a call, in bytes, as HTTP/2 counts a list of headers (RFC 9113, 6.5.2).
const MAX_METADATA_BYTES: usize = 16 << 10;

/// Beside the name and the value, in bytes.
const HEADER_BYTES: usize = 32;

/// Goes with a request, for its method to say that it has seen it: from then on the audit line and the words of an error
/// are the method's.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<AtomicBool>);

impl Seen {
    /// A method has the request.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The services by their names, to be served.
#[derive(Clone)]
pub struct Routes {
    services: Arc<HashMap<&'static str, Inner>>,
    requests: Requests,
    metrics: Metrics,
}

impl Routes {
    /// No services yet; and how many bytes a request may have, and all that a client has underway over all its
    /// connections.
    pub fn new(max_request_bytes: usize, max_request_bytes_per_client: usize, metrics: Metrics) -> Self {
        let requests = Requests::new(max_request_bytes, max_request_bytes_per_client);
        Self { services: Arc::default(), requests, metrics }
    }

    /// Where what happens is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
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
        let service = service.map_response(delivery::unpack);
        services.insert(S::NAME, BoxCloneSyncService::new(service));
        Self { services: Arc::new(services), ..self }
    }

    /// The answer, or the error of what no service has answered.
    async fn answer(self, peer: &Peer, path: &str, mut request: Request) -> Result<Response, CallError> {
        if let Err(cut) = still_valid(peer, &asked_for(path)) {
            self.metrics.denied(action(path), cut.label());
            return Err(cut.into());
        }
        let refused = |error: CallError| {
            audit::decision(peer, &asked_for(path), &Decision::Invalid { reason: &error });
            error
        };
        let deadline = Deadline::of(request.headers()).map_err(refused)?;
        let metadata_bytes = metadata_bytes(request.headers());
        if metadata_bytes > MAX_METADATA_BYTES {
            let max_bytes = MAX_METADATA_BYTES;
            return Err(refused(CallError::Metadata { bytes: metadata_bytes, max_bytes }));
        }
        let name = path.split('/').nth(1).unwrap_or_default();
        let Some(service) = self.services.get(name).cloned() else {
            let mut there: Vec<_> = self.services.keys().copied().collect();
            there.sort_unstable();
            return Err(refused(CallError::NoService { path: path.to_owned(), there: there.join(", ") }));
        };
        let seen = Seen::default();
        request.extensions_mut().insert(seen.clone());
        let request = request.map(|body| self.requests.count(&peer.identity.name, body));
        let served = async {
            // Infallible.
            let response = service.oneshot(request).await.unwrap_or_else(|never| match never {});
            match unseen_error(&seen, &response) {
                Some(status) => {
                    let reason = status.message();
                    audit::decision(peer, &asked_for(path), &Decision::Invalid { reason: &reason });
                    explained(path, status).into_http()
                }
                None => response,
            }
        };
        let response = match deadline {
            Some(deadline) => tokio::select! {
                response = served => response,
                error = deadline.passed() => return Err(error),
            },
            None => served.await,
        };
        Ok(response.map(|body| until_cut(body, peer, path, deadline)))
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
            let response = answer.unwrap_or_else(|error| Status::from(error).into_http());
            count(&metrics, &path, &response);
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

fn metadata_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_BYTES).sum()
}

/// The error of a request that no method has seen: one that can't be decoded, is too large, or is for no method.
fn unseen_error(seen: &Seen, response: &Response) -> Option<Status> {
    if seen.is_set() {
        return None;
    }
    Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
}

/// tonic's error in our words and with our details, by its code alone; each of ours has details already. The services
/// beside ours have no method that answers with one of these codes.
fn explained(path: &str, status: Status) -> Status {
    if status.get_details_error_info().is_some() {
        return status;
    }
    let words = status.message().to_owned();
    match status.code() {
        Code::Unimplemented if words.is_empty() => CallError::NoMethod { path: path.to_owned() }.into(),
        // A compression that is not known here.
        Code::Unimplemented => CallError::Encoding(words).into(),
        Code::Internal => CallError::Malformed(words).into(),
        _ => status,
    }
}

/// What is known of a call whose method has not seen it.
fn asked_for(path: &str) -> Asked {
    Asked { action: path.to_owned(), ..Asked::default() }
}
