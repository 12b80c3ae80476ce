//! The connection to the worker: one per process, and the API's calls on it, their errors in words.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use jobworker_proto::v1::job_worker_client::JobWorkerClient;
use jobworker_proto::v1::stream_response::Event;
use jobworker_proto::v1::{self, ErrorReason, Job};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::config::Target;
use crate::tls::{self, AlertFirst, FirstFailure};
use crate::tls_error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A worker that is gone without a word is noticed after these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Output flows at full speed over a long line: 16 MiB is 1.3 Gbit/s at 100 ms.
const WINDOW_BYTES: u32 = 16 << 20;
/// Measured: a 1 GiB stream costs the worker a quarter less than with HTTP/2's 16 KiB.
const FRAME_BYTES: u32 = 1 << 20;
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// A connection to the worker.
#[derive(Clone)]
pub(crate) struct Client {
    rpc: JobWorkerClient<Channel>,
    target: Arc<Target>,
    failure: FirstFailure,
}

impl Client {
    /// # Errors
    /// The credentials can't be used, nobody listens there, or the worker's certificate is not to be trusted. That the
    /// worker refuses the client's certificate is seen at the first call.
    pub(crate) async fn connect(target: Target) -> anyhow::Result<Self> {
        let config = tls::client_config(&target.credentials)?;
        let tcp = connect_tcp(&target).await?;
        let server_name = target.address.server_name();
        let handshake = TlsConnector::from(Arc::new(config)).connect(server_name, tcp);
        let stream =
            within_timeout(&target, handshake).await?.map_err(|error| handshake_error(&error, &target))?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            bail!("cannot talk to {}: it does not speak HTTP/2; is that jobworker?", target.address);
        }
        let (stream, failure) = AlertFirst::new(stream);
        let channel = channel(&target, stream).await?;
        let rpc = JobWorkerClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { rpc, target: Arc::new(target), failure })
    }

    pub(crate) async fn start(&self, request: v1::StartRequest) -> Result<Job, CallError> {
        let response = self.rpc.clone().start(request).await;
        self.job(response.map(|response| response.into_inner().job))
    }

    /// The job, and whether it had ended before.
    pub(crate) async fn stop(&self, request: v1::StopRequest) -> Result<(Job, bool), CallError> {
        let response = self.rpc.clone().stop(request).await.map(tonic::Response::into_inner);
        let already_ended = response.as_ref().is_ok_and(|response| response.already_ended);
        Ok((self.job(response.map(|response| response.job))?, already_ended))
    }

    pub(crate) async fn status(&self, job: String) -> Result<Job, CallError> {
        let response = self.rpc.clone().status(v1::StatusRequest { job }).await;
        self.job(response.map(|response| response.into_inner().job))
    }

    pub(crate) async fn wait(&self, job: String) -> Result<Job, CallError> {
        let response = self.rpc.clone().wait(v1::WaitRequest { job }).await;
        self.job(response.map(|response| response.into_inner().job))
    }

    pub(crate) async fn signal(&self, request: v1::SignalRequest) -> Result<Job, CallError> {
        let response = self.rpc.clone().signal(request).await;
        self.job(response.map(|response| response.into_inner().job))
    }

    pub(crate) async fn list(&self) -> Result<Vec<Job>, CallError> {
        let response =
            self.rpc.clone().list(v1::ListRequest {}).await.map_err(|status| self.explain(&status))?;
        Ok(response.into_inner().jobs)
    }

    /// The events of a job's output.
    pub(crate) async fn stream(
        &self,
        request: v1::StreamRequest,
    ) -> Result<impl Stream<Item = Result<Event, CallError>> + use<>, CallError> {
        let response = self.rpc.clone().stream(request).await.map_err(|status| self.explain(&status))?;
        let client = self.clone();
        Ok(response.into_inner().map(move |message| {
            message
                .map_err(|status| client.explain(&status))?
                .event
                .ok_or_else(|| CallError::incomplete("an event"))
        }))
    }

    fn job(&self, answer: Result<Option<Job>, Status>) -> Result<Job, CallError> {
        answer.map_err(|status| self.explain(&status))?.ok_or_else(|| CallError::incomplete("the job"))
    }

    fn explain(&self, status: &Status) -> CallError {
        let reason = status
            .get_details_error_info()
            .filter(|info| info.domain == "jobworker")
            .and_then(|info| ErrorReason::from_str_name(&info.reason));
        CallError { words: self.words(status), reason }
    }

    fn words(&self, status: &Status) -> String {
        // Only what goes wrong on this side has a source.
        if let Some(source) = status.source() {
            return self.broken_connection(source);
        }
        match (status.code(), status.message()) {
            (code, "") => code.description().to_owned(),
            (Code::Unauthenticated, message) => format!("unauthenticated: {message}"),
            (Code::PermissionDenied, message) => format!("permission denied: {message}"),
            (_, message) => message.to_owned(),
        }
    }

    fn broken_connection(&self, source: &(dyn Error + 'static)) -> String {
        let failure = self.failure.get();
        if let Some(objection) = failure.and_then(tls::objection) {
            return tls_error::explain(objection, &self.target);
        }
        let cause = failure.map_or_else(|| deepest(source).to_string(), ToString::to_string);
        format!("lost the connection to the worker at {}: {cause}", self.target.address)
    }
}

async fn connect_tcp(target: &Target) -> anyhow::Result<TcpStream> {
    let address = &target.address;
    let connecting = TcpStream::connect((address.host(), address.port()));
    let tcp = within_timeout(target, connecting).await?.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            anyhow!("cannot reach {address}: connection refused; is jobworker running there?")
        }
        _ => anyhow!("cannot reach {address}: {error}"),
    })?;
    tcp.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    Ok(tcp)
}

async fn within_timeout<T>(target: &Target, work: impl Future<Output = T>) -> anyhow::Result<T> {
    let seconds = CONNECT_TIMEOUT.as_secs();
    tokio::time::timeout(CONNECT_TIMEOUT, work)
        .await
        .map_err(|_| anyhow!("cannot reach {}: no answer within {seconds} s", target.address))
}

fn handshake_error(error: &io::Error, target: &Target) -> anyhow::Error {
    match tls::objection(error) {
        Some(tls) => anyhow!(tls_error::explain(tls, target)),
        None => anyhow!("the TLS handshake with {} failed: {error}", target.address),
    }
}

/// HTTP/2 over `stream`, and over no second one: a call on a broken connection fails instead of connecting anew.
async fn channel(target: &Target, stream: AlertFirst) -> anyhow::Result<Channel> {
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream =
            stream.take().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection broke"));
        std::future::ready(stream)
    });
    Endpoint::from_shared(format!("https://{}", target.address))?
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("cannot speak HTTP/2 with {}", target.address))
}

fn deepest<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    std::iter::successors(Some(error), |error| (*error).source()).last().unwrap_or(error)
}

/// A call that failed, in words for people, with the worker's reason where it gave one.
#[derive(Debug)]
pub(crate) struct CallError {
    words: String,
    reason: Option<ErrorReason>,
}

impl CallError {
    pub(crate) fn reason(&self) -> Option<ErrorReason> {
        self.reason
    }

    fn incomplete(what: &str) -> Self {
        Self { words: format!("the worker's answer lacks {what}"), reason: None }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Error for CallError {}
