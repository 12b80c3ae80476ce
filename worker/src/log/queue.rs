//! Lines that wait for stderr, and the thread that writes them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::notice;
use crate::config::log::Format;

/// Lines that wait may take so much memory: some thousands.
const QUEUE_BYTES: usize = 4 << 20;

/// Takes lines. Clones are the same queue.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    shared: Arc<Shared>,
    format: Format,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There are lines.
    more: Condvar,
    /// There are none, and none is being written.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that did not fit, since that was said last.
    unsaid: u64,
    /// All of them.
    dropped: u64,
    is_writing: bool,
}

impl Queue {
    /// Begins, with stderr.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(format: Format) -> io::Result<Self> {
        Self::start_with(format, write_to_stderr)
    }

    fn start_with(format: Format, mut write: impl FnMut(&[u8]) -> bool + Send + 'static) -> io::Result<Self> {
        let queue = Self { shared: Arc::default(), format };
        let thread = queue.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || thread.run(&mut write))?;
        Ok(queue)
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Has a line written, soon. Does not wait.
    pub(super) fn put(&self, line: &[u8]) {
        let mut waiting = self.shared.waiting();
        if waiting.bytes + line.len() > QUEUE_BYTES {
            waiting.drop_lines(1);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.to_vec());
        drop(waiting);
        self.shared.more.notify_one();
    }

    /// Returns when all is written, or that takes too long.
    pub(super) fn close(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        let mut waiting = self.shared.waiting();
        while waiting.is_writing || !waiting.lines.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = self.shared.idle.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many lines were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.waiting().dropped
    }

    /// Writes for ever: the end of the process ends it.
    fn run(&self, write: &mut impl FnMut(&[u8]) -> bool) {
        loop {
            let (lines, unsaid) = self.next();
            let mut failed = 0;
            for line in lines {
                failed += u64::from(!write(&line));
            }
            if unsaid > 0 && failed == 0 {
                write(&notice::dropped(self.format, unsaid));
            }
            let mut waiting = self.shared.waiting();
            if failed > 0 {
                waiting.unsaid += unsaid;
                waiting.drop_lines(failed);
            }
            waiting.is_writing = false;
            drop(waiting);
            self.shared.idle.notify_all();
        }
    }

    /// Waits for lines. The number is of those that were dropped behind them.
    fn next(&self) -> (VecDeque<Vec<u8>>, u64) {
        let mut waiting = self.shared.waiting();
        while waiting.lines.is_empty() {
            waiting = self.shared.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        (waiting.is_writing, waiting.bytes) = (true, 0);
        (std::mem::take(&mut waiting.lines), std::mem::take(&mut waiting.unsaid))
    }
}

impl Waiting {
    fn drop_lines(&mut self, lines: u64) {
        self.unsaid += lines;
        self.dropped += lines;
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all of it, and waits as long as that takes. False if it can't be written.
fn write_to_stderr(mut line: &[u8]) -> bool {
    let stderr = io::stderr();
    while !line.is_empty() {
        match nix::unistd::write(&stderr, line) {
            Ok(0) => return false,
            Ok(count) => line = &line[count..],
            Err(Errno::EINTR) => {}
            // Somebody has made the pipe non-blocking, for everybody who has it.
            Err(Errno::EAGAIN) => {
                let _ = poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that takes a line for each message, and tells which.
    fn stuck() -> (Queue, mpsc::Sender<()>, mpsc::Receiver<String>) {
        let ((go, gate), (told, lines)) = (mpsc::channel(), mpsc::channel());
        let write = move |line: &[u8]| {
            let _ = gate.recv();
            let _ = told.send(String::from_utf8_lossy(line).into_owned());
            true
        };
        (Queue::start_with(Format::Text, write).unwrap(), go, lines)
    }

    #[test]
    fn nobody_waits_and_what_is_dropped_is_counted_and_said() {
        let (queue, go, lines) = stuck();
        let line = [b'x'; 1 << 10];
        let fit = QUEUE_BYTES >> 10;
        queue.put(b"first\n");
        // The thread holds it, so that the queue is empty.
        while !queue.shared.waiting().is_writing {
            thread::yield_now();
        }
        for _ in 0..fit + 5 {
            queue.put(&line);
        }
        assert_eq!(queue.dropped(), 5);
        drop(go);
        assert_eq!(lines.recv().unwrap(), "first\n");
        let rest: Vec<_> = lines.iter().take(fit + 1).collect();
        assert!(rest[fit].contains("ERROR") && rest[fit].ends_with("lines=5\n"), "{:?}", rest[fit]);
        queue.put(b"last\n");
        queue.close(Duration::from_secs(60));
        assert_eq!(lines.try_recv().as_deref(), Ok("last\n"), "written before it was closed");
    }

    #[test]
    fn closing_takes_so_long_and_no_longer() {
        let (queue, _go, _lines) = stuck();
        queue.put(b"never written\n");
        queue.close(Duration::from_millis(10));
        assert!(queue.shared.waiting().is_writing || !queue.shared.waiting().lines.is_empty());
    }

    #[test]
    fn what_can_not_be_written_is_counted() {
        let queue = Queue::start_with(Format::Text, |_: &[u8]| false).unwrap();
        queue.put(b"one\n");
        queue.close(Duration::from_secs(60));
        assert_eq!(queue.dropped(), 1);
    }
}
