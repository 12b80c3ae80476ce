//! The door: connections come in here, handshake beside one another, and go on to the API once TLS has verified them.
//!
//! Nobody can hold it shut: handshakes have a timeout, and where too many are going on the oldest is dropped for the
//! newest, because an honest one is over in milliseconds. Nor can one client take up the house: its connections have a
//! cap of their own. Errors of accept(2) are waited out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use jobworker_certs::RoleOid;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::connection::{Connection, Places, Verified};
use super::live::InForce;
use super::presented::{Presented, Refused, with_refused};
use super::refusal::Refusal;
use crate::audit::{self, Caller};
use crate::identity::ClientIdentity;
use crate::metrics::Metrics;
use crate::tally::Tally;
use crate::tasks::Tasks;

/// Verified connections that the API has not taken yet.
const READY: usize = 16;

/// The pause after an accept(2) that failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long a refused client has to read why, before a reset would take it away.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What is encrypted at a time, and lies in memory while a client takes nothing, in bytes: a follower's largest piece goes
/// out in one call. Measured: a tenth less CPU time than with the 64 KiB of rustls.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// Seconds of silence after which the kernel asks whether a client is still there, between its questions, and how
/// many stay without answer (tcp(7)).
const KEEPALIVE_IDLE_SEC: u32 = 60;
const KEEPALIVE_INTERVAL_SEC: u32 = 15;
const KEEPALIVE_PROBES: u32 = 4;

/// What the door allows.
#[derive(Clone, Debug)]
pub struct Door {
    /// Under which extension a certificate's role is.
    pub role_oid: RoleOid,
    /// How long a TLS handshake may take, and after it HTTP/2's first bytes.
    pub handshake_timeout: Duration,
    /// Handshakes at a time.
    pub max_handshakes: usize,
    /// Connections at a time, those in their handshake included.
    pub max_connections: usize,
    /// Verified connections of one client at a time.
    pub max_connections_per_client: usize,
}

/// Takes connections from `listener` until the stream is dropped; then the listener is closed, too. Within a tokio
/// runtime only.
pub fn incoming(
    listener: TcpListener,
    in_force: InForce,
    door: Door,
    metrics: Metrics,
    tasks: &Tasks,
) -> impl Stream<Item = Result<Connection, Infallible>> + use<> {
    let (ready, verified) = mpsc::channel(READY);
    let clients = Tally::new(door.max_connections_per_client);
    let guard = Guard { in_force, door: Arc::new(door), clients, metrics, ready };
    tasks.spawn("listener", accept(listener, guard));
    ReceiverStream::new(verified).map(Ok)
}

async fn accept(listener: TcpListener, guard: Guard) {
    let places = Arc::new(Semaphore::new(guard.door.max_connections));
    let mut handshakes = Handshakes(VecDeque::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = guard.ready.closed() => return,
        };
        match accepted {
            Ok((tcp, address)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let evicted = handshakes.enter(guard.door.max_handshakes);
                    tokio::spawn(guard.clone().admit(tcp, address, place, evicted));
                }
                Err(_) => {
                    let refusal = Refusal::TooMany(guard.door.max_connections);
                    guard.refuse(address, &refusal, &Caller::Unknown);
                }
            },
            // The client's doing, accept(2); the next one may be fine.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The handshakes that are going on, the oldest first: each ends when its sender sends.
struct Handshakes(VecDeque<oneshot::Sender<()>>);

impl Handshakes {
    fn enter(&mut self, max: usize) -> oneshot::Receiver<()> {
        if self.0.len() >= max {
            self.0.retain(|handshake| !handshake.is_closed());
        }
        if self.0.len() >= max
            && let Some(oldest) = self.0.pop_front()
        {
            // One that is over by now needs no telling.
            let _ = oldest.send(());
        }
        let (evict, evicted) = oneshot::channel();
        self.0.push_back(evict);
        evicted
    }
}

/// What each connection needs on its way in.
#[derive(Clone)]
struct Guard {
    in_force: InForce,
    door: Arc<Door>,
    clients: Tally,
    metrics: Metrics,
    ready: mpsc::Sender<Connection>,
}

impl Guard {
    fn refuse(&self, address: SocketAddr, refusal: &Refusal, caller: &Caller<'_>) {
        self.metrics.refused(refusal.label());
        audit::connection_refused(address, refusal, caller);
    }

    async fn admit(
        self,
        tcp: TcpStream,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
        evicted: oneshot::Receiver<()>,
    ) {
        match self.verify(tcp, address, evicted).await {
            Ok((stream, peer)) => match self.clients.take(&peer.name(), 1) {
                Some(share) => {
                    let places = Places { _all: place, _own: share, _open: self.metrics.connection() };
                    let timeout = self.door.handshake_timeout;
                    let connection = Connection::new(stream, peer, places, timeout, self.metrics.clone());
                    // An error means that the worker goes down.
                    drop(self.ready.send(connection).await);
                }
                None => {
                    let (name, max) = (peer.name(), self.clients.max());
                    let refusal = Refusal::TooManyOfOne { name, max };
                    self.refuse(address, &refusal, &Caller::Verified(peer.holder()));
                    turn_away(stream).await;
                }
            },
            Err((refusal, tcp)) => {
                let caller = refusal.claims().map_or(Caller::Unknown, Caller::Claimed);
                self.refuse(address, &refusal, &caller);
                if let Some(tcp) = tcp {
                    drain(tcp).await;
                }
            }
        }
    }

    async fn verify(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        evicted: oneshot::Receiver<()>,
    ) -> Result<(TlsStream<TcpStream>, Verified), (Refusal, Option<TcpStream>)> {
        if let Err(error) = prepare(&tcp) {
            return Err((Refusal::Handshake { error }, None));
        }
        let Door { handshake_timeout, max_handshakes, ref role_oid, .. } = *self.door;
        let in_force = self.in_force.handshake();
        let accept = TlsAcceptor::from(in_force.config())
            .accept_with(tcp, |tls| tls.set_buffer_limit(Some(SEND_BUFFER_BYTES)));
        let handshake = accept.into_fallible();
        let handshake = with_refused(timeout(handshake_timeout, handshake));
        let stream = tokio::select! {
            (done, refused) = handshake => match done {
                Ok(Ok(stream)) => stream,
                Ok(Err((error, tcp))) => {
                    let claims = |refused: &Presented| Box::new(ClientIdentity::read(&refused.leaf, role_oid));
                    let claims = refused.as_ref().map(claims);
                    let refusal = match refused.map(|presented| presented.refused) {
                        Some(Refused::Anothers) => Refusal::WithoutKey { claims },
                        Some(Refused::Fault(fault)) => Refusal::Certificate { error, fault, claims },
                        None => Refusal::Handshake { error },
                    };
                    return Err((refusal, Some(tcp)));
                }
                Err(_) => return Err((Refusal::TimedOut(handshake_timeout), None)),
            },
            Ok(()) = evicted => return Err((Refusal::Evicted(max_handshakes), None)),
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        // TLS asks for a certificate, so there is one; no bytes at all are no certificate.
        let leaf = certificates.first().map_or(&[][..], |leaf| leaf);
        let identity = ClientIdentity::read(leaf, role_oid);
        let verified = Verified::new(identity, address, |name| in_force.enter(certificates, name));
        Ok((stream, verified))
    }
}

/// No delay for small messages; and the kernel, not this process, finds out when a client is gone without a word.
fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    setsockopt(tcp, sockopt::KeepAlive, &true)?;
    setsockopt(tcp, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_SEC)?;
    setsockopt(tcp, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_SEC)?;
    setsockopt(tcp, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    Ok(())
}

/// Tells a client of its cap, in HTTP/2's own words: no settings, and that this connection takes no request.
async fn turn_away(mut stream: TlsStream<TcpStream>) {
    const CAP: &[u8; 26] = b"max-connections-per-client";
    /// Length, type, flags and stream of an empty SETTINGS frame, then of a GOAWAY frame of 8 + 26 bytes, whose last
    /// stream is 0 and whose code is `ENHANCE_YOUR_CALM`, which gRPC takes for `RESOURCE_EXHAUSTED` (RFC 9113, 6.5, 6.8).
    const FRAMES: [u8; 26] = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 34, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
    let told = async {
        stream.write_all(&[&FRAMES[..], CAP].concat()).await?;
        stream.shutdown().await
    };
    // However that ends, the client is refused.
    let _ = timeout(DRAIN_TIMEOUT, told).await;
    drain(stream.into_inner().0).await;
}

/// Reads what the client still sends: closing with bytes unread would reset the connection, and the alert that says
/// what is wrong would be lost on the way.
async fn drain(mut tcp: TcpStream) {
    let mut buffer = [0; 4096];
    let drained = async {
        tcp.shutdown().await?;
        while tcp.read(&mut buffer).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // However it ends, the client is refused.
    let _ = timeout(DRAIN_TIMEOUT, drained).await;
}
