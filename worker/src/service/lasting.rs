//! An answer that lasts, of whichever service: it ends when its client's certificate does, or at the call's deadline.
//!
//! What of ours lasts has a `Standing`, which says so first and with more words; this is for the services beside it, health
//! and reflection, which know nothing of clients.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture, Either};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::authorize::audit_cut;
use super::deadline::Deadline;
use super::status::CallError;
use crate::audit::Asked;
use crate::tls::Peer;

/// `body`, or so much of it as comes before its client is cut off or the deadline has passed.
pub(super) fn until_cut(body: Body, peer: &Peer, path: &str, deadline: Option<Deadline>) -> Body {
    if http_body::Body::is_end_stream(&body) {
        return body;
    }
    let (peer, action) = (peer.clone(), path.to_owned());
    let cut_off = async move {
        let cut = peer.chain.lost().await;
        audit_cut(&peer, &Asked { action, ..Asked::default() }, &cut);
        CallError::from(cut)
    };
    let lost = async move {
        let passed = match deadline {
            Some(deadline) => Either::Left(deadline.passed()),
            None => Either::Right(future::pending()),
        };
        tokio::select! {
            error = cut_off => error.into(),
            error = passed => error.into(),
        }
    };
    Body::new(Lasting { body, lost: Some(lost.boxed()) })
}

struct Lasting {
    body: Body,
    /// `None` once it has come true.
    lost: Option<BoxFuture<'static, Status>>,
}

impl http_body::Body for Lasting {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(lost) = &mut this.lost else { return Poll::Ready(None) };
        // Its own word first: it may say that it is lost, too.
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => {}
            frame => return frame,
        }
        lost.poll_unpin(cx).map(|status| {
            this.lost = None;
            let mut trailers = HeaderMap::new();
            Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.lost.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
