//! What jobctl says on stderr. A thread writes it, because whoever reads stderr may have stopped reading, and an
//! interrupt has to reach the worker all the same.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use crate::interrupts::{Interrupts, Leaves};
use crate::stdio;

enum Message {
    Line(String),
    /// Answered when all before it is written.
    Written(Sender<()>),
}

/// `None` inside: there is no thread to be had.
static QUEUE: OnceLock<Option<Sender<Message>>> = OnceLock::new();

/// Says `line`, behind what was said before, and returns at once.
pub(crate) fn say(line: String) {
    let queue = QUEUE.get_or_init(|| {
        let (sender, receiver) = mpsc::channel();
        thread::Builder::new().name("notes".to_owned()).spawn(move || write(&receiver)).ok().map(|_| sender)
    });
    match queue {
        // The thread ends with the process.
        Some(queue) => _ = queue.send(Message::Line(line)),
        None => put(&line),
    }
}

fn write(messages: &Receiver<Message>) {
    for message in messages {
        match message {
            Message::Line(line) => put(&line),
            Message::Written(done) => _ = done.send(()),
        }
    }
}

/// There is nobody left to tell when stderr is closed.
fn put(line: &str) {
    let _ = stdio::stderr().and_then(|mut stderr| stderr.write_all(line.as_bytes()));
}

/// Returns when all that was said is written.
pub(crate) fn wait_until_written() {
    let Some(Some(queue)) = QUEUE.get() else { return };
    let (done, written) = mpsc::channel();
    if queue.send(Message::Written(done)).is_ok() {
        let _ = written.recv();
    }
}

/// As [`wait_until_written`], or until a signal asks to end.
pub(crate) async fn written() {
    if QUEUE.get().is_none() {
        return;
    }
    let waiting = tokio::task::spawn_blocking(wait_until_written);
    let (Ok(mut interrupts), Ok(mut leaves)) = (Interrupts::new(), Leaves::new()) else { return };
    tokio::select! {
        _ = waiting => {}
        _ = interrupts.next() => {}
        _ = leaves.next() => {}
    }
}
