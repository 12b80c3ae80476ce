//! The log's way to stderr: whoever reads it, slowly or not at all, keeps nobody from their work.
//!
//! ```text
//!  the worker:          a line ──▶ queue, at most QUEUE_BYTES ──▶ a thread ──(may wait)──▶ stderr
//!                                    │ full: dropped, counted, and said once there is room
//!  spawner and shims:   a line ──▶ stderr, if it takes the line at once; else dropped, counted, and said later
//! ```
//!
//! The spawner forks, so it may have no thread; and its shims must not wait for a pipe that nobody reads while their job
//! goes on. What libraries log is bounded besides (`limit`).

mod direct;
pub(crate) mod limit;
mod notice;
mod queue;

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use self::direct::Direct;
use self::queue::Queue;
use crate::config::log::Format;

/// How long the end of the process waits for lines that stderr has not taken.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The log of this process, once it has begun.
static SINK: OnceLock<Sink> = OnceLock::new();

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Queue(Queue),
    Direct(Direct),
}

/// How a process may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// A thread of its own waits for stderr.
    Threaded,
    /// This process forks: what stderr does not take at once is dropped.
    Unthreaded,
}

/// Writes each event's line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines;

/// Begins, once per process.
///
/// # Errors
/// When there is no thread to be had.
pub(crate) fn begin(writing: Writing, format: Format) -> io::Result<Lines> {
    let sink = match writing {
        Writing::Threaded => Sink::Queue(Queue::start(format)?),
        Writing::Unthreaded => Sink::Direct(Direct::new(format)),
    };
    // Set once only; whoever was first has the same one.
    let _ = SINK.set(sink);
    Ok(Lines)
}

/// Writes a whole line, where there is a log; else to stderr.
pub fn say(line: &str) {
    match SINK.get() {
        Some(sink) => sink.put(format!("{line}\n").as_bytes()),
        None => eprintln!("{line}"),
    }
}

/// Returns when all lines are written, or stderr has not taken them for a while: before the process ends. May block.
pub fn close() {
    if let Some(Sink::Queue(queue)) = SINK.get() {
        queue.close(CLOSE_TIMEOUT);
    }
}

/// How many lines stderr did not take.
pub(crate) fn lines_dropped() -> u64 {
    match SINK.get() {
        Some(Sink::Queue(queue)) => queue.dropped(),
        Some(Sink::Direct(direct)) => direct.dropped(),
        None => 0,
    }
}

/// Says how many of a library's lines were left out.
fn tell_left_out(target: &str, count: u64) {
    match SINK.get() {
        Some(Sink::Queue(queue)) => queue.put(&notice::left_out(queue.format(), target, count)),
        Some(Sink::Direct(direct)) => direct.put(&notice::left_out(direct.format(), target, count)),
        None => {}
    }
}

impl Sink {
    fn put(&self, line: &[u8]) {
        match self {
            Self::Queue(queue) => queue.put(line),
            Self::Direct(direct) => direct.put(line),
        }
    }
}

impl io::Write for Lines {
    /// Takes one whole line: the formatter writes an event at a time.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(sink) = SINK.get() {
            sink.put(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
