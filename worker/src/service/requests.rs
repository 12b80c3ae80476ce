//! How many bytes of requests a client has underway: a cap per client, over all its connections. A request counts
//! from its first byte until it is decoded or given up, however slowly it comes, so that many of them, none of which is
//! too large, can't fill the memory.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::status::CallError;
use crate::tally::{Share, Tally};

/// The bytes underway by the client's name.
#[derive(Clone, Debug)]
pub(super) struct Requests(Tally);

/// A request's body whose bytes count.
struct Counted {
    body: Body,
    share: Share,
    max_bytes: usize,
}

impl Requests {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self(Tally::new(max_bytes))
    }

    /// The body of a request of this client; reading it fails where the client has too much underway.
    pub(super) fn count(&self, name: &str, body: Body) -> Body {
        match self.0.take(name, 0) {
            Some(share) => Body::new(Counted { body, share, max_bytes: self.0.max() }),
            None => body,
        }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let length = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        if self.share.grow(length) {
            return Poll::Ready(frame);
        }
        let error = CallError::Underway { name: self.share.name().to_owned(), max_bytes: self.max_bytes };
        Poll::Ready(Some(Err(error.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
