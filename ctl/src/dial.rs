//! Opens the connection to the worker: TCP, TLS, HTTP/2. What may pass by itself is told as an outage.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hyper_util::rt::TokioIo;
use jobworker_certs::ChainFault;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::call_error::CallError;
use crate::config::Target;
use crate::gather::Gather;
use crate::resolve::resolve;
use crate::tls::{self, AlertFirst, FirstFailure};
use crate::tls_error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A host or a network that is gone without a word is noticed after a minute, by the kernels alone: a ping of HTTP/2
/// would wake the worker for every idle follower. See tcp(7).
const KEEP_ALIVE_IDLE_SEC: u32 = 30;
const KEEP_ALIVE_INTERVAL_SEC: u32 = 10;
const KEEP_ALIVE_PROBES: u32 = 3;
/// The same for what was sent and not acknowledged, for which no probes are sent.
const USER_TIMEOUT_MSEC: u32 = (KEEP_ALIVE_IDLE_SEC + KEEP_ALIVE_INTERVAL_SEC * KEEP_ALIVE_PROBES) * 1000;
/// Output flows at full speed over a long line: 16 MiB is 1.3 Gbit/s at 100 ms.
const WINDOW_BYTES: u32 = 16 << 20;
/// Measured: a 1 GiB stream costs the worker a quarter less than with HTTP/2's 16 KiB.
const FRAME_BYTES: u32 = 1 << 20;

/// Opens a connection, and the place where it keeps why it broke.
///
/// # Errors
/// The credentials can't be used, nobody listens there, or the worker's certificate is not to be trusted. That the
/// worker refuses the client's certificate is seen at the first call.
pub(crate) async fn dial(target: &Target) -> anyhow::Result<(Channel, FirstFailure)> {
    let (config, refused) = tls::client_config(&target.credentials)?;
    let tcp = connect_tcp(target).await?;
    let server_name = target.address.server_name();
    let handshake = TlsConnector::from(Arc::new(config)).connect(server_name, tcp);
    let stream = within_timeout(target, handshake)
        .await?
        .map_err(|error| handshake_error(&error, target, refused.get()))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        bail!("cannot talk to {}: it does not speak HTTP/2; is that jobworker?", target.address);
    }
    let (stream, failure) = AlertFirst::new(stream);
    let channel = channel(target, stream, &failure).await?;
    Ok((channel, failure))
}

async fn connect_tcp(target: &Target) -> anyhow::Result<TcpStream> {
    let address = &target.address;
    let connecting = async {
        let addresses = resolve(address.host(), address.port()).await?;
        TcpStream::connect(&addresses[..]).await
    };
    let tcp = within_timeout(target, connecting).await?.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            let words = format!("cannot reach {address}: connection refused; is jobworker running there?");
            CallError::outage(words, "connection refused")
        }
        _ => CallError::outage(format!("cannot reach {address}: {error}"), error.to_string()),
    })?;
    tcp.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    keep_alive(&tcp).context("cannot set TCP's keepalive")?;
    Ok(tcp)
}

fn keep_alive(tcp: &TcpStream) -> nix::Result<()> {
    setsockopt(tcp, sockopt::TcpKeepIdle, &KEEP_ALIVE_IDLE_SEC)?;
    setsockopt(tcp, sockopt::TcpKeepInterval, &KEEP_ALIVE_INTERVAL_SEC)?;
    setsockopt(tcp, sockopt::TcpKeepCount, &KEEP_ALIVE_PROBES)?;
    setsockopt(tcp, sockopt::TcpUserTimeout, &USER_TIMEOUT_MSEC)?;
    setsockopt(tcp, sockopt::KeepAlive, &true)
}

async fn within_timeout<T>(target: &Target, work: impl Future<Output = T>) -> Result<T, CallError> {
    let cause = format!("no answer within {} s", CONNECT_TIMEOUT.as_secs());
    tokio::time::timeout(CONNECT_TIMEOUT, work)
        .await
        .map_err(|_| CallError::outage(format!("cannot reach {}: {cause}", target.address), cause))
}

fn handshake_error(error: &io::Error, target: &Target, refused: Option<&ChainFault>) -> anyhow::Error {
    match tls::objection(error) {
        Some(tls) => anyhow!(tls_error::explain_handshake(tls, target, refused)),
        None => {
            let words = format!("the TLS handshake with {} failed: {error}", target.address);
            CallError::outage(words, error.to_string()).into()
        }
    }
}

/// HTTP/2 over `stream`, and over no second one: a call on a broken connection fails instead of connecting anew.
async fn channel(target: &Target, stream: AlertFirst, failure: &FirstFailure) -> anyhow::Result<Channel> {
    let mut stream = Some(TokioIo::new(Gather::new(stream)));
    let connector = tower::service_fn(move |_: Uri| {
        let stream =
            stream.take().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection broke"));
        std::future::ready(stream)
    });
    let channel = Endpoint::from_shared(format!("https://{}", target.address))?
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .connect_with_connector(connector)
        .await
        .map_err(|error| CallError::broken(&error, failure, target))?;
    Ok(channel)
}
