//! The TLS side of the connection: TLS 1.3 only, both sides show a certificate.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use anyhow::anyhow;
use jobworker_certs::{ACCEPTED_KEYS, ChainFault};
use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::config::Credentials;
use crate::pair::Pair;
use crate::pem;
use crate::render::words;
use crate::worker_verifier::{RefusedWorker, WorkerVerifier};

/// The client's side of TLS with these credentials, and where it notes why it refused a worker.
///
/// # Errors
/// A file can't be read or holds something else, or the key is not the certificate's.
pub(crate) fn client_config(credentials: &Credentials) -> anyhow::Result<(ClientConfig, RefusedWorker)> {
    match read(credentials) {
        // Another jobctl may be renewing them: one was read before the switch, the other after it.
        Err(error) if error.is::<OtherKey>() => {
            Pair::of(credentials).complete()?;
            read(credentials)
        }
        read => read,
    }
}

fn read(credentials: &Credentials) -> anyhow::Result<(ClientConfig, RefusedWorker)> {
    let provider = Arc::new(provider());
    let verifier = WorkerVerifier::read(credentials, &provider)?;
    let refused = verifier.refused();
    let chain = pem::certificates("--cert", &credentials.cert)?;
    let key = pem::private_key(&credentials.key)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain.clone(), key)
        .map_err(|error| pair_problem(&error, &chain[0], credentials))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // One connection per process: a ticket would never be used.
    config.resumption = rustls::client::Resumption::disabled();
    Ok((config, refused))
}

/// A key that is not the certificate's.
#[derive(Debug)]
struct OtherKey(String);

impl fmt::Display for OtherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OtherKey {}

/// Why a certificate and a key are of no use to each other.
fn pair_problem(
    error: &rustls::Error,
    leaf: &CertificateDer<'_>,
    credentials: &Credentials,
) -> anyhow::Error {
    let (key, cert) = (credentials.key.display(), credentials.cert.display());
    match (error, ChainFault::of_key(leaf)) {
        (rustls::Error::InconsistentKeys(_), _) => OtherKey(format!(
            "--key {key} and --cert {cert} can't be used together: the key is that of another certificate"
        ))
        .into(),
        (rustls::Error::InvalidCertificate(_), _) => {
            let fault = ChainFault::of(error, std::slice::from_ref(leaf), &[]);
            anyhow!("--cert {cert} can't be used: the certificate {}", fault.words(words::date))
        }
        // The key that can't be used is that of the certificate.
        (_, Some(fault)) => {
            anyhow!("--key {key} can't be used: the certificate {cert} {}", fault.words(words::date))
        }
        (error, None) => anyhow!("--key {key} can't be used: {error} ({ACCEPTED_KEYS})"),
    }
}

/// AES first: ChaCha20 costs twice as much where the CPU has AES instructions. The post-quantum key exchange first, so that
/// what is recorded today can't be read one day; it costs 15 us of CPU time (measured).
pub(crate) fn provider() -> CryptoProvider {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let cipher_suites =
        vec![TLS13_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256];
    let kx_groups = vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1];
    CryptoProvider { cipher_suites, kx_groups, ..aws_lc_rs::default_provider() }
}

/// What a connection's lower layers saw.
pub(crate) type FirstFailure = Arc<Seen>;

/// Why the connection broke, and what came over it. HTTP/2 hands on a text at best, so the error itself is kept here.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    failure: OnceLock<io::Error>,
    heard: AtomicBool,
    closed: AtomicBool,
}

impl Seen {
    /// Why the connection broke.
    pub(crate) fn get(&self) -> Option<&io::Error> {
        self.failure.get()
    }

    /// True if the other side has said anything behind the handshake. Before all else a server of HTTP/2 sends its settings
    /// (RFC 9113, 3.4).
    pub(crate) fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// True if the other side itself has closed the connection, in order: what it sent before that has arrived.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn note_read(&self, bytes: usize) {
        let seen = if bytes == 0 { &self.closed } else { &self.heard };
        seen.store(true, Ordering::Relaxed);
    }
}

/// TLS' own objection, if that is what `error` is about.
pub(crate) fn objection(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// A TLS connection that remembers why it broke, and takes the other side's word for it.
///
/// In TLS 1.3 the client has connected before the server has looked at its certificate. A refusal arrives as an alert
/// while the first request is written, and that write may fail (EPIPE, ECONNRESET) before the alert was read: then it
/// is still in the receive buffer, and says more than the failed write does.
pub(crate) struct AlertFirst {
    stream: TlsStream<TcpStream>,
    write_error: Option<io::Error>,
    failure: FirstFailure,
}

impl AlertFirst {
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> (Self, FirstFailure) {
        let failure = FirstFailure::default();
        (Self { stream, write_error: None, failure: Arc::clone(&failure) }, failure)
    }

    /// Keeps `error` if it is the first one, and gives one like it.
    fn remember(&self, error: io::Error) -> io::Error {
        let copy = io::Error::new(error.kind(), error.to_string());
        let _ = self.failure.failure.set(in_words(error));
        copy
    }

    fn poll_writing<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TlsStream<TcpStream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.write_error.is_none() {
            match ready!(write(Pin::new(&mut self.stream), cx)) {
                Ok(written) => return Poll::Ready(Ok(written)),
                Err(error) => self.write_error = Some(error),
            }
        }
        let error = ready!(self.poll_last_word(cx));
        Poll::Ready(Err(self.remember(error)))
    }

    /// After a failed write: reads what the other side had sent before. The kernel keeps that until it is read, then
    /// reports the end or the reset, so this comes to an end.
    fn poll_last_word(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.failure.note_read(buffer.filled().len()),
                Err(error) if objection(&error).is_some() => return Poll::Ready(error),
                Ok(()) | Err(_) => {
                    let broken = || io::ErrorKind::BrokenPipe.into();
                    return Poll::Ready(self.write_error.take().unwrap_or_else(broken));
                }
            }
        }
    }
}

/// rustls' words for this are about protocol and library.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), "closed by the other side in mid-conversation")
        }
        _ => error,
    }
}

impl AsyncRead for AlertFirst {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        if result.is_ok() && buffer.capacity() > before {
            this.failure.note_read(buffer.filled().len() - before);
        }
        Poll::Ready(result.map_err(|error| this.remember(error)))
    }
}

impl AsyncWrite for AlertFirst {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(cx, |stream, cx| stream.poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(cx, |stream, cx| stream.poll_write_vectored(cx, data))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_writing(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
