//! A worker that answers from a script and writes down what it was asked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use jobworker_proto::v1::job_worker_server::{JobWorker, JobWorkerServer};
use jobworker_proto::v1::stream_request::From;
use jobworker_proto::v1::stream_response::Event;
use jobworker_proto::v1::{self, Chunk, Job, JobState, StreamResponse};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::pki::Pki;
use crate::script::behind;
pub(crate) use crate::script::{Script, Step, chunk, stderr, stdout};

pub(crate) const ID: &str = "0b5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11";

/// What the worker was asked.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) starts: Vec<v1::StartRequest>,
    pub(crate) stops: Vec<v1::StopRequest>,
    pub(crate) streams: Vec<v1::StreamRequest>,
    pub(crate) signals: Vec<v1::SignalRequest>,
    pub(crate) waits: Vec<v1::WaitRequest>,
    pub(crate) removes: Vec<String>,
}

pub(crate) struct FakeWorker {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Asked>>,
    released: Arc<Notify>,
    /// Serves until this is dropped.
    _runtime: Runtime,
}

impl FakeWorker {
    pub(crate) fn new(pki: &Pki, script: Script) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), pki, script)
    }

    /// One that listens where another one did.
    pub(crate) fn at(address: SocketAddr, pki: &Pki, script: Script) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (asked, released) = (Arc::default(), Arc::default());
        let service = Service {
            unanswered: Arc::new(AtomicUsize::new(script.unanswered)),
            script,
            asked: Arc::clone(&asked),
            released: Arc::clone(&released),
            done: Arc::default(),
            stopped: Arc::default(),
            looked: Arc::new(Semaphore::new(0)),
            streamed: Arc::default(),
            cut: Arc::default(),
        };
        runtime.spawn(serve(listener, TlsAcceptor::from(Arc::new(server_config(pki))), service));
        Self { address, asked, released, _runtime: runtime }
    }

    pub(crate) fn asked<T>(&self, look: impl FnOnce(&Asked) -> T) -> T {
        look(&self.asked.lock().expect("no panic while it was held"))
    }

    /// Lets a `Start` that is held go on.
    pub(crate) fn release(&self) {
        self.released.notify_one();
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

pub(crate) fn server_config(pki: &Pki) -> ServerConfig {
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
        let acceptor = acceptor.clone();
        let service = Service { cut: Arc::default(), ..service.clone() };
        tokio::spawn(async move {
            match acceptor.accept(tcp).into_fallible().await {
                Ok(tls) => {
                    let cut = Arc::clone(&service.cut);
                    let service = TowerToHyperService::new(JobWorkerServer::new(service));
                    let connection = auto::Builder::new(TokioExecutor::new()).http2_only();
                    tokio::select! {
                        // A client that leaves in the middle of a stream is part of the tests.
                        _ = connection.serve_connection(TokioIo::new(tls), service) => {}
                        () = cut.notified() => {}
                    }
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
    released: Arc<Notify>,
    unanswered: Arc<AtomicUsize>,
    /// The steps of the `…Once` kind that were carried out.
    done: Arc<Mutex<BTreeSet<usize>>>,
    stopped: Arc<Notify>,
    streamed: Arc<Notify>,
    /// Breaks this one connection.
    cut: Arc<Notify>,
    /// A permit for each call of `Status`.
    looked: Arc<Semaphore>,
}

impl Service {
    fn note(&self, note: impl FnOnce(&mut Asked)) -> Result<(), Status> {
        note(&mut self.asked.lock().expect("no panic while it was held"));
        self.script.refusal.clone().map_or(Ok(()), Err)
    }

    /// Comes back if this call is one to be answered.
    async fn answered(&self) {
        let take_one = |left: usize| left.checked_sub(1);
        if self.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok() {
            self.cut.notify_one();
            std::future::pending::<()>().await;
        }
    }

    fn ended(&self) -> Job {
        let outcome = self.script.outcome.clone();
        Job { id: ID.into(), state: JobState::Finished.into(), outcome, ..self.script.now.clone() }
    }

    fn is_first_time(&self, step: usize) -> bool {
        self.done.lock().expect("no panic while it was held").insert(step)
    }

    async fn play(self, from: u64, events: mpsc::Sender<Result<StreamResponse, Status>>) {
        let mut at = 0;
        for (number, step) in self.script.steps.clone().into_iter().enumerate() {
            let send = async |event| events.send(Ok(StreamResponse { event: Some(event) })).await.is_ok();
            match step {
                Step::Send(Event::Chunk(chunk)) => {
                    let chunk = Chunk { offset: at, ..chunk };
                    at += chunk.data.len() as u64;
                    if from < at {
                        send(Event::Chunk(behind(chunk, from))).await;
                    }
                }
                Step::Send(event) => _ = send(event).await,
                Step::Endless(event) => while send(event.clone()).await {},
                Step::UntilStopped => self.stopped.notified().await,
                Step::UntilReleased => self.released.notified().await,
                Step::Forever => events.closed().await,
                Step::Fail(status) => _ = events.send(Err(status)).await,
                Step::FailOnce(status) if self.is_first_time(number) => {
                    let _ = events.send(Err(status)).await;
                    return;
                }
                Step::CutOnce if self.is_first_time(number) => {
                    self.cut.notify_one();
                    return events.closed().await;
                }
                Step::FailOnce(_) | Step::CutOnce => {}
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
        self.answered().await;
        if self.script.mute {
            std::future::pending::<()>().await;
        }
        if self.script.held_start {
            self.released.notified().await;
        }
        if self.script.start_waits {
            let streamed = tokio::time::timeout(Duration::from_secs(20), self.streamed.notified()).await;
            streamed.map_err(|_| Status::deadline_exceeded("the output was not asked for"))?;
        }
        self.script.start_refusal.clone().map_or(Ok(()), Err)?;
        let job =
            Job { id: request.id, spec: request.spec, state: JobState::Running.into(), ..Default::default() };
        Ok(Response::new(v1::StartResponse { job: Some(job), warnings: self.script.warnings.clone() }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        self.note(|_| {})?;
        let Some(renews) = &self.script.renews else { return Err(Status::unimplemented("an old worker")) };
        let chain_pem = renews(&request.into_inner().csr);
        Ok(Response::new(v1::RenewResponse { chain_pem, not_after_unix_usec: 0 }))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::StopResponse>, Status> {
        self.note(|asked| asked.stops.push(request.into_inner()))?;
        self.answered().await;
        self.script.stop_refusal.clone().map_or(Ok(()), Err)?;
        if self.script.mute_after_start {
            std::future::pending::<()>().await;
        }
        let looked = self.looked.acquire_many(self.script.stop_waits).await;
        looked.expect("it is never closed").forget();
        self.stopped.notify_one();
        let already_ended = self.script.now.state() == JobState::Finished;
        Ok(Response::new(v1::StopResponse { job: Some(self.ended()), already_ended }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        self.note(|_| {})?;
        self.looked.add_permits(1);
        if self.script.mute_after_start {
            std::future::pending::<()>().await;
        }
        let mut job = self.script.now.clone();
        let stop_asked = self.script.stop_refusal.is_none()
            && !self.asked.lock().expect("no panic while it was held").stops.is_empty();
        if stop_asked && job.state() != JobState::Finished {
            job.set_state(JobState::Stopping);
        }
        Ok(Response::new(v1::StatusResponse { job: Some(job) }))
    }

    async fn stream(
        &self,
        request: Request<v1::StreamRequest>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let request = request.into_inner();
        let from = if let Some(From::Offset(offset)) = request.from { offset } else { 0 };
        self.note(|asked| asked.streams.push(request))?;
        self.streamed.notify_one();
        if self.script.knows_late && self.asked.lock().expect("no panic while it was held").streams.len() == 1
        {
            return Err(Status::not_found("job: no such job"));
        }
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(self.clone().play(from, sender));
        let mut response: Response<Self::StreamStream> =
            Response::new(Box::pin(ReceiverStream::new(receiver)));
        if let Some(offset) = self.script.begins_at {
            response.metadata_mut().insert("jobworker-offset", offset.into());
        }
        Ok(response)
    }

    /// Two pages of a job each.
    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        self.note(|_| {})?;
        let request = request.into_inner();
        assert!(request.page_size.is_some(), "one answer can be too large");
        let (job, next) = match request.page_token.as_str() {
            "" => (self.script.now.clone(), "behind the first"),
            "behind the first" => (self.ended(), ""),
            token => return Err(Status::invalid_argument(format!("{token:?} is no token of this worker"))),
        };
        Ok(Response::new(v1::ListResponse { jobs: vec![job], next_page_token: next.to_owned() }))
    }

    async fn wait(&self, request: Request<v1::WaitRequest>) -> Result<Response<v1::WaitResponse>, Status> {
        self.note(|asked| asked.waits.push(request.into_inner()))?;
        self.answered().await;
        Ok(Response::new(v1::WaitResponse { job: Some(self.ended()) }))
    }

    async fn signal(
        &self,
        request: Request<v1::SignalRequest>,
    ) -> Result<Response<v1::SignalResponse>, Status> {
        self.note(|asked| asked.signals.push(request.into_inner()))?;
        Ok(Response::new(v1::SignalResponse { job: Some(self.script.now.clone()) }))
    }

    /// Jobs that begin with `a` can't be removed.
    async fn remove(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let job = request.into_inner().job;
        self.note(|asked| asked.removes.push(job.clone()))?;
        self.answered().await;
        if job.starts_with('a') {
            return Err(Status::failed_precondition(format!("job {job} is running; stop it first")));
        }
        Ok(Response::new(v1::RemoveResponse { job: Some(Job { id: job, ..self.ended() }) }))
    }
}
