//! The audit log's writer: a thread that writes what others put into its queue, so that no call waits for a disk.
//!
//! ```text
//!  a line ──▶ queue, at most QUEUE_BYTES ──▶ writer ──▶ file, stdout or journal ──▶ (of an end) noted as told
//!               │ full                         │ not taken
//!               └──────────────▶ the log ◀─────┘
//! ```
//!
//! A line that can't be written goes to the log on stderr, marked as such; the log also says when that begins and when
//! it is over. Nobody waits and nothing is lost in silence.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::TARGET;
use super::destination::{Destination, Output};
use super::ends::{Book, Told};
use super::journald::Fields;

/// Lines that wait may take so much memory: thousands, and a disk that stands still for long.
const QUEUE_BYTES: usize = 8 << 20;

/// How long after an end was told that is made to survive a loss of power.
const SYNC_AFTER: Duration = Duration::from_secs(30);

/// How long the end of the process waits for the lines that are left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A line on its way.
#[derive(Debug)]
pub(super) struct Item {
    /// With its end.
    pub(super) json: String,
    pub(super) fields: Fields,
    /// The end that it tells.
    pub(super) told: Option<Told>,
}

/// Takes lines. Clones are the same writer.
#[derive(Clone)]
pub(super) struct Writer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something for the thread to do.
    wake: Condvar,
    /// It has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    /// Lines that did not fit since it was emptied.
    refused: usize,
    reopen: bool,
    closing: bool,
    has_ended: bool,
}

/// What the thread is to do.
struct Work {
    items: VecDeque<Item>,
    refused: usize,
    reopen: bool,
    closing: bool,
}

impl Writer {
    /// Begins.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(destination: Destination, output: Output, book: Arc<Book>) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let task =
            Task { shared: Arc::clone(&shared), destination, output, book, in_trouble: None, unsynced: None };
        thread::Builder::new().name("audit".to_owned()).spawn(move || task.run())?;
        Ok(Self { shared })
    }

    /// Has a line written, soon. Does not wait.
    pub(super) fn put(&self, item: Item) {
        let mut queue = self.shared.queue();
        if !queue.closing && queue.bytes + item.json.len() <= QUEUE_BYTES {
            queue.bytes += item.json.len();
            queue.items.push_back(item);
            drop(queue);
            self.shared.wake.notify_one();
            return;
        }
        queue.refused += 1;
        let (is_first, closing) = (queue.refused == 1, queue.closing);
        drop(queue);
        if is_first && !closing {
            tracing::error!("the audit log is too slow: lines go to this log until it has caught up");
        }
        log_instead(&item);
    }

    /// Opens the file anew.
    pub(super) fn reopen(&self) {
        self.shared.queue().reopen = true;
        self.shared.wake.notify_one();
    }

    /// Returns when everything is written, or that takes too long. What comes later goes to the log.
    pub(super) fn close(&self) {
        let mut queue = self.shared.queue();
        queue.closing = true;
        self.shared.wake.notify_one();
        let until = Instant::now() + CLOSE_TIMEOUT;
        while !queue.has_ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let lines = queue.items.len();
                tracing::error!(
                    lines,
                    "the audit log takes no lines: these and those that are being written are lost"
                );
                return;
            }
            queue = self.shared.ended.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work; none: it is time.
    fn next(&self, until: Option<Instant>) -> Option<Work> {
        let mut queue = self.queue();
        while queue.items.is_empty() && !queue.reopen && !queue.closing {
            queue = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return None,
                Some(left) => self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
        queue.bytes = 0;
        Some(Work {
            items: std::mem::take(&mut queue.items),
            refused: std::mem::take(&mut queue.refused),
            reopen: std::mem::take(&mut queue.reopen),
            closing: queue.closing,
        })
    }
}

struct Task {
    shared: Arc<Shared>,
    destination: Destination,
    output: Output,
    book: Arc<Book>,
    /// How many lines went to the log instead, since one did.
    in_trouble: Option<usize>,
    /// Since when an end was told that a loss of power would undo.
    unsynced: Option<Instant>,
}

impl Task {
    fn run(mut self) {
        // A limit on the size of files is an error of write(2), not the end of the process (setrlimit(2)).
        let mut too_large = SigSet::empty();
        too_large.add(Signal::SIGXFSZ);
        let _ = too_large.thread_block();
        loop {
            let Some(work) = self.shared.next(self.unsynced.map(|since| since + SYNC_AFTER)) else {
                self.sync();
                continue;
            };
            if work.refused > 0 {
                tracing::info!(
                    lines = work.refused,
                    "the audit log has caught up; so many lines are in this log instead"
                );
            }
            self.output.follow(work.reopen);
            if work.reopen
                && let Output::File(file) = &mut self.output
                && let Err(error) = file.append(b"")
            {
                self.tell_trouble(&error);
            }
            work.items.iter().for_each(|item| self.write(item));
            if work.closing && work.items.is_empty() {
                break;
            }
        }
        self.sync();
        self.shared.queue().has_ended = true;
        self.shared.ended.notify_all();
    }

    fn write(&mut self, item: &Item) {
        match self.output.write(item) {
            Ok(()) => {
                if let Some(lines) = self.in_trouble.take() {
                    let destination = &self.destination;
                    tracing::info!(
                        lines,
                        "the audit log goes to {destination} again; so many lines are in this log instead"
                    );
                }
                if let Some(told) = &item.told {
                    self.book.note(told);
                    self.unsynced.get_or_insert_with(Instant::now);
                }
            }
            Err(error) => {
                self.tell_trouble(&error);
                self.in_trouble = self.in_trouble.map(|lines| lines + 1);
                log_instead(item);
            }
        }
    }

    fn tell_trouble(&mut self, error: &io::Error) {
        if self.in_trouble.is_none() {
            let destination = &self.destination;
            tracing::error!(%error, "can't write the audit log to {destination}; its lines go to this log until that can be done");
            self.in_trouble = Some(0);
        }
    }

    fn sync(&mut self) {
        if self.unsynced.take().is_some() {
            match self.output.sync() {
                Ok(()) => self.book.synced(),
                Err(error) => tracing::warn!(%error, "the audit log may not survive a loss of power"),
            }
        }
    }
}

/// The line as it is: JSON in one field, so that it can be told apart and put back.
fn log_instead(item: &Item) {
    let line = item.json.trim_end_matches('\n');
    tracing::info!(target: TARGET, line, "a line that the audit log did not take");
}
