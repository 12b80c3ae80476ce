//! Follows a job's output: from the worker to a [`Printer`], as fast as both go.
//!
//! Writing may block for as long as whoever reads our stdout wants, so it happens on a thread of its own. Meanwhile
//! nothing is taken from the stream, and HTTP/2's flow control makes the worker wait for just this client.

use std::fs::File;
use std::hint::black_box;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use futures_util::StreamExt;
use jobworker_proto::v1::stream_request::From;
use jobworker_proto::v1::stream_response::Event;
use jobworker_proto::v1::{Job, StreamRequest};
use tokio::task::JoinHandle;

use crate::call_error::CallError;
use crate::client::{Client, Events};
use crate::printer::{Printer, Progress};
use crate::reconnect::Link;
use crate::stdio::{Patient, reader_is_gone};

/// So many messages that are there already are written together.
const BATCH: usize = 64;

/// As much memory as flows through at full speed, in bytes: HTTP/2's window.
const KEPT_BYTES: usize = 16 << 20;

/// How following ended.
pub(crate) enum Followed {
    /// The job is finished and all its output is written.
    Finished(Box<Job>),
    /// All there was is written; the job goes on.
    Present,
    /// Nobody reads our stdout or stderr any more.
    ReaderGone,
}

/// Following broke off.
pub(crate) struct Broken {
    /// The offset of the first byte that was not written; `None` when the worker did not say.
    pub(crate) resume_at: Option<u64>,
    pub(crate) error: anyhow::Error,
}

/// `error`, with a word on how to go on at `offset`.
pub(crate) fn resumable(error: &anyhow::Error, job: &str, offset: u64) -> anyhow::Error {
    anyhow!("{error:#}; `jobctl stream {job} --from-offset {offset}` goes on from here")
}

/// Prints the output that `request` asks for until its end. When the connection breaks, goes on behind the last byte
/// printed.
///
/// # Errors
/// The call failed, or the output can't be written.
pub(crate) async fn follow(
    link: &Link,
    request: StreamRequest,
    printer: Printer<Patient<File>>,
) -> Result<Followed, Broken> {
    follow_asked(link, request, None, printer).await
}

/// A stream that was asked for before the job was known to be there.
pub(crate) struct Asked(JoinHandle<Result<(Option<u64>, Events), CallError>>);

/// Asks for `request`, without waiting: behind whatever this task calls next, in the same flight.
pub(crate) async fn ask(link: &Link, request: StreamRequest) -> Asked {
    let (client, request) = (link.client().await, StreamRequest { starting: true, ..request });
    Asked(tokio::spawn(async move { client.stream(request).await }))
}

/// As [`follow`], with what came of asking for `request` beforehand. If that is nothing, it is asked for again.
///
/// # Errors
/// As [`follow`].
pub(crate) async fn follow_asked(
    link: &Link,
    request: StreamRequest,
    asked: Option<Asked>,
    printer: Printer<Patient<File>>,
) -> Result<Followed, Broken> {
    keep_freed_memory();
    let progress = printer.progress();
    let printer = Arc::new(Mutex::new(printer));
    let mut follower = Follower { request, asked, printer, progress: Arc::clone(&progress) };
    let followed = link.call(async |client| follower.follow(link, client).await).await;
    followed.map_err(|error| Broken { resume_at: progress.resume_at(), error })
}

struct Follower {
    request: StreamRequest,
    asked: Option<Asked>,
    /// One for all connections: it knows whether it is in the middle of a line.
    printer: Arc<Mutex<Printer<Patient<File>>>>,
    progress: Arc<Progress>,
}

impl Follower {
    async fn follow(&mut self, link: &Link, client: &Client) -> anyhow::Result<Followed> {
        let (offset, events) = self.events(client).await?;
        link.was_answered();
        // Known before the first byte is: what comes while the connection is broken belongs to it.
        if let Some(offset) = offset {
            self.progress.begins_at(offset);
        }
        let mut batches = pin!(events.ready_chunks(BATCH));
        while let Some(batch) = batches.next().await {
            let (output, last) = split(batch);
            if !output.is_empty() {
                link.was_of_use();
            }
            match self.write(output).await {
                Ok(()) => {}
                Err(error) if reader_is_gone(&error) => return Ok(Followed::ReaderGone),
                Err(error) => return Err(error).context("cannot write the output"),
            }
            match last {
                Some(Ok(job)) => return Ok(Followed::Finished(Box::new(job))),
                Some(Err(error)) => return Err(error.into()),
                None => {}
            }
        }
        Ok(Followed::Present)
    }

    async fn events(&mut self, client: &Client) -> Result<(Option<u64>, Events), CallError> {
        if let Some(Asked(answer)) = self.asked.take()
            && let Ok(Ok(events)) = answer.await
        {
            return Ok(events);
        }
        client.stream(self.request()).await
    }

    /// What is still wanted: only until the worker has said where they begin does it depend on what "the last lines"
    /// are.
    fn request(&self) -> StreamRequest {
        let resume_at = self.progress.resume_at();
        let from = resume_at.map(From::Offset).or(self.request.from);
        let since_usec_ago = self.request.since_usec_ago.filter(|_| resume_at.is_none());
        StreamRequest { from, since_usec_ago, ..self.request.clone() }
    }

    async fn write(&self, output: Vec<Event>) -> io::Result<()> {
        if output.is_empty() {
            return Ok(());
        }
        let printer = Arc::clone(&self.printer);
        let writing = tokio::task::spawn_blocking(move || {
            printer.lock().unwrap_or_else(PoisonError::into_inner).print(&output)
        });
        writing.await.map_err(io::Error::other)?
    }
}

/// Output passes through blocks that are too large for glibc to keep when they are freed, and fresh pages cost more than
/// the decryption: measured, `stream` takes a half longer. The largest block that was ever freed says what is large
/// (mallopt(3), `M_MMAP_THRESHOLD`), and this one costs nothing, because nobody writes to it.
fn keep_freed_memory() {
    drop(black_box(Vec::<u8>::with_capacity(KEPT_BYTES)));
}

/// The output in `batch`, and what ended the stream behind it.
fn split(batch: Vec<Result<Event, CallError>>) -> (Vec<Event>, Option<Result<Job, CallError>>) {
    let mut output = Vec::with_capacity(batch.len());
    for event in batch {
        match event {
            Ok(Event::End(job)) => return (output, Some(Ok(job))),
            Ok(event) => output.push(event),
            Err(error) => return (output, Some(Err(error))),
        }
    }
    (output, None)
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{UsageWho, getrusage};

    use super::*;

    #[test]
    #[cfg_attr(not(target_env = "gnu"), ignore = "this is glibc's way")]
    fn memory_that_was_freed_is_used_again() {
        keep_freed_memory();
        let pass_through = || drop(black_box([(); 8].map(|()| vec![1_u8; 1 << 20])));
        let faults = || getrusage(UsageWho::RUSAGE_THREAD).expect("usage").minor_page_faults();
        pass_through();
        let before = faults();
        for _ in 0..10 {
            pass_through();
        }
        let pages = faults() - before;
        assert!(pages < 1000, "{pages} fresh pages for 80 MiB");
    }
}
