//! Small writes that follow one another leave together. HTTP/2 begins with a preface, settings, the first request's
//! headers and its message, each flushed by itself: as four TLS records they would wake the worker four times.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one TLS record holds at most.
const RECORD_BYTES: usize = 16 << 10;

/// A connection whose flushes wait until nobody in this process has more to write at once.
pub(crate) struct Gather<S> {
    stream: S,
    unsent: Vec<u8>,
    /// How much of `unsent` was there when the others were last given their turn.
    waited_at: usize,
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, unsent: Vec::new(), waited_at: 0 }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => _ = self.unsent.drain(..written),
            }
        }
        self.waited_at = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unsent.len() + data.len() > RECORD_BYTES {
            ready!(this.poll_send(cx))?;
        }
        if data.len() > RECORD_BYTES {
            return Pin::new(&mut this.stream).poll_write(cx, data);
        }
        this.unsent.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unsent.len() > this.waited_at {
            this.waited_at = this.unsent.len();
            // Wakes this task when all others that can go on have done so.
            return pin!(tokio::task::yield_now()).poll(cx).map(Ok);
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Keeps each write apart; fails when it has had as many as it takes.
    struct Log {
        writes: Vec<Vec<u8>>,
        takes: usize,
    }

    impl AsyncWrite for Log {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            if self.writes.len() == self.takes {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            self.writes.push(data.to_vec());
            Poll::Ready(Ok(data.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn gather(takes: usize) -> Gather<Log> {
        Gather::new(Log { writes: Vec::new(), takes })
    }

    #[tokio::test]
    async fn what_is_written_while_a_flush_waits_leaves_with_it() {
        let gather = &RefCell::new(gather(9));
        let flush = poll_fn(|cx| Pin::new(&mut *gather.borrow_mut()).poll_flush(cx));
        let write = |data| poll_fn(move |cx| Pin::new(&mut *gather.borrow_mut()).poll_write(cx, data));
        write(b"preface,").await.expect("room");
        let others = async {
            write(b"headers,").await.expect("room");
            tokio::task::yield_now().await;
            write(b"message").await.expect("room");
        };
        tokio::join!(async { flush.await.expect("sent") }, others);
        assert_eq!(gather.borrow().stream.writes, [b"preface,headers,message"]);
    }

    #[tokio::test]
    async fn nothing_waits_for_more_than_there_is() {
        let mut gather = gather(9);
        for data in ["one", "two"] {
            gather.write_all(data.as_bytes()).await.expect("room");
            gather.flush().await.expect("sent");
        }
        gather.write_all(b"three").await.expect("room");
        gather.shutdown().await.expect("sent");
        assert_eq!(gather.stream.writes, [&b"one"[..], b"two", b"three"]);
    }

    #[tokio::test]
    async fn much_is_not_kept() {
        let data: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let mut gather = gather(9);
        gather.write_all(&data[..10]).await.expect("room");
        gather.write_all(&data[10..20_000]).await.expect("room");
        for part in data[20_000..].chunks(16_000) {
            gather.write_all(part).await.expect("room");
        }
        assert!(gather.unsent.len() <= RECORD_BYTES);
        gather.flush().await.expect("sent");
        assert!(gather.stream.writes.concat() == data);
    }

    #[tokio::test]
    async fn an_error_is_told_by_the_flush() {
        let mut gather = gather(0);
        gather.write_all(b"kept").await.expect("room");
        assert_eq!(gather.flush().await.expect_err("broken").kind(), io::ErrorKind::BrokenPipe);
    }
}
