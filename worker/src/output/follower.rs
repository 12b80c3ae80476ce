//! A follower: one client's way through a job's output, from any place to the end, as fast as it asks for more.
//!
//! It is told that something changed and looks itself, so a slow one holds up nobody and loses nothing. What it does
//! when is a state machine of its own, `step`, which is why its end can't come too early.

mod step;

use tokio_util::sync::CancellationToken;

use self::step::{Seen, Step};
use super::OutputError;
use super::buffer::Buffer;
use super::hub::{Change, Hub, Watch};
use super::index::Kind;
use super::reader::{Piece, Reader};
use crate::job::engine::{EngineError, blocking};
use crate::job::folder::{Folder, INDEX};
use crate::job::view::JobView;
use crate::job::{JobId, State};

pub use super::reader::{Gap, GapReason};
pub use super::seek::From;

/// What a follower delivers.
#[derive(Debug)]
pub enum Event {
    /// A run of bytes of one stream, never empty.
    Chunk {
        /// The absolute offset of the first byte.
        offset: u64,
        /// Which stream.
        kind: Kind,
        /// When the last byte arrived, in microseconds since the Unix epoch. The others came within 10 ms before.
        time_unix_usec: u64,
        /// The bytes.
        data: Buffer,
    },
    /// Bytes that are not to be had, of whichever stream.
    Gap(Gap),
    /// The job is finished, and all its output was delivered.
    End(Box<JobView>),
}

/// What to read of a job's output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection {
    /// Where to begin.
    pub(crate) from: From,
    /// The only stream to read; none: both.
    pub(crate) only: Option<Kind>,
    /// Whether to go on with what comes, or end with what is there.
    pub(crate) follow: bool,
}

/// A reader of one job's output.
pub struct Follower {
    job: JobId,
    folder: Folder,
    selection: Selection,
    shutdown: CancellationToken,
    /// None: what is there is enough.
    watch: Option<Watch>,
    /// None until there is an index.
    reader: Option<Reader>,
    /// Where it began, as an absolute offset; none where that is a matter of time.
    begins_at: Option<u64>,
    /// The job, once it is seen to be finished. Kept, because its folder may be removed meanwhile.
    finished: Option<Box<JobView>>,
    step: Step,
    done: bool,
}

impl Follower {
    /// # Errors
    /// When there is no such job, or its folder can't be watched or read.
    pub(crate) async fn open(
        job: JobId,
        folder: Folder,
        hub: Hub,
        selection: Selection,
        shutdown: CancellationToken,
    ) -> Result<Self, EngineError> {
        blocking(move || {
            // Watched before it is looked at, and its state looked at before its output: nothing comes in between.
            let watch = selection.follow.then(|| hub.watch(&folder)).transpose()?;
            let finished = look_for_end(&folder)?;
            let reader = open_reader(&folder, selection)?;
            if reader.is_none() && !folder.path().exists() {
                return Err(EngineError::not_found(job));
            }
            let step = Step::first(selection.follow, finished.is_some());
            let begins_at = match (&reader, selection.from) {
                (Some(reader), _) => Some(reader.begins_at()),
                (None, From::Start | From::TailLines(_)) => Some(0),
                (None, From::Offset(offset)) => Some(offset),
                (None, From::Since { .. }) => None,
            };
            Ok(Self {
                job,
                folder,
                selection,
                shutdown,
                watch,
                reader,
                begins_at,
                finished,
                step,
                done: false,
            })
        })
        .await
    }

    /// Where it began, as an absolute offset: what stands there or behind is what [`Self::next`] tells of. None when the
    /// job has no output yet and a time was asked for.
    pub fn begins_at(&self) -> Option<u64> {
        self.begins_at
    }

    /// The next event, as soon as there is one. The last is [`Event::End`] or an error; without following, the last
    /// is the end of what was there, and `End` only if the job was finished by then. Cancel safe.
    ///
    /// # Errors
    /// When the worker goes down, the job's folder was removed or it can't be read.
    pub async fn next(&mut self) -> Option<Result<Event, EngineError>> {
        if self.done {
            return None;
        }
        let event = self.advance().await;
        self.done = !matches!(event, Ok(Some(Event::Chunk { .. } | Event::Gap(_))));
        event.transpose()
    }

    async fn advance(&mut self) -> Result<Option<Event>, EngineError> {
        loop {
            if self.shutdown.is_cancelled() {
                return Err(EngineError::ShuttingDown);
            }
            let seen = match self.step {
                Step::Read | Step::ReadRest { .. } => match self.read().await? {
                    Some(piece) => return Ok(Some(piece.into())),
                    None => Seen::NothingLeft,
                },
                Step::Wait => Seen::Changed(self.wait().await?),
                Step::Look => {
                    let folder = self.folder.clone();
                    self.finished = blocking(move || look_for_end(&folder)).await?;
                    Seen::Finished(self.finished.is_some())
                }
                Step::End { .. } => return self.end().await,
            };
            self.step = self.step.after(seen);
        }
    }

    /// What is there and not yet delivered.
    async fn read(&mut self) -> Result<Option<Piece>, EngineError> {
        if self.reader.is_none() {
            let (folder, selection) = (self.folder.clone(), self.selection);
            self.reader = blocking(move || open_reader(&folder, selection)).await?;
        }
        match &mut self.reader {
            Some(reader) => Ok(reader.next().await?),
            None => Ok(None),
        }
    }

    /// The job's end, if it is finished and nothing is left to be read before that.
    async fn end(&mut self) -> Result<Option<Event>, EngineError> {
        let Some(view) = self.finished.take() else { return Ok(None) };
        let bytes = view.state.as_ref().and_then(State::finished).and_then(|finished| finished.output_bytes);
        if let (Some(reader), Some(bytes)) = (&mut self.reader, bytes)
            && let Some(gap) = reader.rest(bytes)
        {
            self.finished = Some(view);
            return Ok(Some(Event::Gap(gap)));
        }
        let folder = self.folder.clone();
        if self.reader.is_none() && blocking(move || folder.output_length_bytes()).await? > 0 {
            return Err(OutputError::NotAnIndex { path: self.folder.file(INDEX) }.into());
        }
        Ok(Some(Event::End(view)))
    }

    async fn wait(&mut self) -> Result<Change, EngineError> {
        let watch = self.watch.as_mut().expect("only a follower that watches waits");
        tokio::select! {
            change = watch.changed() => change.map_err(|_gone| EngineError::not_found(self.job)),
            () = self.shutdown.cancelled() => Err(EngineError::ShuttingDown),
        }
    }
}

impl std::convert::From<Piece> for Event {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Bytes(record, data) => Self::Chunk {
                offset: record.offset,
                kind: record.kind,
                time_unix_usec: record.time_unix_usec,
                data,
            },
            Piece::Gap(gap) => Self::Gap(gap),
        }
    }
}

fn look_for_end(folder: &Folder) -> Result<Option<Box<JobView>>, EngineError> {
    Ok(JobView::read_finished(folder)?.map(Box::new))
}

fn open_reader(folder: &Folder, selection: Selection) -> Result<Option<Reader>, EngineError> {
    let Selection { from, only, follow } = selection;
    Ok(Reader::open(folder, from, only, !follow)?)
}

#[cfg(test)]
mod tests;
