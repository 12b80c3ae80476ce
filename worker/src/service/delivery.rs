//! The body of a stream's response: messages that are framed already, then the trailers.
//!
//! tonic decodes the request, writes the headers and knows errors; but the body that it makes copies every message. So
//! `Stream`'s answer carries its own body with it, in its extensions, and outside of tonic that is put in the place of
//! the other. What small messages are there at a time go out as one frame, as they do with tonic.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, future, stream};
use http::HeaderMap;
use http_body::Frame;
use jobworker_proto::v1;
use tonic::body::Body;
use tonic::{Response, Status};

/// A message of so many bytes is sent as it is; smaller ones are copied together.
const LARGE_BYTES: usize = 16 << 10;

/// As much as is copied together, in bytes.
const GATHERED_BYTES: usize = 64 << 10;

/// What tonic is given for a body: nobody reads it.
pub(super) type Placeholder = stream::Once<future::Ready<Result<v1::StreamResponse, Status>>>;

/// The body, on its way past tonic.
#[derive(Clone)]
struct Carried(Arc<Mutex<Option<Body>>>);

struct Delivery<S> {
    messages: S,
    gathered: BytesMut,
    /// What goes behind it.
    next: Option<Frame<Bytes>>,
    ended: bool,
}

/// An answer with framed messages for a body. The last may be an error.
pub(super) fn response(
    messages: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
) -> Response<Placeholder> {
    let lost = Err(Status::internal("the stream's body was lost on its way"));
    let mut response = Response::new(stream::once(future::ready(lost)));
    let body = Body::new(Delivery::new(Box::pin(messages)));
    response.extensions_mut().insert(Carried(Arc::new(Mutex::new(Some(body)))));
    response
}

/// Puts the body that an answer carries, if any, in its place.
pub(super) fn unpack(mut response: http::Response<Body>) -> http::Response<Body> {
    let carried = response.extensions_mut().remove::<Carried>();
    match carried.and_then(|Carried(body)| body.lock().unwrap_or_else(PoisonError::into_inner).take()) {
        Some(body) => response.map(|_| body),
        None => response,
    }
}

impl<S> Delivery<S> {
    fn new(messages: S) -> Self {
        Self { messages, gathered: BytesMut::new(), next: None, ended: false }
    }

    /// What was gathered, if anything was; and `frame`, at once or next.
    fn pass_on(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if self.gathered.is_empty() {
            return frame;
        }
        self.next = Some(frame);
        self.take_gathered()
    }

    /// With its memory: who waits holds none.
    fn take_gathered(&mut self) -> Frame<Bytes> {
        Frame::data(std::mem::take(&mut self.gathered).freeze())
    }
}

impl<S: Stream<Item = Result<Bytes, Status>> + Unpin> http_body::Body for Delivery<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(frame) = this.next.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        while this.gathered.len() < GATHERED_BYTES {
            let polled = this.messages.poll_next_unpin(cx);
            if polled.is_pending() && !this.gathered.is_empty() {
                break;
            }
            let end = match ready!(polled) {
                Some(Ok(message)) if message.len() < LARGE_BYTES => {
                    this.gathered.extend_from_slice(&message);
                    continue;
                }
                Some(Ok(message)) => return Poll::Ready(Some(Ok(this.pass_on(Frame::data(message))))),
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            this.ended = true;
            let trailers = trailers(&end).map(|trailers| this.pass_on(Frame::trailers(trailers)));
            return Poll::Ready(Some(trailers));
        }
        Poll::Ready(Some(Ok(this.take_gathered())))
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.next.is_none()
    }
}

fn trailers(status: &Status) -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}

#[cfg(test)]
mod tests;
