//! gRPC without a gRPC library: requests as they are written here, and each answer's status as it came.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Status;

use crate::Worker;
use crate::client::tls;

/// A connection.
#[derive(Clone)]
pub struct Raw {
    sender: SendRequest<Full<Bytes>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's status.
    pub http: u16,
    /// gRPC's, from the headers or the trailers; `None` if neither has one.
    pub status: Option<Status>,
    /// The body.
    pub body: Bytes,
}

impl Raw {
    /// Connects as somebody.
    ///
    /// # Errors
    /// What TLS or TCP says.
    ///
    /// # Panics
    /// When the worker does not speak HTTP/2.
    pub async fn connect(worker: &Worker, name: &str) -> io::Result<Self> {
        let config = tls(&worker.pki.ca(), Some(&worker.pki.identity(name)), rustls::ALL_VERSIONS);
        let tcp = TcpStream::connect(&worker.address).await?;
        let server = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(server, tcp).await?;
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Calls `path` with these bytes for a body, and waits for all of the answer.
    ///
    /// # Errors
    /// When there is none.
    ///
    /// # Panics
    /// When a header is none.
    pub async fn call(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> hyper::Result<Answer> {
        let mut request = http::Request::post(format!("http://localhost{path}"));
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(headers)
        {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let (http, in_headers) = (response.status().as_u16(), Status::from_header_map(response.headers()));
        let body = response.into_body().collect().await?;
        let status = in_headers.or_else(|| Status::from_header_map(body.trailers()?));
        Ok(Answer { http, status, body: body.to_bytes() })
    }
}

/// A request's body: one message.
pub fn message(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    crate::http2::message(bytes.len(), &bytes)
}
