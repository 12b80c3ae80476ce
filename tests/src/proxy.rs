//! A broken network: a proxy on loopback that cuts connections in the middle and refuses new ones.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Passes connections on to a worker, as long as it is not told otherwise.
pub struct Proxy {
    /// Where it listens, or did before it refused connections.
    pub address: SocketAddr,
    road: Arc<Road>,
    /// The listener and the connections; empty while connections are refused.
    tasks: Mutex<JoinSet<()>>,
    runtime: Runtime,
}

/// Where connections lead to, and how far.
struct Road {
    worker: Mutex<String>,
    /// After how many bytes from the worker to cut the next connection, that after it, and so on.
    cuts: Mutex<VecDeque<u64>>,
}

impl Proxy {
    /// To a worker's address. Each connection is cut after so many bytes from the worker; those after the last of
    /// `cuts` are not.
    ///
    /// # Panics
    /// When there is no free port, as everything here does.
    pub fn new(worker: &str, cuts: impl IntoIterator<Item = u64>) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let road =
            Road { worker: Mutex::new(worker.to_owned()), cuts: Mutex::new(cuts.into_iter().collect()) };
        let proxy = Self {
            address: listener.local_addr().expect("an address"),
            road: Arc::new(road),
            tasks: Mutex::default(),
            runtime,
        };
        proxy.serve(listener);
        proxy
    }

    /// Breaks all connections and refuses new ones.
    pub fn refuse(&self) {
        let mut tasks = self.tasks.lock().expect("no panic while it was held");
        self.runtime.block_on(tasks.shutdown());
    }

    /// Passes connections on again, to this worker.
    pub fn lead_to(&self, worker: &str) {
        worker.clone_into(&mut self.road.worker.lock().expect("no panic while it was held"));
        let listener =
            self.runtime.block_on(TcpListener::bind(self.address)).expect("the port is still ours");
        self.serve(listener);
    }

    /// How many connections are still to be cut.
    pub fn cuts_left(&self) -> usize {
        self.road.cuts.lock().expect("no panic while it was held").len()
    }

    fn serve(&self, listener: TcpListener) {
        let mut tasks = self.tasks.lock().expect("no panic while it was held");
        tasks.spawn_on(serve(listener, Arc::clone(&self.road)), self.runtime.handle());
    }
}

/// The connections end with this.
async fn serve(listener: TcpListener, road: Arc<Road>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let road = Arc::clone(&road);
        // A side that has gone is what this is for.
        connections.spawn(async move { drop(road.pass(client).await) });
    }
}

impl Road {
    async fn pass(&self, mut client: TcpStream) -> io::Result<()> {
        let address = self.worker.lock().expect("no panic while it was held").clone();
        let mut worker = TcpStream::connect(address).await?;
        let cut = self.cuts.lock().expect("no panic while it was held").pop_front();
        let (mut from_client, mut to_client) = client.split();
        let (from_worker, mut to_worker) = worker.split();
        let mut from_worker = from_worker.take(cut.unwrap_or(u64::MAX));
        tokio::select! {
            up = copy(&mut from_client, &mut to_worker) => up,
            down = copy(&mut from_worker, &mut to_client) => down,
        }?;
        Ok(())
    }
}
