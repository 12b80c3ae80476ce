//! Bytes of output on their way to a client: read once, and sent from where they were read to.
//!
//! In front of them is room for what goes before them on the wire, so that nobody has to copy them to put it there. And
//! large buffers are used again while their reader is busy: fresh memory costs the kernel about as much as the read. A
//! reader that waits holds none.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

/// In front of the bytes, in bytes: as much as gRPC and protobuf take for a chunk, and to spare.
pub const ROOM_BYTES: usize = 64;

/// Fewer bytes get a buffer of just their length, which is not used again.
const LARGE_BYTES: usize = 16 << 10;

/// Buffers on a shelf, at most: one is being read to while two are sent.
const SHELVED: usize = 3;

/// Bytes with [`ROOM_BYTES`] in front of them.
pub struct Buffer {
    memory: Box<[u8]>,
    filled: Range<usize>,
    /// Where it goes afterwards, if that is still there.
    shelf: Weak<Shelf>,
}

/// A reader's large buffers that are not in use. All are of one size.
#[derive(Debug)]
pub(super) struct Shelf {
    large_bytes: usize,
    free: Mutex<Vec<Box<[u8]>>>,
}

impl Shelf {
    /// For buffers of up to so many bytes.
    pub(super) fn new(large_bytes: usize) -> Arc<Self> {
        Arc::new(Self { large_bytes, free: Mutex::default() })
    }

    /// A buffer of `length` bytes, which hold anything.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> Buffer {
        if !(LARGE_BYTES..=self.large_bytes).contains(&length) {
            return Buffer::new(length);
        }
        let used = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = used.unwrap_or_else(|| vec![0; ROOM_BYTES + self.large_bytes].into());
        Buffer { memory, filled: ROOM_BYTES..ROOM_BYTES + length, shelf: Arc::downgrade(self) }
    }
}

impl Buffer {
    /// `length` bytes, all zero.
    pub(super) fn new(length: usize) -> Self {
        let memory = vec![0; ROOM_BYTES + length].into();
        Self { memory, filled: ROOM_BYTES..ROOM_BYTES + length, shelf: Weak::new() }
    }

    /// The bytes, to be written.
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.filled.clone()]
    }

    /// Drops what is behind the first `length` bytes.
    pub(super) fn truncate(&mut self, length: usize) {
        self.filled.end = self.filled.end.min(self.filled.start + length);
    }

    /// Puts `head` in front of the bytes. No more than [`ROOM_BYTES`], over all calls.
    pub fn prepend(&mut self, head: &[u8]) {
        let begin = self.filled.start - head.len();
        self.memory[begin..self.filled.start].copy_from_slice(head);
        self.filled.start = begin;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(shelf) = self.shelf.upgrade() else { return };
        let mut free = shelf.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < SHELVED {
            free.push(std::mem::take(&mut self.memory));
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.filled.clone()]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Self {
        Self::from_owner(buffer)
    }
}

impl From<&[u8]> for Buffer {
    fn from(bytes: &[u8]) -> Self {
        let mut buffer = Self::new(bytes.len());
        buffer.as_mut().copy_from_slice(bytes);
        buffer
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Buffer {}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(shelf: &Shelf) -> usize {
        shelf.free.lock().unwrap().len()
    }

    #[test]
    fn what_is_put_in_front_stands_there() {
        let mut buffer = Buffer::from(&b"bytes"[..]);
        buffer.prepend(b"of ");
        buffer.prepend(&[b'-'; ROOM_BYTES - 3]);
        assert_eq!(*buffer, *[&[b'-'; ROOM_BYTES - 3][..], b"of bytes"].concat());
        buffer.truncate(ROOM_BYTES + 2);
        assert_eq!(Bytes::from(buffer), [&[b'-'; ROOM_BYTES - 3][..], b"of by"].concat());
    }

    #[test]
    fn a_large_buffer_is_used_again_and_whole() {
        let shelf = Shelf::new(LARGE_BYTES * 2);
        let mut first = shelf.take(LARGE_BYTES);
        first.truncate(1);
        first.prepend(b"head");
        let memory = first.memory.as_ptr();
        drop(Bytes::from(first));
        assert_eq!(free(&shelf), 1);
        let again = shelf.take(LARGE_BYTES * 2);
        assert_eq!((again.len(), again.memory.as_ptr()), (LARGE_BYTES * 2, memory));
        assert_eq!(free(&shelf), 0);
    }

    #[test]
    fn no_more_are_kept_than_pay_and_none_without_the_shelf() {
        let shelf = Shelf::new(LARGE_BYTES);
        drop([(); SHELVED + 2].map(|()| shelf.take(LARGE_BYTES)));
        drop([shelf.take(LARGE_BYTES - 1), shelf.take(LARGE_BYTES + 1)]);
        assert_eq!(free(&shelf), SHELVED);
        let late = shelf.take(LARGE_BYTES);
        drop(shelf);
        assert!(late.shelf.upgrade().is_none());
    }
}
