//! A way to the worker that can be cut: whoever is connected at that moment loses the connection, in mid-word.

use std::io;
use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards from a port of its own to the worker's.
pub(super) struct Proxy {
    address: SocketAddr,
    cuts: watch::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn start(worker: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let cuts = watch::Sender::new(());
        let accepting = tokio::spawn(accept(listener, worker, cuts.clone()));
        Ok(Self { address, cuts, accepting })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops every connection that there is.
    pub(super) fn cut(&self) {
        self.cuts.send_replace(());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, worker: SocketAddr, cuts: watch::Sender<()>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut cut = cuts.subscribe();
        tokio::spawn(async move {
            // Where the worker is down the client is dropped, as a host whose port is closed would do.
            let Ok(mut server) = TcpStream::connect(worker).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                _ = cut.changed() => {}
            }
        });
    }
}
