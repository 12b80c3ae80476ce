//! The floor under streaming: mutual TLS by tokio-rustls and nothing above it. Each client that connects gets a file, as the
//! worker's clients get theirs: from the page cache, in pieces of the same size, under the same suite.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::parts;
use crate::client;
use crate::pki::Pki;

/// The worker's largest piece.
const PIECE_BYTES: usize = 256 << 10;

/// The part: serves until it is killed. Writes its address to stdout.
pub(super) fn serve(certificates: &Path, file: &Path) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(config(certificates)?));
    let file = Arc::new(File::open(file)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            let (acceptor, file) = (acceptor.clone(), Arc::clone(&file));
            tokio::spawn(async move {
                if let Err(error) = answer(acceptor, tcp, &file).await {
                    eprintln!("bench: the raw server: {error:#}");
                }
            });
        }
    })
}

/// The whole file for each byte that comes.
async fn answer(acceptor: TlsAcceptor, tcp: TcpStream, file: &File) -> anyhow::Result<()> {
    let mut tls = acceptor.accept(tcp).await?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut asked = [0];
    while tls.read(&mut asked).await? > 0 {
        let mut offset = 0;
        loop {
            let length = file.read_at(&mut piece, offset)?;
            if length == 0 {
                break;
            }
            tls.write_all(&piece[..length]).await?;
            offset += length as u64;
        }
        tls.flush().await?;
    }
    Ok(())
}

fn config(certificates: &Path) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.join("ca.pem"))?)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let chain = vec![CertificateDer::from_pem_file(certificates.join("server.pem"))?];
    let key = PrivateKeyDer::from_pem_file(certificates.join("server-key.pem"))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The server, as long as this lives.
pub(super) struct RawServer {
    process: Child,
    address: String,
}

/// A connection to it.
pub(super) type RawClient = TlsStream<TcpStream>;

impl RawServer {
    pub(super) fn start(pki: &Pki, file: &Path) -> anyhow::Result<Self> {
        let mut command: Command = parts::command(&["raw-server"])?;
        let mut process = command.arg(pki.dir()).arg(file).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(process.stdout.take().context("a pipe")?).read_line(&mut address)?;
        ensure!(!address.is_empty(), "the raw server ended");
        Ok(Self { process, address: address.trim().to_owned() })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(super) async fn connect(&self, pki: &Pki) -> anyhow::Result<RawClient> {
        let identity = pki.identity("alice");
        let tls = client::tls(&pki.ca(), Some(&identity), &[&rustls::version::TLS13]);
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(TlsConnector::from(Arc::new(tls)).connect(ServerName::try_from("localhost")?, tcp).await?)
    }
}

/// Reads the whole file.
pub(super) async fn read(client: &mut RawClient, mut bytes: u64) -> anyhow::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    client.write_all(&[1]).await?;
    client.flush().await?;
    while bytes > 0 {
        let length = client.read(&mut piece).await?;
        ensure!(length > 0, "the raw server has gone");
        bytes -= length as u64;
    }
    Ok(())
}

impl Drop for RawServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
