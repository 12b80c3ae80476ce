//! The connection that shows the spawner that a worker is there, and the worker that the spawner is.

use std::path::PathBuf;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// It lasts as long as this lives, and the spawner.
pub(super) struct Attachment {
    /// Cancelled once the spawner has gone, or another attachment has taken this one's place.
    pub(super) gone: CancellationToken,
    watcher: JoinHandle<()>,
}

impl Attachment {
    pub(super) fn new(mut connection: UnixStream, socket: PathBuf) -> Self {
        let gone = CancellationToken::new();
        let tell = gone.clone().drop_guard();
        let watcher = tokio::spawn(async move {
            let _tell = tell;
            // The spawner says nothing more: whatever can be read is its end.
            let _ = connection.read_u8().await;
            tracing::warn!(socket = %socket.display(), "the spawner is gone; running jobs live on under their shims");
        });
        Self { gone, watcher }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}
