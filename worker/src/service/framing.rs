//! Messages of a stream as they stand on the wire: gRPC's prefix, then protobuf.
//!
//! A chunk's bytes stay where they were read to, and the rest is written in front of them, in the room that a
//! [`Buffer`] has there; the generated code would copy them twice. To the client it makes no difference: `data` is
//! the last field of `Chunk`, and that all there is in a `StreamResponse`.
//!
//! ```text
//!  not compressed   message's length   chunk = 1   its length   offset, stream, time   data = 4   its length   bytes
//!  0                u32, big endian    0a          varint       08 … 10 … 18 …         22         varint       …
//! ```

use bytes::{BufMut, Bytes};
use jobworker_proto::v1;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::reply;
use crate::job::engine::Event;
use crate::output::{Buffer, ROOM_BYTES};
use crate::policy::Claim;

/// Numbers of fields: `StreamResponse.chunk` and `Chunk.data`. Below 16, so that their keys take one byte.
const CHUNK: u32 = 1;
const DATA: u32 = 4;
const KEY_BYTES: usize = 1;

/// gRPC's flag and length, in bytes.
const PREFIX_BYTES: usize = 5;

/// A piece of output, or the end, as one with the claim `viewer` may see it.
pub(super) fn frame(event: Event, viewer: &Claim) -> Bytes {
    match event {
        Event::Chunk { offset, kind, time_unix_usec, data } => {
            chunk(&reply::chunk(offset, kind, time_unix_usec), data)
        }
        Event::Gap(gap) => message(&reply::gap(gap)),
        Event::End(view) => message(&reply::end(*view, viewer)),
    }
}

fn message(message: &v1::StreamResponse) -> Bytes {
    let length = message.encoded_len();
    let mut frame = Vec::with_capacity(PREFIX_BYTES + length);
    put_prefix(length, &mut frame);
    message.encode_raw(&mut frame);
    frame.into()
}

/// `head`: the chunk without its bytes.
fn chunk(head: &v1::Chunk, mut data: Buffer) -> Bytes {
    let nested = |length: usize| KEY_BYTES + encoded_len_varint(length as u64) + length;
    let chunk_length = head.encoded_len() + nested(data.len());
    let mut room = [0; ROOM_BYTES];
    let mut front = &mut room[..];
    put_prefix(nested(chunk_length), &mut front);
    encode_key(CHUNK, WireType::LengthDelimited, &mut front);
    encode_varint(chunk_length as u64, &mut front);
    head.encode_raw(&mut front);
    encode_key(DATA, WireType::LengthDelimited, &mut front);
    encode_varint(data.len() as u64, &mut front);
    let used = ROOM_BYTES - front.len();
    data.prepend(&room[..used]);
    data.into()
}

fn put_prefix(length: usize, front: &mut impl BufMut) {
    front.put_u8(0);
    front.put_u32(u32::try_from(length).expect("a message is far below 4 GiB"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::engine::{Gap, GapReason, JobView};
    use crate::job::{JobId, fake};
    use crate::output::index::Kind;

    /// As the generated code has it.
    fn generated(message: &v1::StreamResponse) -> Vec<u8> {
        let length = u32::try_from(message.encoded_len()).unwrap();
        [&[0][..], &length.to_be_bytes(), &message.encode_to_vec()].concat()
    }

    fn check(offset: u64, kind: Kind, time_unix_usec: u64, bytes: &[u8]) {
        let event = Event::Chunk { offset, kind, time_unix_usec, data: bytes.into() };
        let data = Bytes::copy_from_slice(bytes);
        let chunk = v1::Chunk { data, ..reply::chunk(offset, kind, time_unix_usec) };
        let message = v1::StreamResponse { event: Some(v1::stream_response::Event::Chunk(chunk)) };
        assert!(
            frame(event, &Claim::Name("alice".to_owned())) == generated(&message),
            "{offset} {kind:?} {time_unix_usec}"
        );
    }

    proptest! {
        #[test]
        fn a_chunk_is_what_the_generated_code_makes_of_it(
            offset: u64,
            time_unix_usec: u64,
            // Never empty, and an empty field is left out.
            bytes in prop::collection::vec(any::<u8>(), 1..1000),
        ) {
            check(offset, Kind::Stdout, time_unix_usec, &bytes);
            check(offset, Kind::Stderr, time_unix_usec, &bytes);
        }
    }

    #[test]
    fn the_longest_and_the_shortest_are_too() {
        for length in [1, 127, 128, 16_383, 16_384, (256 << 10) - 1, 256 << 10] {
            for number in [0, 1, u64::from(u32::MAX), u64::MAX] {
                check(number, Kind::Stderr, number, &vec![b'x'; length]);
            }
        }
    }

    #[test]
    fn what_has_no_bytes_is_framed_as_well() {
        let gap = Gap { offset: 7, length: 300, reason: GapReason::NoLongerKept };
        assert_eq!(frame(Event::Gap(gap), &Claim::Name("alice".to_owned())), generated(&reply::gap(gap)));
        let state_dir = tempfile::tempdir().unwrap();
        let jobs = crate::job::folder::JobsDir::new(state_dir.path());
        let shim = fake::FakeShim::start(&jobs, &fake::spec(JobId::random(), "alice"));
        shim.exit(3);
        let view = || JobView::read_finished(shim.folder()).unwrap().unwrap();
        let expected = generated(&reply::end(view(), &Claim::Name("alice".to_owned())));
        assert_eq!(frame(Event::End(Box::new(view())), &Claim::Name("alice".to_owned())), expected);
    }
}
