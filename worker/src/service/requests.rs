//! How many bytes of requests a client has underway: a cap per client, over all its connections. A request counts
//! from its first byte until it is decoded or given up, however slowly it comes, so that many of them, none of which is
//! too large, can't fill the memory. And none may be too large.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::messages::{Messages, TooLong};
use super::status::CallError;
use crate::tally::{Share, Tally};

/// The bytes underway by the client's name.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    underway: Tally,
    /// The longest message.
    max_bytes: usize,
}

/// A request's body whose bytes count.
struct Counted {
    body: Body,
    share: Share,
    messages: Messages,
    max_bytes: usize,
    max_bytes_per_client: usize,
}

impl Requests {
    pub(super) fn new(max_bytes: usize, max_bytes_per_client: usize) -> Self {
        Self { underway: Tally::new(max_bytes_per_client), max_bytes }
    }

    /// The body of a request of this client; reading it fails where it is too large, or the client has too much
    /// underway.
    pub(super) fn count(&self, name: &str, body: Body) -> Body {
        let Self { underway, max_bytes } = self;
        match underway.take(name, 0) {
            Some(share) => Body::new(Counted {
                body,
                share,
                messages: Messages::new(*max_bytes),
                max_bytes: *max_bytes,
                max_bytes_per_client: underway.max(),
            }),
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
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        let data = data.map_or(&[][..], |data| data);
        if let Err(TooLong(bytes)) = self.messages.pass(data) {
            let error = CallError::TooLarge { bytes, max_bytes: self.max_bytes };
            return Poll::Ready(Some(Err(error.into())));
        }
        if self.share.grow(data.len()) {
            return Poll::Ready(frame);
        }
        let max_bytes = self.max_bytes_per_client;
        let error = CallError::Underway { name: self.share.name().to_owned(), max_bytes };
        Poll::Ready(Some(Err(error.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
