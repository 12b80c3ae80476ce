//! What the fake worker answers.

use jobworker_proto::v1::stream_response::Event;
use jobworker_proto::v1::{self, Chunk, Job, OutputStream};
use tonic::Status;

/// From a request to a chain.
pub(crate) type Renews = std::sync::Arc<dyn Fn(&[u8]) -> String + Send + Sync>;

/// What the worker answers.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// Instead of an answer to any call.
    pub(crate) refusal: Option<Status>,
    /// Instead of an answer to `Start`.
    pub(crate) start_refusal: Option<Status>,
    /// Instead of an answer to `Stop`.
    pub(crate) stop_refusal: Option<Status>,
    /// No call is ever answered.
    pub(crate) mute: bool,
    /// Of the calls, only `Start` and `Stream` are answered.
    pub(crate) mute_after_start: bool,
    /// `Start` is answered when `FakeWorker::release` is called.
    pub(crate) held_start: bool,
    /// `Start` is answered only when `Stream` has been called, too.
    pub(crate) start_waits: bool,
    /// The first call of `Stream` comes before there is such a job.
    pub(crate) knows_late: bool,
    /// A client without a good certificate is thrown out without waiting until it has read why.
    pub(crate) abrupt: bool,
    /// So many calls of `Start`, `Wait` and `Stop` break the connection instead of being answered.
    pub(crate) unanswered: usize,
    /// `Stop` is answered only when `Status` has been called so many times.
    pub(crate) stop_waits: u32,
    /// What `Stream` does. Each call gets what it asks for: the offset of a chunk is where it stands in here.
    pub(crate) steps: Vec<Step>,
    /// Where `Stream` says that it begins.
    pub(crate) begins_at: Option<u64>,
    /// The job, as `Status` and `List` show it.
    pub(crate) now: Job,
    /// What `Renew` answers to a request (DER): PEM.
    pub(crate) renews: Option<Renews>,
    /// What `Start` warns of.
    pub(crate) warnings: Vec<String>,
    /// How it ends, as `Wait`, `Stop` and the stream's end show it.
    pub(crate) outcome: Option<v1::Outcome>,
}

#[derive(Clone)]
pub(crate) enum Step {
    Send(Event),
    /// The same again and again, until nobody listens.
    Endless(Event),
    UntilStopped,
    Forever,
    /// Goes on when `FakeWorker::release` is called.
    UntilReleased,
    Fail(Status),
    /// The same, and no more when a later call gets here.
    FailOnce(Status),
    /// The connection breaks; no more when a later call gets here.
    CutOnce,
    /// The job's end.
    End,
}

pub(crate) fn stdout(data: &[u8]) -> Step {
    Step::Send(chunk(OutputStream::Stdout, data))
}

pub(crate) fn stderr(data: &[u8]) -> Step {
    Step::Send(chunk(OutputStream::Stderr, data))
}

pub(crate) fn chunk(stream: OutputStream, data: &[u8]) -> Event {
    let data = data.to_vec().into();
    Event::Chunk(Chunk { offset: 0, stream: stream.into(), time_unix_usec: 1_500_000, data })
}

/// What of a chunk stands at `from` or behind it.
pub(crate) fn behind(mut chunk: Chunk, from: u64) -> Chunk {
    let before = from.saturating_sub(chunk.offset);
    chunk.offset += before;
    chunk.data = chunk.data.slice(usize::try_from(before).expect("within the chunk")..);
    chunk
}
