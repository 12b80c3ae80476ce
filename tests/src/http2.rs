//! HTTP/2 by hand (RFC 9113), for clients that don't keep to it: frames are written as they are asked for, and nothing
//! is read unless one says so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Worker;
use crate::client::tls;
use crate::wait::PATIENCE;

/// How long a peer that takes no more bytes is given before it is said to take none.
const STALLED: Duration = Duration::from_secs(3);

/// Frame types.
pub mod kind {
    /// A piece of a message.
    pub const DATA: u8 = 0;
    /// A request's headers.
    pub const HEADERS: u8 = 1;
    /// Which stream comes before which.
    pub const PRIORITY: u8 = 2;
    /// The end of a stream before its time.
    pub const RST_STREAM: u8 = 3;
    /// What a side wants of the other.
    pub const SETTINGS: u8 = 4;
    /// A question that has to be answered.
    pub const PING: u8 = 6;
    /// The end of a connection, with the reason.
    pub const GOAWAY: u8 = 7;
    /// Room for more bytes.
    pub const WINDOW_UPDATE: u8 = 8;
    /// More headers.
    pub const CONTINUATION: u8 = 9;
}

/// The flag of the last frame of a stream's side.
pub const END_STREAM: u8 = 1;
/// The flag of an answer to a PING or to SETTINGS.
pub const ACK: u8 = 1;
/// The flag of headers that are whole.
pub const END_HEADERS: u8 = 4;

/// The code of a GOAWAY for a peer that asks too much.
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A verified connection on which nothing was said.
pub struct Http2 {
    stream: TlsStream<TcpStream>,
}

/// How a connection ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// The last GOAWAY's code, and what it said beside it.
    pub goaway: Option<(u32, String)>,
}

/// What became of bytes for a peer that may not want them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took them.
    Taken,
    /// The peer reads no more, and the buffers in between are full.
    Stalled,
    /// The peer is gone.
    Closed,
}

impl Http2 {
    /// Shakes hands as somebody, and says nothing.
    ///
    /// # Errors
    /// What TLS or TCP says.
    pub async fn connect(worker: &Worker, name: &str) -> io::Result<Self> {
        let identity = worker.pki.identity(name);
        let config = tls(&worker.pki.ca(), Some(&identity), rustls::ALL_VERSIONS);
        let tcp = TcpStream::connect(&worker.address).await?;
        let server = ServerName::try_from("localhost").expect("a name");
        Ok(Self { stream: TlsConnector::from(Arc::new(config)).connect(server, tcp).await? })
    }

    /// The same, and says that it speaks HTTP/2, with everything at its default.
    ///
    /// # Errors
    /// What TLS or TCP says.
    pub async fn begin(worker: &Worker, name: &str) -> io::Result<Self> {
        let mut connection = Self::connect(worker, name).await?;
        let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(kind::SETTINGS, 0, 0, &[])].concat();
        connection.stream.write_all(&preface).await?;
        connection.stream.flush().await?;
        Ok(connection)
    }

    /// Sends bytes, usually frames.
    pub async fn send(&mut self, bytes: &[u8]) -> Sent {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(STALLED, sending).await {
            Ok(Ok(())) => Sent::Taken,
            Ok(Err(_)) => Sent::Closed,
            Err(_) => Sent::Stalled,
        }
    }

    /// Reads until there is nothing more to read for a while; whether the peer has gone.
    pub async fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match timeout(Duration::from_millis(50), self.stream.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => return true,
                Ok(Ok(_)) => {}
                Err(_) => return false,
            }
        }
    }

    /// Sends a frame again and again, up to so many times, and reads whatever comes meanwhile. How often it was sent when
    /// the peer had enough; `None` if it never had.
    ///
    /// # Panics
    /// When the peer takes no more and does not end the connection.
    pub async fn flood(self, frame: &[u8], times: usize) -> Option<usize> {
        const BATCH: usize = 50;
        let (mut reader, mut writer) = tokio::io::split(self.stream);
        let read = tokio::spawn(async move {
            let mut buffer = [0; 16 << 10];
            while reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        });
        let frames = frame.repeat(BATCH);
        let flooding = async {
            for batch in 0..times / BATCH {
                let sent = async {
                    writer.write_all(&frames).await?;
                    writer.flush().await
                };
                if sent.await.is_err() {
                    return Some(batch * BATCH);
                }
            }
            // The last may have been too many.
            timeout(STALLED, read).await.is_ok().then_some(times)
        };
        timeout(PATIENCE, flooding).await.expect("the worker reads on, or ends the connection")
    }

    /// Reads to the end of the connection.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn ended(mut self) -> Ended {
        let mut bytes = Vec::new();
        // A reset is an end, too; what came before it is kept.
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut bytes)).await;
        let _ = read.expect("the worker ends the connection");
        let mut ended = Ended::default();
        while let Some((header, rest)) = bytes.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let Some((payload, rest)) = rest.split_at_checked(length) else { break };
            if header[3] == kind::GOAWAY
                && let Some((code, debug)) = payload.get(4..).and_then(|code| code.split_first_chunk::<4>())
            {
                ended.goaway = Some((u32::from_be_bytes(*code), String::from_utf8_lossy(debug).into_owned()));
            }
            bytes = rest.to_vec();
        }
        ended
    }
}

/// A frame.
///
/// # Panics
/// When it is longer than a frame can be.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [0, length @ ..] = u32::try_from(payload.len()).expect("a frame's length").to_be_bytes() else {
        panic!("{} bytes are no frame", payload.len())
    };
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a call, without their frame; `more`: metadata.
pub fn call(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let path = format!("/jobworker.v1.JobWorker/{method}");
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path.as_str()),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    usual.iter().chain(more).flat_map(|(name, value)| literal(name, value)).collect()
}

/// A gRPC message around these bytes of protobuf; `length`: what it says of them.
pub fn message(length: usize, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).expect("a message's length");
    [&[0], &length.to_be_bytes()[..], bytes].concat()
}

/// A header that takes no place in the table, without Huffman coding (RFC 7541, 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0], &string(name)[..], &string(value)].concat()
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    match text.len() {
        short @ 0..127 => bytes.extend(u8::try_from(short)),
        long => {
            bytes.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                bytes.push(0x80 | rest.to_le_bytes()[0]);
                rest /= 128;
            }
            bytes.extend(u8::try_from(rest));
        }
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
