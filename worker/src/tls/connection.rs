//! A connection whose client TLS has verified, and whom its certificate names.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::chains::Chain;
use super::cut::CLOSE_AFTER;
use super::frames::Frames;
use super::refusal::Refusal;
use crate::audit::{self, Caller, Holder};
use crate::identity::{ClientIdentity, NamelessCertificate};
use crate::metrics::{Metrics, Open};
use crate::tally::Share;

/// How a client begins to speak HTTP/2 (RFC 9113, 3.4), in bytes.
const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// A verified client and where it connects from.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who it is.
    pub identity: Arc<ClientIdentity>,
    /// Its address.
    pub address: SocketAddr,
    /// The certificates that it has shown, as they stand now.
    pub chain: Chain,
}

/// A verified client whose certificate gives it no usable name: every call of it is refused, in words.
#[derive(Clone, Debug)]
pub struct NamelessPeer {
    /// Its certificate.
    pub certificate: Arc<NamelessCertificate>,
    /// Its address.
    pub address: SocketAddr,
    chain: Chain,
}

/// Whom TLS has verified. Every request of the connection carries it in its extensions.
#[derive(Clone, Debug)]
pub enum Verified {
    /// A client with a name.
    Named(Peer),
    /// One without.
    Nameless(NamelessPeer),
}

impl Verified {
    /// The holder of `certificate`, connected from `address`; `enter` registers the chain under the client's name.
    pub(super) fn new(
        certificate: Result<ClientIdentity, NamelessCertificate>,
        address: SocketAddr,
        enter: impl FnOnce(&str) -> Chain,
    ) -> Self {
        match certificate {
            Ok(identity) => {
                let chain = enter(&identity.name);
                Self::Named(Peer { identity: Arc::new(identity), address, chain })
            }
            Err(certificate) => {
                let chain = enter(&certificate.placeholder());
                Self::Nameless(NamelessPeer { certificate: Arc::new(certificate), address, chain })
            }
        }
    }

    /// The client's name, or what stands for it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Named(peer) => peer.identity.name.clone(),
            Self::Nameless(peer) => peer.certificate.placeholder(),
        }
    }

    pub(super) fn holder(&self) -> Holder<'_> {
        match self {
            Self::Named(peer) => Ok(&peer.identity),
            Self::Nameless(peer) => Err(&peer.certificate),
        }
    }

    /// Where it connects from.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Named(peer) => peer.address,
            Self::Nameless(peer) => peer.address,
        }
    }

    /// Its connection was ended by the library, which told it `reason`.
    pub(crate) fn has_broken_http2(&self, reason: h2::Reason, metrics: &Metrics) {
        let is_abuse = reason == h2::Reason::ENHANCE_YOUR_CALM;
        self.refuse(&Refusal::Broken { name: self.name(), reason: format!("{reason:?}"), is_abuse }, metrics);
    }

    fn refuse(&self, refusal: &Refusal, metrics: &Metrics) {
        metrics.refused(refusal.label());
        audit::connection_refused(self.address(), refusal, &Caller::Verified(self.holder()));
    }

    fn chain(&self) -> &Chain {
        match self {
            Self::Named(peer) => &peer.chain,
            Self::Nameless(peer) => &peer.chain,
        }
    }
}

/// An encrypted connection with a verified client. Counts as one of the worker's connections while it lives, and fails
/// if nothing comes on it for too long at its beginning. Once HTTP/2 has begun it may be idle for ever. It ends soon after
/// its client's certificate has, and at once if the client abuses it.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Verified,
    preface: Option<Preface>,
    frames: Frames,
    metrics: Metrics,
    end: End,
    _places: Places,
}

/// What a connection takes up.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) _all: OwnedSemaphorePermit,
    pub(super) _own: Share,
    pub(super) _open: Open,
}

/// How a connection comes to its end by its client's certificate.
#[derive(Debug)]
enum End {
    /// That is good as yet.
    Open(Pin<Box<WaitForCancellationFutureOwned>>),
    /// It is cut off; what is to be said is being said.
    Closing(Pin<Box<Sleep>>),
    Closed,
}

/// The first bytes, which have not all come.
#[derive(Debug)]
struct Preface {
    missing_bytes: usize,
    within: Duration,
    timeout: Pin<Box<Sleep>>,
}

impl Connection {
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        peer: Verified,
        places: Places,
        preface_timeout: Duration,
        metrics: Metrics,
    ) -> Self {
        let preface = Preface {
            missing_bytes: PREFACE_BYTES,
            within: preface_timeout,
            timeout: Box::pin(sleep(preface_timeout)),
        };
        let end = End::Open(Box::pin(peer.chain().told()));
        let frames = Frames::new(Instant::now());
        Self { stream, peer, preface: Some(preface), frames, metrics, end, _places: places }
    }

    /// Whom it is with.
    pub fn peer(&self) -> &Verified {
        &self.peer
    }

    /// Whether it is over: its client's certificate was cut off, and there was time to say so.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if let End::Open(told) = &mut self.end
            && told.as_mut().poll(cx).is_ready()
        {
            self.end = End::Closing(Box::pin(sleep(CLOSE_AFTER)));
        }
        if let End::Closing(pause) = &mut self.end
            && pause.as_mut().poll(cx).is_ready()
        {
            self.end = End::Closed;
            if let Some(cut) = self.peer.chain().cut() {
                self.refuse(&Refusal::CutOff(cut.clone()));
            }
        }
        matches!(self.end, End::Closed)
    }

    /// Nothing can be read now: whether the client has had its time.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(preface) = &mut self.preface else { return Poll::Pending };
        let within = preface.within;
        preface.timeout.as_mut().poll(cx).map(|()| {
            let refusal = Refusal::NoPreface { name: self.peer.name(), within };
            self.refuse(&refusal);
            Err(io::Error::new(io::ErrorKind::TimedOut, refusal))
        })
    }

    /// Nothing can be written now: the client takes nothing, and need not be waited for once this is over.
    fn poll_unsaid<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match self.is_over(cx) {
            true => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            false => Poll::Pending,
        }
    }

    /// Takes note of bytes that came.
    ///
    /// # Errors
    /// When they are one too many of what no client needs to send.
    fn count(&mut self, mut read: &[u8]) -> io::Result<()> {
        if let Some(preface) = &mut self.preface {
            let passed = preface.missing_bytes.min(read.len());
            preface.missing_bytes -= passed;
            read = &read[passed..];
            if preface.missing_bytes == 0 {
                self.preface = None;
            }
        }
        self.frames.read(read, Instant::now).map_err(|abuse| {
            let refusal = Refusal::Abuse { name: self.peer.name(), abuse };
            self.refuse(&refusal);
            io::Error::new(io::ErrorKind::ConnectionAborted, refusal)
        })
    }

    fn refuse(&self, refusal: &Refusal) {
        self.peer.refuse(refusal, &self.metrics);
    }

    /// Takes note of bytes that went.
    fn written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.frames.written(bytes);
        }
        written
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // To HTTP/2 it looks as if the client had closed it: it says its last, and goodbye in TLS, too.
        if self.peer.chain().cut().is_some() && self.is_over(cx) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending if self.is_over(cx) => Poll::Ready(Ok(())),
            Poll::Pending => self.poll_late(cx),
            Poll::Ready(read) => Poll::Ready(read.and_then(|()| self.count(&buf.filled()[before..]))),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Pending => self.poll_unsaid(cx),
            written => self.written(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.poll_unsaid(cx),
            flushed => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending => self.poll_unsaid(cx),
            shut => shut,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.poll_unsaid(cx),
            written => self.written(written),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
