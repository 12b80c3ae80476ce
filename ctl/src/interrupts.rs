//! Signals that people and service managers send to jobctl. One that was ignored when jobctl started (nohup(1), a shell's
//! `&` in a script) stays ignored.

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};

/// Interrupts this close together are one: a terminal signals the whole process group, and a wrapper such as timeout(1)
/// forwards what it got itself.
const TOGETHER: Duration = Duration::from_millis(500);

/// Ctrl-C (SIGINT) and SIGTERM. Once this exists neither ends the process any more.
pub(crate) struct Interrupts {
    interrupt: Listener,
    terminate: Listener,
    counter: Counter,
}

impl Interrupts {
    /// # Errors
    /// The handlers can't be installed.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let [interrupt, terminate] = listen([Signal::SIGINT, Signal::SIGTERM])?;
        Ok(Self { interrupt, terminate, counter: Counter::default() })
    }

    /// The next one, counted or not.
    pub(crate) async fn next(&mut self) -> Signal {
        let signal = either(&mut self.interrupt, &mut self.terminate).await;
        self.counter.add(Instant::now());
        signal
    }

    /// Returns as soon as `count` separate ones have come. Nothing is lost when this is dropped before.
    pub(crate) async fn reach(&mut self, count: u32) {
        while self.counter.count < count {
            self.next().await;
        }
    }
}

/// SIGHUP and SIGQUIT (Ctrl-\): jobctl is to leave. Once this exists neither ends the process by itself any more.
pub(crate) struct Leaves {
    hangup: Listener,
    quit: Listener,
}

impl Leaves {
    /// # Errors
    /// The handlers can't be installed.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let [hangup, quit] = listen([Signal::SIGHUP, Signal::SIGQUIT])?;
        Ok(Self { hangup, quit })
    }

    pub(crate) async fn next(&mut self) -> Signal {
        either(&mut self.hangup, &mut self.quit).await
    }
}

/// `None` for a signal that stays ignored.
struct Listener {
    signal: Signal,
    stream: Option<unix::Signal>,
}

fn listen(signals: [Signal; 2]) -> anyhow::Result<[Listener; 2]> {
    let listen = |signal: Signal| -> anyhow::Result<Listener> {
        let is_ignored = *IGNORED & bit(signal) != 0;
        let kind = SignalKind::from_raw(signal as i32);
        let stream = (!is_ignored).then(|| unix::signal(kind)).transpose();
        Ok(Listener { signal, stream: stream.with_context(|| format!("cannot handle {signal}"))? })
    };
    let [first, second] = signals;
    Ok([listen(first)?, listen(second)?])
}

async fn either(first: &mut Listener, second: &mut Listener) -> Signal {
    tokio::select! {
        signal = first.recv() => signal,
        signal = second.recv() => signal,
    }
}

impl Listener {
    async fn recv(&mut self) -> Signal {
        match &mut self.stream {
            Some(stream) => _ = stream.recv().await,
            None => std::future::pending().await,
        }
        self.signal
    }
}

/// The signals that this process ignored before it handled any (proc_pid_status(5)); none where there is no /proc.
static IGNORED: LazyLock<u64> = LazyLock::new(|| {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status).unwrap_or(0)
});

fn ignored_in(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

/// Counts interrupts, those that come together as one.
#[derive(Debug, Default)]
struct Counter {
    count: u32,
    /// When the latest one that counts came.
    latest: Option<Instant>,
}

impl Counter {
    fn add(&mut self, now: Instant) {
        if self.latest.is_none_or(|latest| now.duration_since(latest) > TOGETHER) {
            self.count += 1;
            self.latest = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_that_come_together_count_once() {
        let start = Instant::now();
        let mut counter = Counter::default();
        // Since the latest one that counted: who holds Ctrl-C down gets away, too.
        for (msec, count) in [(0, 1), (1, 1), (500, 1), (501, 2), (900, 2), (1001, 2), (1002, 3), (5000, 4)] {
            counter.add(start + Duration::from_millis(msec));
            assert_eq!(counter.count, count, "after {msec} ms");
        }
    }

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\nSigCgt:\t0000000000000000\n";
        let ignored = ignored_in(status).expect("a mask");
        let is_ignored = |signal| ignored & bit(signal) != 0;
        assert!(is_ignored(Signal::SIGHUP) && is_ignored(Signal::SIGINT) && is_ignored(Signal::SIGPIPE));
        assert!(!is_ignored(Signal::SIGQUIT) && !is_ignored(Signal::SIGTERM));
        assert_eq!(ignored_in(""), None);
    }
}
