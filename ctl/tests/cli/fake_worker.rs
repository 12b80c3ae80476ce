//! A worker that answers from a script and writes down what it was asked.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use jobworker_proto::v1::job_worker_server::{JobWorker, JobWorkerServer};
use jobworker_proto::v1::stream_response::Event;
use jobworker_proto::v1::{self, Chunk, Job, JobState, OutputStream, StreamResponse};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::pki::Pki;

pub(crate) const ID: &str = "0b5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11";

/// What the worker answers.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// Instead of an answer to any call.
    pub(crate) refusal: Option<Status>,
    /// A client without a good certificate is thrown out without waiting until it has read why.
    pub(crate) abrupt: bool,
    /// What `Stream` does.
    pub(crate) steps: Vec<Step>,
    /// The job, as `Status` and `List` show it.
    pub(crate) now: Job,
    /// How it ends, as `Wait`, `Stop` and the stream's end show it.
    pub(crate) outcome: Option<v1::Outcome>,
}

#[derive(Clone)]
pub(crate) enum Step {
    Send(Event),
    /// The same again and again, until nobody listens.
    Endless(Event),
    UntilStopped,
    Forever,
    Fail(Status),
    /// The job's end.
    End,
}

pub(crate) fn stdout(data: &[u8]) -> Step {
    Step::Send(chunk(OutputStream::Stdout, data))
}

pub(crate) fn stderr(data: &[u8]) -> Step {
    Step::Send(chunk(OutputStream::Stderr, data))
}

pub(crate) fn chunk(stream: OutputStream, data: &[u8]) -> Event {
    let data = data.to_vec().into();
    Event::Chunk(Chunk { offset: 0, stream: stream.into(), time_unix_usec: 1_500_000, data })
}

/// What the worker was asked.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) starts: Vec<v1::StartRequest>,
    pub(crate) stops: Vec<v1::StopRequest>,
    pub(crate) streams: Vec<v1::StreamRequest>,
    pub(crate) signals: Vec<v1::SignalRequest>,
}

pub(crate) struct FakeWorker {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Asked>>,
    /// Serves until this is dropped.
    _runtime: Runtime,
}

impl FakeWorker {
    pub(crate) fn new(pki: &Pki, script: Script) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::default();
        let service = Service { script, asked: Arc::clone(&asked), stopped: Arc::default() };
        runtime.spawn(serve(listener, TlsAcceptor::from(Arc::new(server_config(pki))), service));
        Self { address, asked, _runtime: runtime }
    }

    pub(crate) fn asked<T>(&self, look: impl FnOnce(&Asked) -> T) -> T {
        look(&self.asked.lock().expect("no panic while it was held"))
    }

    /// Waits until what was asked fits.
    pub(crate) fn wait_until(&self, fits: impl Fn(&Asked) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.asked(&fits) {
            assert!(Instant::now() < deadline, "not asked for: {:?}", self.asked.lock());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn server_config(pki: &Pki) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.path("ca.pem")).expect("ca.pem")).expect("a CA");
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let chain = vec![CertificateDer::from_pem_file(pki.path("server.pem")).expect("server.pem")];
    let key = PrivateKeyDer::from_pem_file(pki.path("server-key.pem")).expect("server-key.pem");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(verifier.expect("a verifier"))
        .with_single_cert(chain, key)
        .expect("the server's certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, service: Service) {
    while let Ok((tcp, _)) = listener.accept().await {
        tcp.set_nodelay(true).expect("TCP_NODELAY");
        let (acceptor, service) = (acceptor.clone(), service.clone());
        tokio::spawn(async move {
            match acceptor.accept(tcp).into_fallible().await {
                Ok(tls) => {
                    let service = TowerToHyperService::new(JobWorkerServer::new(service));
                    let connection = auto::Builder::new(TokioExecutor::new()).http2_only();
                    // A client that leaves in the middle of a stream is part of the tests.
                    let _ = connection.serve_connection(TokioIo::new(tls), service).await;
                }
                Err(_) if service.script.abrupt => {}
                Err((_, tcp)) => drain(tcp).await,
            }
        });
    }
}

/// Closing with unread data would reset the connection before the client has read the alert.
async fn drain(mut tcp: TcpStream) {
    let _ = tcp.shutdown().await;
    let _ =
        tokio::time::timeout(Duration::from_secs(1), tokio::io::copy(&mut tcp, &mut tokio::io::sink())).await;
}

#[derive(Clone)]
struct Service {
    script: Script,
    asked: Arc<Mutex<Asked>>,
    stopped: Arc<Notify>,
}

impl Service {
    fn note(&self, note: impl FnOnce(&mut Asked)) -> Result<(), Status> {
        note(&mut self.asked.lock().expect("no panic while it was held"));
        self.script.refusal.clone().map_or(Ok(()), Err)
    }

    fn ended(&self) -> Job {
        let outcome = self.script.outcome.clone();
        Job { id: ID.into(), state: JobState::Finished.into(), outcome, ..self.script.now.clone() }
    }

    async fn play(self, events: mpsc::Sender<Result<StreamResponse, Status>>) {
        for step in self.script.steps.clone() {
            let send = async |event| events.send(Ok(StreamResponse { event: Some(event) })).await.is_ok();
            match step {
                Step::Send(event) => _ = send(event).await,
                Step::Endless(event) => while send(event.clone()).await {},
                Step::UntilStopped => self.stopped.notified().await,
                Step::Forever => events.closed().await,
                Step::Fail(status) => _ = events.send(Err(status)).await,
                Step::End => _ = send(Event::End(self.ended())).await,
            }
        }
    }
}

#[tonic::async_trait]
impl JobWorker for Service {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<StreamResponse, Status>> + Send>>;

    async fn start(&self, request: Request<v1::StartRequest>) -> Result<Response<v1::StartResponse>, Status> {
        let request = request.into_inner();
        self.note(|asked| asked.starts.push(request.clone()))?;
        let job =
            Job { id: request.id, spec: request.spec, state: JobState::Running.into(), ..Default::default() };
        Ok(Response::new(v1::StartResponse { job: Some(job) }))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::StopResponse>, Status> {
        self.note(|asked| asked.stops.push(request.into_inner()))?;
        self.stopped.notify_one();
        let already_ended = self.script.now.state() == JobState::Finished;
        Ok(Response::new(v1::StopResponse { job: Some(self.ended()), already_ended }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        self.note(|_| {})?;
        Ok(Response::new(v1::StatusResponse { job: Some(self.script.now.clone()) }))
    }

    async fn stream(
        &self,
        request: Request<v1::StreamRequest>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        self.note(|asked| asked.streams.push(request.into_inner()))?;
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(self.clone().play(sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        self.note(|_| {})?;
        Ok(Response::new(v1::ListResponse { jobs: vec![self.script.now.clone(), self.ended()] }))
    }

    async fn wait(&self, _: Request<v1::WaitRequest>) -> Result<Response<v1::WaitResponse>, Status> {
        self.note(|_| {})?;
        Ok(Response::new(v1::WaitResponse { job: Some(self.ended()) }))
    }

    async fn signal(
        &self,
        request: Request<v1::SignalRequest>,
    ) -> Result<Response<v1::SignalResponse>, Status> {
        self.note(|asked| asked.signals.push(request.into_inner()))?;
        Ok(Response::new(v1::SignalResponse { job: Some(self.script.now.clone()) }))
    }
}
