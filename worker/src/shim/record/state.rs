//! The writing of `state.json`: always whole, by rename; and at the end in any case, in space that was set aside for it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate, posix_fallocate};
use nix::libc::off_t;

use super::{JobFolder, encode};
use crate::job::State;
use crate::job::folder::STATE;

/// The file that keeps space for the outcome, and becomes `state.json`. Named like all that does not last in a job's
/// folder.
const RESERVE: &str = "state.json.reserve.new";

/// Above any outcome's length: some 2 KiB, and 120 bytes for each disk that the job used.
const RESERVE_BYTES: off_t = 16 << 10;

impl JobFolder {
    /// Sets disk space aside for the outcome, so that a job that fills the disk still gets its verdict.
    ///
    /// # Errors
    /// When there is no space for it even now.
    pub(super) fn reserve(&self) -> io::Result<()> {
        let reserve = self.file(RESERVE)?;
        match fallocate(&reserve, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, RESERVE_BYTES) {
            // Then by writing zeros.
            Err(Errno::EOPNOTSUPP) => Ok(posix_fallocate(&reserve, 0, RESERVE_BYTES)?),
            result => Ok(result?),
        }
    }

    /// Writes `state.json`. A job's end goes to the disk before anybody hears of it, into what was set aside for it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_state(&self, state: &State) -> io::Result<()> {
        let bytes = encode(state)?;
        if state.finished().is_none() {
            return self.replace(&bytes, false);
        }
        match self.spend(&bytes) {
            // A lost job's may be spent already. Or it is not enough, and there is more on the disk.
            Err(_) => self.replace(&bytes, true),
            spent => spent,
        }
    }

    /// Writes in place, which needs no new space, and only then makes it `state.json`.
    fn spend(&self, bytes: &[u8]) -> io::Result<()> {
        let file = self.dir.open_writable(RESERVE)?;
        file.write_all_at(bytes, 0)?;
        // Of zeros, or of an attempt that failed. The space behind the end is not given back: few KiB, and file systems
        // take longer to free them than for all else here (3.9 ms on ext4 that discards).
        if file.metadata()?.len() != bytes.len() as u64 {
            file.set_len(bytes.len() as u64)?;
        }
        file.sync_all()?;
        self.dir.rename(RESERVE, STATE)
    }

    fn replace(&self, bytes: &[u8], durable: bool) -> io::Result<()> {
        let new = format!("{STATE}.new");
        let mut file = self.create_anew(&new)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_all()?;
        }
        self.dir.rename(&new, STATE)
    }

    /// In place of what an attempt that failed has left.
    fn create_anew(&self, name: &str) -> io::Result<File> {
        match self.file(name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.dir.remove_file(name)?;
                self.file(name)
            }
            created => created,
        }
    }
}
