//! Makes a worker heavy, by what any client can do that is allowed to: requests that it has to hold because they do not
//! end. Its budget for a client's unfinished requests is raised for that.
//!
//! The product has no setting to be big, and gets none for this. A call of one request is answered when the client has said
//! that no second follows; as long as it does not, the first is held.

use std::time::Duration;

use anyhow::ensure;
use bytes::{BufMut, Bytes};
use futures_util::stream::{self, StreamExt};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

use super::subject::{Subject, channel};
use crate::census;

/// Below the 8 MiB that the worker takes.
const REQUEST_BYTES: usize = 8_000_000;

/// What the worker is started with.
pub(super) const HELD: [&str; 2] = ["--max-request-bytes-per-client", "2147483648"];

/// Between two looks at what has arrived.
const SENDING: Duration = Duration::from_millis(20);

/// Calls on one connection; the worker takes 128.
const CALLS_PER_CONNECTION: usize = 100;

/// A load on a worker, as long as this lives.
pub(super) struct Weight<'a> {
    subject: &'a Subject,
    calls: Vec<tokio::task::JoinHandle<()>>,
}

impl<'a> Weight<'a> {
    pub(super) fn of(subject: &'a Subject) -> Self {
        Self { subject, calls: Vec::new() }
    }

    /// Goes on until the worker holds so much.
    pub(super) fn load(&mut self, kib: u32) -> anyhow::Result<()> {
        let request = start_request();
        let mut connection = None;
        while self.subject.kib("RssAnon")? < f64::from(kib) {
            ensure!(self.calls.len() < 10 * CALLS_PER_CONNECTION, "the worker does not hold what it is sent");
            if self.calls.len().is_multiple_of(CALLS_PER_CONNECTION) {
                connection = Some(self.subject.runtime.block_on(channel(&self.subject.worker))?);
            }
            let mut grpc = Grpc::new(connection.clone().expect("made above"));
            let messages = stream::iter([request.clone()]).chain(stream::pending());
            let call = async move {
                if grpc.ready().await.is_ok() {
                    let path = PathAndQuery::from_static("/jobworker.v1.JobWorker/Start");
                    let _ = grpc.client_streaming(Request::new(messages), path, Raw).await;
                }
            };
            self.calls.push(self.subject.runtime.spawn(call));
            // The connection moves only while the runtime runs.
            self.subject.runtime.block_on(async { tokio::time::sleep(SENDING).await });
        }
        Ok(())
    }
}

impl Subject {
    /// How many threads the worker has.
    pub(super) fn threads(&self) -> usize {
        census::threads(self.worker.pid())
    }
}

/// `StartRequest { spec: JobSpec { command } }` with a command that is that long.
fn start_request() -> Bytes {
    let command = vec![b'x'; REQUEST_BYTES];
    let spec = field(1, &command);
    field(2, &spec).into()
}

/// A field of bytes, as protobuf writes it.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = value.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).expect("7 bits") | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).expect("7 bits"));
    bytes.extend_from_slice(value);
    bytes
}

/// Messages that are bytes already. No answer is expected.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        Ok(None)
    }
}
