//! A job's two output files, open for reading: the bytes, and the records that tell of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::buffer::Buffer;
use super::index::{InvalidRecord, KEPT_AT, Kept, RECORD_BYTES, Record, Version};
use super::positioned;
use crate::job::engine::blocking;
use crate::job::folder::{Folder, FolderError, INDEX, OUTPUT};

/// Looks at [`Kept`] on a thread that others wait for: a writer is done with it in less than a microsecond, unless it
/// was interrupted in the middle.
const ATTEMPTS_AT_ONCE: u32 = 10;

/// Looks at it before it is taken for broken, on a thread that may wait.
const ATTEMPTS: u32 = 10_000;

/// The files. They can be read to their end after the folder was removed.
#[derive(Clone)]
pub(super) struct Files {
    folder: Folder,
    output: Arc<File>,
    index: Arc<File>,
    version: Version,
}

/// What is found where records are looked for.
#[derive(Debug)]
pub(super) enum Batch {
    /// Records; fewer than asked for only where the index ends before.
    Records(Vec<Record>),
    /// The first of them, at least, is no longer there.
    GivenBack(Kept),
}

/// Output that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The operating system said no.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The file has another header.
    #[error("{path} is not an index that this build can read")]
    NotAnIndex {
        /// Which file.
        path: PathBuf,
    },
    /// What it says of what is kept stays half written.
    #[error("{path} does not say from where on output is kept")]
    NoKept {
        /// Which file.
        path: PathBuf,
    },
    /// A record makes no sense.
    #[error("{path}, record {number}: {reason}")]
    Record {
        /// Which file.
        path: PathBuf,
        /// Which record, counted from 0.
        number: u64,
        /// What is wrong with it.
        reason: InvalidRecord,
    },
}

impl Files {
    /// Opens them; `None` while there is no index yet. May block.
    ///
    /// # Errors
    /// When they can't be opened, or the index is none.
    pub(super) fn open(folder: &Folder) -> Result<Option<Self>, OutputError> {
        let (Some(index), Some(output)) = (open(folder, INDEX)?, open(folder, OUTPUT)?) else {
            return Ok(None);
        };
        let mut header = [0; RECORD_BYTES];
        let version = match index.read_exact_at(&mut header, 0) {
            Ok(()) => {
                Version::of(&header).ok_or_else(|| OutputError::NotAnIndex { path: folder.file(INDEX) })?
            }
            // It is being created.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(reason) => return Err(failed(folder, "read", INDEX, reason).into()),
        };
        let length = index.metadata().map_err(|reason| failed(folder, "examine", INDEX, reason))?.len();
        if length < version.record_at(0) {
            return Ok(None);
        }
        Ok(Some(Self { folder: folder.clone(), output: Arc::new(output), index: Arc::new(index), version }))
    }

    /// Whole records in the index now, those that were given back included.
    ///
    /// # Errors
    /// When the file can't be examined.
    pub(super) fn record_count(&self) -> Result<u64, OutputError> {
        let metadata = self.index.metadata().map_err(|reason| self.failed("examine", INDEX, reason))?;
        Ok(self.version.record_count(metadata.len()))
    }

    /// From where on output is kept now. A few bytes at the front of a file that is being read: never far away. Cancel
    /// safe.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) async fn kept(&self) -> Result<Kept, OutputError> {
        if let Some(kept) = self.look_at_kept(ATTEMPTS_AT_ONCE)? {
            return Ok(kept);
        }
        let files = self.clone();
        blocking(move || files.kept_blocking()).await
    }

    /// As [`Self::kept`], on a thread that may block.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn kept_blocking(&self) -> Result<Kept, OutputError> {
        let kept = self.look_at_kept(ATTEMPTS)?;
        kept.ok_or_else(|| OutputError::NoKept { path: self.folder.file(INDEX) })
    }

    /// `None` if it is half written at each look.
    fn look_at_kept(&self, attempts: u32) -> Result<Option<Kept>, OutputError> {
        if self.version == Version::V1 {
            return Ok(Some(Kept::default()));
        }
        let mut bytes = [0; RECORD_BYTES];
        for _ in 0..attempts {
            let read = self.index.read_exact_at(&mut bytes, KEPT_AT);
            read.map_err(|reason| self.failed("read", INDEX, reason))?;
            if let Some(kept) = Kept::decode(&bytes) {
                return Ok(Some(kept));
            }
            thread::yield_now();
        }
        Ok(None)
    }

    /// `count` records from `first` on.
    ///
    /// # Errors
    /// When they can't be read, or make no sense.
    pub(super) async fn records(&self, first: u64, count: usize) -> Result<Batch, OutputError> {
        let at = self.version.record_at(first);
        let bytes = positioned::read_at(&self.index, at, Buffer::new(count * RECORD_BYTES)).await;
        let bytes = bytes.map_err(|reason| self.failed("read", INDEX, reason))?;
        // Looked at afterwards, as with all bytes.
        self.decode(first, &bytes, self.kept().await?)
    }

    /// As [`Self::records`], on a thread that may block.
    ///
    /// # Errors
    /// When they can't be read, or make no sense.
    pub(super) fn records_blocking(&self, first: u64, count: usize) -> Result<Batch, OutputError> {
        let at = self.version.record_at(first);
        let bytes = positioned::read_at_blocking(&self.index, at, count * RECORD_BYTES);
        let bytes = bytes.map_err(|reason| self.failed("read", INDEX, reason))?;
        self.decode(first, &bytes, self.kept_blocking()?)
    }

    /// Fills `buffer` with output; it becomes shorter only where that ends before. Bytes before [`Self::kept`], looked
    /// at afterwards, are zeros instead.
    ///
    /// # Errors
    /// When they can't be read.
    pub(super) async fn bytes(&self, offset: u64, buffer: Buffer) -> Result<Buffer, OutputError> {
        let bytes = positioned::read_at(&self.output, offset, buffer).await;
        bytes.map_err(|reason| self.failed("read", OUTPUT, reason))
    }

    /// As [`Self::bytes`] with a buffer of `length` bytes, on a thread that may block.
    ///
    /// # Errors
    /// When they can't be read.
    pub(super) fn bytes_blocking(&self, offset: u64, length: usize) -> Result<Buffer, OutputError> {
        let bytes = positioned::read_at_blocking(&self.output, offset, length);
        bytes.map_err(|reason| self.failed("read", OUTPUT, reason))
    }

    fn decode(&self, first: u64, bytes: &[u8], kept: Kept) -> Result<Batch, OutputError> {
        if first < kept.record {
            return Ok(Batch::GivenBack(kept));
        }
        let (records, _not_whole) = bytes.as_chunks::<RECORD_BYTES>();
        let decoded = records.iter().zip(first..).map(|(bytes, number)| {
            Record::decode(bytes).map_err(|reason| OutputError::Record {
                path: self.folder.file(INDEX),
                number,
                reason,
            })
        });
        decoded.collect::<Result<_, _>>().map(Batch::Records)
    }

    fn failed(&self, operation: &'static str, name: &str, reason: io::Error) -> OutputError {
        failed(&self.folder, operation, name, reason).into()
    }
}

fn open(folder: &Folder, name: &str) -> Result<Option<File>, FolderError> {
    match File::open(folder.file(name)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(reason) => Err(failed(folder, "open", name, reason)),
    }
}

fn failed(folder: &Folder, operation: &'static str, name: &str, reason: io::Error) -> FolderError {
    FolderError::Io { operation, path: folder.file(name), reason }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::job::fake::{self, FakeShim};
    use crate::job::folder::JobsDir;
    use crate::job::{JobId, Outcome};

    /// On the one thread of its runtime.
    #[tokio::test]
    async fn what_stays_half_written_keeps_no_other_task_waiting() {
        let state_dir = tempfile::tempdir().unwrap();
        let shim = FakeShim::start(&JobsDir::new(state_dir.path()), &fake::spec(JobId::random(), "alice"));
        shim.finish(Outcome::Exited { code: 0 });
        let files = Files::open(shim.folder()).unwrap().unwrap();
        assert_eq!(files.kept().await.unwrap(), Kept::default());
        let index = OpenOptions::new().write(true).open(shim.folder().file(INDEX)).unwrap();
        index.write_all_at(&[7; RECORD_BYTES], KEPT_AT).unwrap();
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        let others = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        assert!(matches!(files.kept().await, Err(OutputError::NoKept { .. })));
        assert!(turns.load(Ordering::Relaxed) > 10, "{turns:?}");
        others.abort();
    }
}
