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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::TARGET;
use super::destination::{Destination, Output};
use super::ends::{Book, Told};
use super::journald::Fields;
use crate::tasks::Tasks;

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
    pub(super) fn start(
        destination: Destination,
        output: Output,
        book: Arc<Book>,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let task =
            Task { shared: Arc::clone(&shared), destination, output, book, in_trouble: None, unsynced: None };
        tasks.thread("audit log", move || task.run())?;
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
        if !queue.items.is_empty() {
            let lines = queue.items.len();
            drop(queue);
            tracing::info!(lines, "waiting until the audit log has taken its last lines");
            queue = self.shared.queue();
        }
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

/// How many lines went to the log instead.
static NOT_TAKEN: AtomicU64 = AtomicU64::new(0);

pub(super) fn lines_not_taken() -> u64 {
    NOT_TAKEN.load(Ordering::Relaxed)
}

/// The line as it is: JSON in one field, so that it can be told apart and put back.
fn log_instead(item: &Item) {
    NOT_TAKEN.fetch_add(1, Ordering::Relaxed);
    let line = item.json.trim_end_matches('\n');
    tracing::info!(target: TARGET, line, "a line that the audit log did not take");
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader};
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use nix::unistd::pipe;
    use tracing::field::{Field, Visit};
    use tracing::{Event, Metadata, Subscriber, span};

    use super::*;

    /// Counts the lines that are in the log instead.
    #[derive(Clone, Default)]
    struct Log(Arc<AtomicUsize>);

    impl Subscriber for Log {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == TARGET
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            struct IsWhole(bool);
            impl Visit for IsWhole {
                fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
                fn record_str(&mut self, field: &Field, value: &str) {
                    self.0 |= field.name() == "line" && value.starts_with('{') && value.ends_with('}');
                }
            }
            let mut line = IsWhole(false);
            event.record(&mut line);
            self.0.fetch_add(usize::from(line.0), Ordering::Relaxed);
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    fn item(number: usize) -> Item {
        let json = format!("{{\"number\":{number},\"filler\":\"{}\"}}\n", "x".repeat(1000));
        Item { json, fields: Fields::default(), told: None }
    }

    /// A reader that has stopped reading holds up nobody, and each line is in one of two places.
    #[test]
    fn what_nobody_takes_is_in_the_log_and_nobody_waits() {
        const LINES: usize = 30_000;
        let (reader, stdout) = pipe().unwrap();
        let output = Output::Stdout(File::from(stdout));
        let writer = Writer::start(Destination::Stdout, output, Arc::default(), &Tasks::default()).unwrap();
        let log = Log::default();
        tracing::subscriber::with_default(log.clone(), || {
            (0..LINES).for_each(|number| writer.put(item(number)));
        });
        let in_log = log.0.load(Ordering::Relaxed);
        assert!((LINES / 10..LINES * 9 / 10).contains(&in_log), "{in_log}");
        let lines =
            thread::spawn(move || BufReader::new(File::from(reader)).lines().map_while(Result::ok).count());
        writer.close();
        tracing::subscriber::with_default(log.clone(), || writer.put(item(LINES)));
        assert_eq!(log.0.load(Ordering::Relaxed), in_log + 1, "one that comes too late");
        // Its thread, which has the other end of the pipe, has ended.
        assert_eq!(lines.join().unwrap() + in_log, LINES);
    }
}
