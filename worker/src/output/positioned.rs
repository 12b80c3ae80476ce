//! Positioned reads for async threads: pages that are in memory are copied where they are asked for, and only a read
//! that would wait for the disk goes to a thread that may (`RWF_NOWAIT`, preadv2(2)).

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task;

use super::buffer::Buffer;

/// Fills `buffer` from `offset` on; it becomes shorter only where the file ends before.
///
/// # Errors
/// What the file system says.
pub(super) async fn read_at(file: &Arc<File>, offset: u64, mut buffer: Buffer) -> io::Result<Buffer> {
    let mut filled = 0;
    while filled < buffer.len() {
        let rest = &mut [IoSliceMut::new(&mut buffer.as_mut()[filled..])];
        match preadv2(file, rest, offset + filled as u64, ReadWriteFlags::NOWAIT) {
            Ok(0) => {
                buffer.truncate(filled);
                break;
            }
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            // The disk is needed; or this file system (or sandbox) does not know the flag.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => {
                let file = Arc::clone(file);
                let blocking = task::spawn_blocking(move || fill_at(&file, offset, buffer, filled));
                return blocking.await.map_err(io::Error::other)?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(buffer)
}

/// The rest of `buffer`, from `filled` on.
fn fill_at(file: &File, offset: u64, mut buffer: Buffer, mut filled: usize) -> io::Result<Buffer> {
    while filled < buffer.len() {
        match file.read_at(&mut buffer.as_mut()[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// As [`read_at`] with a buffer of `length` bytes, on a thread that may block.
///
/// # Errors
/// What the file system says.
pub(super) fn read_at_blocking(file: &File, offset: u64, length: usize) -> io::Result<Buffer> {
    fill_at(file, offset, Buffer::new(length), 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

    use super::*;

    fn file(bytes: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file)
    }

    #[tokio::test]
    async fn pages_in_memory_and_pages_on_disk_read_the_same() {
        let bytes: Vec<u8> = (0..1_000_003_u32).map(|n| n.to_le_bytes()[usize::from(n % 3 == 0)]).collect();
        let file = file(&bytes);
        assert!(*read_at(&file, 0, Buffer::new(bytes.len())).await.unwrap() == *bytes);
        file.sync_all().unwrap();
        posix_fadvise(&*file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        assert!(*read_at(&file, 4097, Buffer::new(500_000)).await.unwrap() == bytes[4097..504_097]);
        assert!(*read_at_blocking(&file, 0, bytes.len()).unwrap() == *bytes);
    }

    #[tokio::test]
    async fn only_the_end_of_the_file_makes_a_read_short() {
        let file = file(b"0123456789");
        assert_eq!(*read_at(&file, 8, Buffer::new(5)).await.unwrap(), *b"89");
        assert_eq!(*read_at(&file, 10, Buffer::new(5)).await.unwrap(), *b"");
        assert_eq!(*read_at_blocking(&file, 8, 5).unwrap(), *b"89");
        // What was read before the disk was needed is kept.
        assert_eq!(*fill_at(&file, 0, Buffer::from(&b"ab.."[..]), 2).unwrap(), *b"ab23");
    }
}
