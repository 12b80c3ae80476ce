//! The lengths of a request's messages, as gRPC writes them in front of each: one that is too long is refused before
//! anything of it is kept.
//!
//! ```text
//!  compressed?   length             the message
//!  1 byte        u32, big endian    …
//! ```

/// gRPC's flag and length, in bytes.
const PREFIX_BYTES: usize = 5;

/// Where in its messages a request's body is.
#[derive(Debug)]
pub(super) struct Messages {
    max_bytes: usize,
    prefix: [u8; PREFIX_BYTES],
    /// How much of the prefix has come.
    prefix_bytes: usize,
    /// How much of the message behind it has not.
    left_bytes: usize,
}

/// A message's length that is above the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong(pub(super) usize);

impl Messages {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, prefix: [0; PREFIX_BYTES], prefix_bytes: 0, left_bytes: 0 }
    }

    /// Passes over a piece of the body.
    ///
    /// # Errors
    /// When a message begins in it that is too long.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if self.left_bytes > 0 {
                let passed = self.left_bytes.min(bytes.len());
                self.left_bytes -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (PREFIX_BYTES - self.prefix_bytes).min(bytes.len());
            self.prefix[self.prefix_bytes..][..taken].copy_from_slice(&bytes[..taken]);
            self.prefix_bytes += taken;
            bytes = &bytes[taken..];
            if self.prefix_bytes == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                let length = u32::from_be_bytes(length) as usize;
                if length > self.max_bytes {
                    return Err(TooLong(length));
                }
                (self.prefix_bytes, self.left_bytes) = (0, length);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(lengths: &[usize]) -> Vec<u8> {
        let message = |length: &usize| {
            [&[0][..], &u32::try_from(*length).unwrap().to_be_bytes(), &vec![0xff; *length]].concat()
        };
        lengths.iter().flat_map(message).collect()
    }

    proptest! {
        /// However the body is cut into pieces.
        #[test]
        fn the_first_that_is_too_long_is_found(
            lengths in prop::collection::vec(0..40usize, 0..6),
            max_bytes in 0..40usize,
            piece in 1..20usize,
        ) {
            let mut messages = Messages::new(max_bytes);
            let found = body(&lengths).chunks(piece).try_for_each(|piece| messages.pass(piece));
            let expected = lengths.iter().find(|length| **length > max_bytes).map(|length| TooLong(*length));
            prop_assert_eq!(found.err(), expected);
        }
    }

    #[test]
    fn the_longest_length_is_no_overflow() {
        assert_eq!(Messages::new(9).pass(&[0, 255, 255, 255, 255]), Err(TooLong(u32::MAX as usize)));
    }
}
