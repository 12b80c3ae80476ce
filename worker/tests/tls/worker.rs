//! A worker in this process: the real door, service and engine; only the spawner is a socket that counts requests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::{fs, io};

use hyper_util::rt::TokioIo;
use jobworker::config::{Config, Options};
use jobworker::job::census::Census;
use jobworker::job::engine::Engine;
use jobworker::job::folder::JobsDir;
use jobworker::job::{ByteStr, JobId, JobRequest, Owner, Phase, Spec, State};
use jobworker::metrics::Metrics;
use jobworker::output::hub::Hub;
use jobworker::policy::Policy;
use jobworker::policy::live::InForce;
use jobworker::service::Service;
use jobworker::spawner::client::SpawnerClient;
use jobworker::{serve, tls};
use jobworker_limits::OutputLimit;
use jobworker_proto::v1::job_worker_client::JobWorkerClient;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::audit;
use crate::pki::{Identity, Pki};
use jobworker::tasks::Tasks;

pub(crate) const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

pub(crate) struct Worker {
    pub(crate) pki: Pki,
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) server: JoinHandle<anyhow::Result<()>>,
    state: TempDir,
    starts: Arc<AtomicUsize>,
}

/// A connection, and the address that the audit log knows it by.
pub(crate) struct Client {
    pub(crate) api: JobWorkerClient<Channel>,
    pub(crate) channel: Channel,
    pub(crate) address: SocketAddr,
}

impl Worker {
    pub(crate) async fn start(pki: Pki) -> Self {
        Self::with(pki, |_| {}).await
    }

    pub(crate) async fn with(pki: Pki, edit: impl FnOnce(&mut Options)) -> Self {
        audit::log();
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("worker.toml");
        fs::write(&file, "").unwrap();
        let mut options = Options {
            config: Some(file),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            state_dir: Some(state.path().to_owned()),
            ca: Some(pki.file("ca.pem")),
            cert: Some(pki.file("server.pem")),
            key: Some(pki.file("server-key.pem")),
            crl: Some(vec![pki.file("crl.pem")]),
            ..Options::default()
        };
        edit(&mut options);
        let config = Config::load(options).unwrap();
        let (spawner, starts) = spawner(&state).await;
        let shutdown = CancellationToken::new();
        let jobs = JobsDir::new(&config.state_dir);
        let census = Census::start(jobs.clone(), Vec::new(), &Tasks::default()).unwrap();
        let engine = Engine::new(
            jobs,
            spawner,
            Hub::new(&Tasks::default()).unwrap(),
            OutputLimit::DEFAULT,
            shutdown.clone(),
            census,
        );
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::default();
        let tls = tls::live::load(&config.tls, Vec::new(), metrics.clone(), &Tasks::default()).unwrap();
        let incoming = tls::incoming(listener, tls, config.door.clone(), metrics.clone(), &Tasks::default());
        let (token, policies) = (shutdown.clone(), InForce::fixed(Policy::built_in()));
        let service = Service::new(engine, policies, metrics, config.service);
        let server = tokio::spawn(async move { serve::serve(incoming, service, &config, token).await });
        Self { pki, address, shutdown, server, state, starts }
    }

    /// A connection from an address of its own, 127.1.x.y: the audit lines of all workers of this process are told apart by
    /// that, and a port alone is soon another's.
    pub(crate) async fn tcp(&self) -> io::Result<TcpStream> {
        static CONNECTIONS: AtomicU16 = AtomicU16::new(1);
        let [high, low] = CONNECTIONS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, 1, high, low), 0).into())?;
        socket.connect(self.address).await
    }

    /// A client that is connected as far as TCP and its own half of TLS go.
    pub(crate) async fn client(&self, identity: &Identity) -> Client {
        let stream = self.tls(Some(identity), TLS13).await.unwrap();
        let address = stream.get_ref().0.local_addr().unwrap();
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: Uri| {
            std::future::ready(stream.take().ok_or_else(|| io::Error::other("the connection broke")))
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        Client { api: JobWorkerClient::new(channel.clone()), channel, address }
    }

    pub(crate) async fn admin(&self) -> Client {
        self.client(&self.pki.identity("alice")).await
    }

    pub(crate) async fn tls(
        &self,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<TlsStream<TcpStream>> {
        let config = client_config(&self.pki, identity, versions);
        let tcp = self.tcp().await?;
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), tcp).await
    }

    /// What the worker says to a client that TLS does not let in, and its address.
    pub(crate) async fn alert(
        &self,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> (String, SocketAddr) {
        let config = client_config(&self.pki, identity, versions);
        let tcp = self.tcp().await.unwrap();
        let address = tcp.local_addr().unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let error = match connector.connect("localhost".try_into().unwrap(), tcp).await {
            Err(error) => error,
            // In TLS 1.3 the client is done before the worker has seen its certificate.
            Ok(mut stream) => stream.read(&mut [0; 64]).await.expect_err("the worker refuses"),
        };
        (error.to_string(), address)
    }

    /// A job's folder as a shim writes it, its command running.
    pub(crate) fn running_job(&self) -> JobId {
        let id = JobId::random();
        let folder = self.state.path().join("jobs").join(id.to_string());
        fs::create_dir_all(&folder).unwrap();
        let bytes = |text: &str| ByteStr::new(text).unwrap();
        let request = JobRequest {
            command: bytes("sleep"),
            args: vec![bytes("inf")],
            limits: jobworker_limits::Limits::default(),
            user: None,
            env: Vec::new(),
            workdir: bytes("/"),
            name: None,
            timeout_msec: None,
            output_limit: None,
        };
        let text = String::new;
        let owner = Owner {
            name: text(),
            common_name: text(),
            role: text(),
            serial: text(),
            fingerprint_sha256: text(),
        };
        let spec = Spec { version: 1, id, request, owner, created_unix_usec: 1, output_limit: None };
        let state = State {
            version: 1,
            phase: Phase::Running,
            pid: i32::MAX,
            shim_pid: i32::MAX,
            boot_id: text(),
            user: text(),
            cgroup: None,
            started_unix_usec: 1,
            birth: None,
            limits_in_force: jobworker_limits::LimitsInForce::default(),
            real_time_signals: true,
        };
        fs::write(folder.join("spec.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
        fs::write(folder.join("state.json"), serde_json::to_vec(&state).unwrap()).unwrap();
        id
    }

    /// How often the spawner was asked for a job.
    pub(crate) fn starts(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }
}

/// The TLS side of a client.
pub(crate) fn client_config(
    pki: &Pki,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.file("ca.pem")).unwrap()).unwrap();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // A client that likes ChaCha20 best.
    provider.cipher_suites.reverse();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            // Whether the key is the certificate's is for the worker to find out.
            let chain = vec![CertificateDer::from_pem_file(&identity.cert).unwrap()];
            let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
            let key = builder.crypto_provider().key_provider.load_private_key(key).unwrap();
            let certified = SingleCertAndKey::from(CertifiedKey::new(chain, key));
            builder.with_client_cert_resolver(Arc::new(certified))
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn spawner(state: &TempDir) -> (SpawnerClient, Arc<AtomicUsize>) {
    let socket = state.path().join("fake.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let starts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&starts);
    tokio::spawn(async move {
        let mut attached = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            let mut connection = BufReader::new(connection);
            let mut line = String::new();
            connection.read_line(&mut line).await.unwrap();
            if line.contains("start") {
                counted.fetch_add(1, Ordering::SeqCst);
                let refusal =
                    r#"{"refused":{"kind":"command_not_found","field":"spec.command","message":"none"}}"#;
                connection.write_all(format!("{refusal}\n").as_bytes()).await.unwrap();
            } else {
                connection
                    .write_all(b"{\"version\":\"0\",\"base\":null,\"unavailable\":{}}\n")
                    .await
                    .unwrap();
                attached.push(connection);
            }
        }
    });
    (SpawnerClient::attach(&socket).await.unwrap().0, starts)
}
