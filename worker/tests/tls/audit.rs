//! What the workers of these tests write to their audit log.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

pub(crate) type Log = Arc<Mutex<Vec<u8>>>;

/// The log of all workers in this process. Begins with the first call.
pub(crate) fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let lines = Arc::clone(&log);
        let writer = move || Lines(Arc::clone(&lines));
        tracing_subscriber::fmt().json().flatten_event(true).with_writer(writer).init();
        log
    })
}

struct Lines(Log);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The audit lines about a client so far.
pub(crate) fn lines(peer: SocketAddr) -> Vec<serde_json::Value> {
    let log = log().lock().unwrap().clone();
    let text = String::from_utf8(log).unwrap();
    let parsed = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    parsed.filter(|line| line["target"] == "audit" && line["peer"] == peer.to_string()).collect()
}

/// The only audit line about a client, once it is there.
pub(crate) async fn only_line(peer: SocketAddr) -> serde_json::Value {
    until("an audit line", || (!lines(peer).is_empty()).then_some(())).await;
    let mut lines = lines(peer);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.remove(0)
}

/// Looks until there is something, for at most ten seconds.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within ten seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
