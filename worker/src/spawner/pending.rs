//! A connection to the spawner whose request has not arrived whole.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::protocol::{MAX_LINE_BYTES, Request};

/// Read as it comes, without ever waiting.
pub(super) struct Pending {
    pub(super) connection: UnixStream,
    pub(super) until: Instant,
    line: Vec<u8>,
}

impl Pending {
    /// A non-blocking connection, which has until then to say what it wants.
    pub(super) fn new(connection: UnixStream, until: Instant) -> Self {
        Self { connection, until, line: Vec::new() }
    }

    /// The request, once its line is whole.
    pub(super) fn read(&mut self) -> io::Result<Option<Request>> {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.connection.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.line.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if self.line.len() > MAX_LINE_BYTES {
                return Err(io::Error::other(format!("a request is longer than {MAX_LINE_BYTES} bytes")));
            }
            if self.line.ends_with(b"\n") {
                return Ok(Some(serde_json::from_slice(&self.line)?));
            }
        }
        if self.until <= Instant::now() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(None)
    }

    /// The request as it came.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }
}
