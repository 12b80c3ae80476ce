//! How much output a job has.

use super::records::{Files, OutputError};
use super::seek::end_of;
use crate::job::folder::Folder;

/// From where to where a job's output reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The offset at which the next byte will stand.
    pub bytes: u64,
    /// The offset of the first byte that is still kept.
    pub kept_from: u64,
}

impl Extent {
    /// Reads it; a job without output files has none. May block.
    ///
    /// # Errors
    /// When the index can't be read, or is none.
    pub fn read(folder: &Folder) -> Result<Self, OutputError> {
        let Some(files) = Files::open(folder)? else { return Ok(Self::default()) };
        let bytes = end_of(&files, files.record_count()?)?;
        Ok(Self { bytes, kept_from: files.kept_blocking()?.offset })
    }
}
