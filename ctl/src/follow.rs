//! Follows a job's output: from the worker to a [`Printer`], as fast as both go.
//!
//! Writing may block for as long as whoever reads our stdout wants, so it happens on a thread of its own. Meanwhile
//! nothing is taken from the stream, and HTTP/2's flow control makes the worker wait for just this client.

use std::fs::File;
use std::io;
use std::pin::pin;

use anyhow::anyhow;
use futures_util::{Stream, StreamExt};
use jobworker_proto::v1::Job;
use jobworker_proto::v1::stream_response::Event;

use crate::client::CallError;
use crate::printer::Printer;

/// So many messages that are there already are written together.
const BATCH: usize = 64;

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
    /// The offset of the first byte that was not written; `None` when nothing arrived at all.
    pub(crate) resume_at: Option<u64>,
    pub(crate) error: anyhow::Error,
}

/// `error`, with a word on how to go on at `offset`.
pub(crate) fn resumable(error: &anyhow::Error, job: &str, offset: u64) -> anyhow::Error {
    anyhow!("{error:#}; `jobctl stream {job} --from-offset {offset}` goes on from here")
}

/// Prints `events` until the last one.
///
/// # Errors
/// The call failed, or the output can't be written.
pub(crate) async fn follow(
    events: impl Stream<Item = Result<Event, CallError>>,
    mut printer: Printer<File>,
) -> Result<Followed, Broken> {
    let mut batches = pin!(events.ready_chunks(BATCH));
    let mut resume_at = None;
    while let Some(batch) = batches.next().await {
        let (output, last) = split(batch);
        let end = output.last().and_then(end_offset);
        printer = match write(printer, output).await {
            Ok(printer) => printer,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Followed::ReaderGone),
            Err(error) => {
                let error = anyhow::Error::new(error).context("cannot write the output");
                return Err(Broken { resume_at, error });
            }
        };
        resume_at = end.or(resume_at);
        match last {
            Some(Ok(job)) => return Ok(Followed::Finished(Box::new(job))),
            Some(Err(error)) => return Err(Broken { resume_at, error: error.into() }),
            None => {}
        }
    }
    Ok(Followed::Present)
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

fn end_offset(event: &Event) -> Option<u64> {
    match event {
        Event::Chunk(chunk) => Some(chunk.offset.saturating_add(chunk.data.len() as u64)),
        Event::Gap(gap) => Some(gap.offset.saturating_add(gap.length)),
        Event::End(_) => None,
    }
}

async fn write(mut printer: Printer<File>, output: Vec<Event>) -> io::Result<Printer<File>> {
    if output.is_empty() {
        return Ok(printer);
    }
    let writing = tokio::task::spawn_blocking(move || printer.print(&output).map(|()| printer));
    writing.await.map_err(io::Error::other)?
}
