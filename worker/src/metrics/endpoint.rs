//! `GET /metrics` over HTTP/1.1, and nothing else. One request a connection: who scrapes each quarter of a minute
//! does not need it kept, and nothing is left open.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::format::Format;
use crate::job::engine::blocking;

/// Requests at a time; others wait to be accepted.
const REQUESTS: usize = 4;

/// How long the request itself may take to come.
const HEADER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long all of it may take, from its connection to the answer's last byte.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The pause after an accept(2) that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Tells `registry` to whoever asks at `listener`, until `shutdown`.
pub async fn serve(listener: TcpListener, registry: Registry, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(accept(listener, Arc::new(registry))).await;
}

async fn accept(listener: TcpListener, registry: Arc<Registry>) {
    let places = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((tcp, _)) => {
                let registry = Arc::clone(&registry);
                tokio::spawn(async move {
                    // However it ends: who asks, asks again.
                    let _ = timeout(REQUEST_TIMEOUT, answer_one(tcp, registry)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection for metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer_one(tcp: TcpStream, registry: Arc<Registry>) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(request, Arc::clone(&registry)));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false);
    server.serve_connection(TokioIo::new(tcp), service).await
}

async fn answer(
    request: Request<Incoming>,
    registry: Arc<Registry>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let get = [Method::GET, Method::HEAD];
    let mut response = match request.uri().path() {
        "/metrics" if get.contains(request.method()) => {
            return Ok(metrics(registry, Format::asked_for(request.headers())).await);
        }
        "/metrics" => plain(StatusCode::METHOD_NOT_ALLOWED, "GET it\n"),
        _ => plain(StatusCode::NOT_FOUND, "only /metrics is here\n"),
    };
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}

async fn metrics(registry: Arc<Registry>, format: Format) -> Response<Full<Bytes>> {
    // Jobs' folders and groups may be read for it.
    let text = blocking(move || {
        let mut text = String::new();
        encode(&mut text, &registry).map(|()| format.of(text))
    });
    match text.await {
        Ok(text) => response(StatusCode::OK, format.content_type(), text),
        Err(error) => {
            tracing::error!(%error, "the metrics can't be written");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written\n")
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text)
}

fn response(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
