//! A client of the API that has no manners of its own: what the worker says comes through as it is.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::api::job_worker_client::JobWorkerClient;
use crate::api::stream_response::Event;
use crate::api::{Job, JobSpec, Limits, StartRequest, StreamRequest, WaitRequest};
use crate::pki::Identity;
use crate::wait::PATIENCE;

/// The generated client.
pub type Client = JobWorkerClient<Channel>;

/// Connects at once. `identity: None` shows no certificate.
///
/// # Errors
/// What TLS or TCP says.
pub async fn connect(
    address: &str,
    ca: &Path,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Client, tonic::transport::Error> {
    channel(address, ca, identity, versions)
        .await
        .map(|channel| JobWorkerClient::new(channel).max_decoding_message_size(64 << 20))
}

/// The channel below a [`Client`], for other services on the same port.
///
/// # Errors
/// What TLS or TCP says.
pub async fn channel(
    address: &str,
    ca: &Path,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Channel, tonic::transport::Error> {
    let windows = Windows { stream_bytes: 4 << 20, connection_bytes: 16 << 20 };
    channel_with(windows, address, ca, identity, versions).await
}

/// How much a client takes at a time, by HTTP/2's flow control.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// On one stream.
    pub stream_bytes: u32,
    /// Over all streams.
    pub connection_bytes: u32,
}

/// As [`channel`], with windows of one's own.
///
/// # Errors
/// What TLS or TCP says.
pub async fn channel_with(
    windows: Windows,
    address: &str,
    ca: &Path,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Channel, tonic::transport::Error> {
    let connector = TlsConnector::from(Arc::new(tls(ca, identity, versions)));
    let address = address.to_owned();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint
        .initial_stream_window_size(windows.stream_bytes)
        .initial_connection_window_size(windows.connection_bytes)
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let (connector, address) = (connector.clone(), address.clone());
            async move {
                let tcp = TcpStream::connect(&address).await?;
                tcp.set_nodelay(true)?;
                let name = ServerName::try_from("localhost").expect("a name");
                Ok::<_, io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
            }
        }))
        .await
}

/// Shakes hands, then only listens: the alert by which the worker refuses this client. Nothing is written after the
/// handshake, so that nothing can hide the alert behind a broken pipe.
///
/// # Panics
/// When the worker says anything else, or nothing.
pub async fn refusal(
    address: &str,
    ca: &Path,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> AlertDescription {
    let connector = TlsConnector::from(Arc::new(tls(ca, identity, versions)));
    let listening = async {
        let tcp = TcpStream::connect(address).await?;
        let mut tls = connector.connect(ServerName::try_from("localhost").expect("a name"), tcp).await?;
        tls.read_u8().await
    };
    let heard = tokio::time::timeout(PATIENCE, listening).await.expect("the worker says something");
    let error = heard.expect_err("the worker refuses this client");
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("not an alert: {error:?}"),
    }
}

/// The TLS side of a client.
///
/// # Panics
/// When a file is not what it should be.
pub fn tls(
    ca: &Path,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca) {
        roots.add(certificate).expect("a usable CA");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions that the provider has")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(&identity.cert);
            let key =
                PrivateKeyDer::from_pem_slice(&fs::read(&identity.key).expect("a key file")).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a key that fits")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// All of a file's.
fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    let all = CertificateDer::pem_file_iter(path).expect("a readable file");
    all.collect::<Result<_, _>>().expect("certificates")
}

/// A specification of a command with arguments.
pub fn spec(command: &[&str]) -> JobSpec {
    let (command, args) = command.split_first().expect("a command");
    JobSpec {
        command: command.as_bytes().to_vec(),
        args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        ..JobSpec::default()
    }
}

/// A specification of a shell script.
pub fn shell(script: &str) -> JobSpec {
    spec(&["/bin/sh", "-c", script])
}

/// The same under limits.
pub fn limited(spec: JobSpec, limits: Limits) -> JobSpec {
    JobSpec { limits: Some(limits), ..spec }
}

/// Starts a job.
///
/// # Errors
/// What the worker says.
pub async fn start(client: &mut Client, spec: JobSpec) -> Result<Job, tonic::Status> {
    let request = StartRequest { id: String::new(), spec: Some(spec) };
    Ok(client.start(request).await?.into_inner().job.expect("Start answers with a job"))
}

/// Waits for a job's end.
///
/// # Errors
/// What the worker says.
pub async fn wait(client: &mut Client, job: &str) -> Result<Job, tonic::Status> {
    let request = WaitRequest { job: job.to_owned() };
    Ok(client.wait(request).await?.into_inner().job.expect("Wait answers with a job"))
}

/// Runs a job to its end.
///
/// # Errors
/// What the worker says.
pub async fn run(client: &mut Client, spec: JobSpec) -> Result<Job, tonic::Status> {
    let job = start(client, spec).await?;
    wait(client, &job.id).await
}

/// What came out of a job, from both streams in order of arrival, and its end.
#[derive(Debug, Default)]
pub struct Output {
    /// stdout's bytes.
    pub stdout: Vec<u8>,
    /// stderr's bytes.
    pub stderr: Vec<u8>,
    /// All bytes.
    pub merged: Vec<u8>,
    /// Bytes told as gone.
    pub gap_bytes: u64,
    /// The finished job, if the stream got that far.
    pub end: Option<Job>,
}

/// Reads a stream to its end.
///
/// # Errors
/// What the worker says.
///
/// # Panics
/// When offsets don't fit together.
pub async fn output(client: &mut Client, request: StreamRequest) -> Result<Output, tonic::Status> {
    let mut stream = client.stream(request).await?.into_inner();
    let mut output = Output::default();
    while let Some(message) = stream.message().await? {
        match message.event.expect("an event") {
            Event::Chunk(chunk) => {
                output.merged.extend_from_slice(&chunk.data);
                let one = if chunk.stream == 2 { &mut output.stderr } else { &mut output.stdout };
                one.extend_from_slice(&chunk.data);
            }
            Event::Gap(gap) => output.gap_bytes += gap.length,
            Event::End(job) => output.end = Some(job),
        }
    }
    Ok(output)
}

/// Everything of a job, from the first byte.
pub fn everything(job: &str) -> StreamRequest {
    StreamRequest { job: job.to_owned(), ..StreamRequest::default() }
}
