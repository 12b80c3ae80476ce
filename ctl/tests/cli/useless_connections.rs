//! A worker that accepts connections and drops them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::fake_worker::{ID, server_config};
use crate::jobctl::{Ran, as_client, show};
use crate::pki::Pki;

/// Accepts TLS and closes, as a worker does with a certificate that it verifies and can't use.
struct Dropper {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Dropper {
    fn new(pki: &Pki) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(Arc::new(server_config(pki)));
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                drop(acceptor.accept(tcp).await);
            }
        });
        Self { address, connections, _runtime: runtime }
    }

    /// What `jobctl` says in the end, within a time that is no hurry, and how often it connected.
    fn asked(&self, pki: &Pki, args: &[&str]) -> (Ran, usize) {
        let before = self.connections.load(Ordering::Relaxed);
        let mut child = as_client(pki, "alice", self.address, args).spawn().expect("jobctl runs");
        let deadline = Instant::now() + Duration::from_secs(20);
        while child.try_wait().expect("our own child").is_none() {
            if Instant::now() > deadline {
                child.kill().expect("it runs");
                let connections = self.connections.load(Ordering::Relaxed) - before;
                panic!("{args:?} does not end; {connections} connections");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let ran = Ran::from(child.wait_with_output().expect("jobctl ends"));
        (ran, self.connections.load(Ordering::Relaxed) - before)
    }
}

#[test]
fn a_worker_that_drops_each_connection_is_asked_less_and_less_often_and_given_up() {
    let pki = Pki::new();
    let dropper = Dropper::new(&pki);
    for (command, job, code) in
        [("run", "true", 125), ("start", "true", 1), ("wait", ID, 125), ("stream", ID, 1)]
    {
        let (ran, connections) = dropper.asked(&pki, &[command, "--reconnect-timeout", "1s", job]);
        show("a worker that drops each connection", &ran);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        // At once, then after 0.1, 0.2, 0.4 s, and at the end.
        assert!((3..=5).contains(&connections), "{connections} connections: {ran:?}");
        assert!(ran.stderr.contains("gave up after 1s without an answer"), "{ran:?}");
        assert!(!ran.stderr.contains("may have been started"), "{ran:?}");
    }
}

#[test]
fn a_start_that_nobody_took_is_not_told_as_started() {
    let pki = Pki::new();
    let dropper = Dropper::new(&pki);
    for command in ["run", "start"] {
        let (ran, connections) = dropper.asked(&pki, &[command, "--no-reconnect", "true"]);
        assert_eq!(connections, 1, "{ran:?}");
        assert!(!ran.stderr.contains("may have been started"), "{ran:?}");
    }
}
