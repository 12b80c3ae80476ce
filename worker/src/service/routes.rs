//! The port's services behind one gate: each request, whichever service it is for, comes from a client whose
//! certificate is still valid. A connection outlives its certificate; the calls on it must not.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_util::future::Either;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::util::{BoxCloneSyncService, Oneshot};
use tower::{Service, ServiceExt};

use super::status::CallError;
use crate::audit::{self, Asked, Decision};
use crate::tls::Peer;

type Request = http::Request<Body>;
type Response = http::Response<Body>;
type Inner = BoxCloneSyncService<Request, Response, Infallible>;

/// The services by their names, to be served.
#[derive(Clone, Default)]
pub struct Routes {
    services: Arc<HashMap<&'static str, Inner>>,
}

impl Routes {
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
        services.insert(S::NAME, BoxCloneSyncService::new(service.map_response(name_the_cap)));
        Self { services: Arc::new(services) }
    }

    fn route(&self, request: &Request) -> Result<Inner, Status> {
        admit(request)?;
        let path = request.uri().path();
        let name = path.split('/').nth(1).unwrap_or_default();
        let service = self.services.get(name).cloned();
        service.ok_or_else(|| Status::new(Code::Unimplemented, "no such service here"))
    }
}

impl Service<Request> for Routes {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Oneshot<Inner, Request>, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.route(&request) {
            Ok(service) => Either::Left(service.oneshot(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
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

fn admit(request: &Request) -> Result<(), Status> {
    let Some(peer) = request.extensions().get::<Peer>() else {
        return Err(Status::new(Code::Internal, "the connection carries no client identity"));
    };
    if !peer.identity.has_expired(SystemTime::now()) {
        return Ok(());
    }
    let (name, not_after) = (peer.identity.name.clone(), peer.identity.not_after());
    let error = CallError::Expired { name, not_after };
    let asked = Asked { action: request.uri().path().to_owned(), ..Asked::default() };
    audit::decision(
        peer,
        &asked,
        &Decision::Denied { rule: "certificate valid at every call", reason: &error },
    );
    Err(error.into())
}
