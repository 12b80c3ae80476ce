//! HTTP/2 on each connection, until the worker goes down: then each client is asked to end (GOAWAY) and waited for.
//!
//! This is hyper's server, without tonic's around it: tonic ends a call whose deadline has passed with `CANCELLED`, and
//! nothing behind it can say better. A library that writes a warning does so within the connection's span, so the log
//! names the client.

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;
use tracing::Instrument;

use crate::service::Routes;
use crate::tls::Connection;

/// A stream's flow-control window, in bytes. Only requests flow this way, most of them small; what a window lets in may
/// lie in memory until somebody reads it.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// A connection's window, over all its streams.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// The largest HTTP/2 frame that is taken, which lies in memory until it is whole: the least that HTTP/2 allows. The
/// client's own setting says how large those may be that it gets.
const FRAME_BYTES: u32 = 16 << 10;
/// The longest headers of a request that HTTP/2 takes; for longer ones the library answers by itself, with the HTTP
/// status 431. The service takes fewer, and says so in gRPC's words.
const HEADER_LIST_BYTES: u32 = 64 << 10;
/// Streams that a client may make us reset by its mistakes, until its connection is ended (CVE-2025-8671). There is no
/// bound where none is given.
const MISTAKES: usize = 128;
/// Streams that a client may reset before they were looked at, until its connection is ended (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// Serves `routes` on each of `incoming`. Returns once `shutdown` is cancelled and every connection has ended.
pub(super) async fn serve(
    incoming: impl Stream<Item = Result<Connection, Infallible>>,
    routes: Routes,
    max_calls_per_connection: u32,
    shutdown: CancellationToken,
) {
    let http2 = builder(max_calls_per_connection);
    // Each connection has a sender, so there is an end once none is left.
    let (open, mut ended) = mpsc::channel::<Infallible>(1);
    {
        let mut incoming = pin!(incoming);
        while let Some(Some(Ok(connection))) = shutdown.run_until_cancelled(incoming.next()).await {
            let serving = serve_one(http2.clone(), connection, routes.clone(), shutdown.clone());
            let open = open.clone();
            tokio::spawn(async move {
                serving.await;
                drop(open);
            });
        }
        // The listener is closed with what comes from it.
    }
    drop(open);
    let _none = ended.recv().await;
}

fn builder(max_calls_per_connection: u32) -> Builder<TokioExecutor> {
    let mut http2 = Builder::new(TokioExecutor::new());
    http2
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_local_error_reset_streams(Some(MISTAKES))
        .max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .max_concurrent_streams(max_calls_per_connection);
    http2
}

async fn serve_one(
    http2: Builder<TokioExecutor>,
    connection: Connection,
    routes: Routes,
    shutdown: CancellationToken,
) {
    let (client, metrics) = (connection.peer().clone(), routes.metrics().clone());
    let span =
        tracing::error_span!(parent: None, "connection", client = client.name(), peer = %client.address());
    let peer = client.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        routes.clone().call(request.map(Body::new))
    });
    let served = async move {
        let mut serving = pin!(http2.serve_connection(TokioIo::new(connection), service));
        tokio::select! {
            served = serving.as_mut() => return served,
            () = shutdown.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        serving.await
    };
    if let Err(error) = served.instrument(span).await {
        match told_by_library(&error) {
            Some(reason) => client.has_broken_http2(reason, &metrics),
            // The client has gone, or its network; or it was cut off, which has its line in the audit log.
            None => tracing::debug!(%error, "a connection has ended with an error"),
        }
    }
}

/// With what the library has ended a connection of itself.
fn told_by_library(error: &hyper::Error) -> Option<h2::Reason> {
    let http2 = error.source()?.downcast_ref::<h2::Error>()?;
    http2.reason().filter(|_| http2.is_go_away() && http2.is_library())
}
