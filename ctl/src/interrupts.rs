//! Ctrl-C (SIGINT) and SIGTERM, counted.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Once this exists neither signal ends the process any more.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    count: u32,
}

impl Interrupts {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot handle SIGINT and SIGTERM");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            count: 0,
        })
    }

    /// Returns as soon as `count` have come. Nothing is lost when this is dropped before.
    pub(crate) async fn reach(&mut self, count: u32) {
        while self.count < count {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            self.count += 1;
        }
    }
}
