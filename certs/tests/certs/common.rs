//! What the tests share: the commands as a user types them, the openssl program, and a TLS handshake in memory.

use std::{
    error::Error,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use clap::Parser;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::TLS13,
};

/// The way the worker's binary mounts the commands.
#[derive(Parser)]
struct Tool {
    #[command(subcommand)]
    command: jobworker_certs::Command,
}

/// `certs ARGS… --dir DIR`, with clap's or the command's message on failure.
pub(crate) fn certs(dir: &Path, args: &[&str]) -> Result<(), String> {
    let args = [&["certs"], args, &["--dir", dir.to_str().unwrap()]].concat();
    let tool = Tool::try_parse_from(args).map_err(|error| error.to_string())?;
    jobworker_certs::run(tool.command).map_err(|error| format!("{error:#}"))
}

/// A folder with a CA, a server for localhost, an admin `alice` and a user `bob`.
pub(crate) fn make_all(dir: &Path, key: &str) {
    certs(dir, &["init", "--key", key]).unwrap();
    certs(dir, &["server", "--host", "localhost", "--host", "127.0.0.1", "--key", key]).unwrap();
    certs(dir, &["client", "--name", "alice", "--role", "admin", "--key", key]).unwrap();
    certs(dir, &["client", "--name", "bob", "--role", "user", "--key", key]).unwrap();
}

/// `openssl ARGS…` in `dir`.
pub(crate) fn openssl(dir: &Path, args: &[&str]) -> Output {
    Command::new("openssl").args(args).current_dir(dir).output().expect("the openssl program runs")
}

/// What a successful `openssl ARGS…` prints.
pub(crate) fn openssl_text(dir: &Path, args: &[&str]) -> String {
    let output = openssl(dir, args);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "openssl {args:?}: {stdout}{stderr}");
    stdout.into_owned()
}

/// The DER of a PEM certificate.
pub(crate) fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// A full TLS 1.3 handshake between DIR/server.pem and DIR/CLIENT.pem, with crl.pem in force as in the worker.
pub(crate) fn handshake(dir: &Path, client: &str, host: &str) -> Result<(), Box<dyn Error>> {
    let mut server = ServerConnection::new(Arc::new(server_config(dir)?))?;
    let mut client =
        ClientConnection::new(Arc::new(client_config(dir, client)?), host.to_owned().try_into()?)?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire)?;
        server.read_tls(&mut wire.as_slice())?;
        server.process_new_packets()?;
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire)?;
        }
        let mut unread = wire.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread)?;
            client.process_new_packets()?;
        }
    }
    Ok(())
}

fn server_config(dir: &Path) -> Result<ServerConfig, Box<dyn Error>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let list = CertificateRevocationListDer::from_pem_file(dir.join("crl.pem"))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(dir)?), provider.clone())
        .with_crls([list])
        .enforce_revocation_expiration()
        .build()?;
    let (chain, key) = identity(dir, "server")?;
    Ok(ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?)
}

fn client_config(dir: &Path, name: &str) -> Result<ClientConfig, Box<dyn Error>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = identity(dir, name)?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(dir)?)
        .with_client_auth_cert(chain, key)?)
}

fn roots(dir: &Path) -> Result<RootCertStore, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem"))?)?;
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(dir: &Path, name: &str) -> Result<Identity, Box<dyn Error>> {
    let chain = vec![CertificateDer::from_pem_file(dir.join(format!("{name}.pem")))?];
    Ok((chain, PrivateKeyDer::from_pem_file(dir.join(format!("{name}-key.pem")))?))
}
