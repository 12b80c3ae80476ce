//! A job's output and the index beside it, by the way that a client's stream reads them.
//!
//! The shim wrote both, but a host that crashed may have kept any part of them.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use jobworker::job::JobId;
use jobworker::job::engine::{Event, From};
use jobworker::job::folder::{Folder, INDEX, OUTPUT};
use jobworker::output::index::{self, Kept, Kind};
use jobworker::policy::action;
use jobworker_fuzz::worker::Worker;
use libfuzzer_sys::fuzz_target;

/// Header of version 1 of the format, in which nothing is given back.
const HEADER_1: &[u8; 24] = b"jobworker index\0\x01\0\0\0\x18\0\0\0";

#[derive(Arbitrary, Debug)]
struct Input {
    output: Vec<u8>,
    index: Index,
    front: Front,
    from: Place,
    only: Option<bool>,
    finished: bool,
}

#[derive(Arbitrary, Debug)]
enum Index {
    /// Whatever.
    Bytes(Vec<u8>),
    /// Behind the header, whatever.
    Records(Vec<u8>),
    /// One behind the other, as a shim writes them; and half a one.
    Contiguous(Vec<(u8, u16, u16)>, Vec<u8>),
    /// None of it fits.
    Any(Vec<(u8, u16, u64, u32)>),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Front {
    V1,
    /// Nothing was given back.
    V2,
    /// Everything before a record that is there, or that will be the next.
    GivenBack(u8),
    Any(u64, u64),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    Start,
    Offset(u64),
    NearOffset(u16),
    TailLines(u64),
    FewLines(u8),
    Since(u64),
}

struct Bench {
    worker: Worker,
    running: (JobId, Folder),
    finished: (JobId, Folder),
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let worker = Worker::new();
    let add = |finished| {
        let id = JobId::random();
        (id, worker.add(id, finished))
    };
    let (running, finished) = (add(false), add(true));
    Bench { worker, running, finished }
});

fuzz_target!(|input: Input| {
    let Bench { worker, running, finished } = &*BENCH;
    let (id, folder) = if input.finished { finished } else { running };
    let (index, whole) = input.index.encode(input.front);
    fs::write(folder.file(OUTPUT), &input.output).unwrap();
    fs::write(folder.file(INDEX), index).unwrap();
    let only = input.only.map(|stdout| if stdout { Kind::Stdout } else { Kind::Stderr });
    let mut told = 0;
    let ended = worker.runtime.block_on(async {
        let permit = worker.permit(action::Stream { job: *id });
        let mut follower =
            worker.engine.stream(permit, input.from.into(), only, input.finished).await.ok()?;
        loop {
            match follower.next().await {
                Some(Ok(Event::Chunk { offset, kind, data, .. })) => {
                    assert!(!data.is_empty() && only.is_none_or(|only| only == kind));
                    let begin = usize::try_from(offset).unwrap();
                    assert_eq!(input.output[begin..][..data.len()], data);
                    told += data.len() as u64;
                }
                Some(Ok(Event::Gap { .. })) => told = told.saturating_add(u64::MAX / 2),
                Some(Ok(Event::End(view))) => {
                    assert!(view.is_finished() && input.finished);
                    return Some(true);
                }
                Some(Err(error)) => {
                    assert!(!error.to_string().is_empty());
                    return None;
                }
                None => return Some(false),
            }
        }
    });
    // What a shim writes is read, to its end.
    let Some(whole) = whole else { return };
    assert_eq!(ended, Some(input.finished));
    let is_all = matches!(input.from, Place::Start) && only.is_none();
    if is_all && !whole.has_gap && whole.bytes <= input.output.len() as u64 {
        assert_eq!(told, whole.bytes);
    }
});

/// What an index tells of that was written as a shim writes it.
struct Whole {
    bytes: u64,
    has_gap: bool,
}

impl Index {
    fn encode(&self, front: Front) -> (Vec<u8>, Option<Whole>) {
        let mut index = match front {
            Front::V1 => HEADER_1.to_vec(),
            Front::V2 | Front::GivenBack(_) => [index::HEADER, Kept::default().encode()].concat(),
            Front::Any(record, offset) => [index::HEADER, Kept { record, offset }.encode()].concat(),
        };
        match self {
            Self::Bytes(bytes) => (bytes.clone(), None),
            Self::Records(records) => ([&index::HEADER[..], records].concat(), None),
            Self::Contiguous(records, half) => {
                let (mut offset, mut has_gap) = (0u64, matches!(front, Front::GivenBack(_)));
                for (number, (kind, time, length)) in records.iter().enumerate() {
                    if matches!(front, Front::GivenBack(kept) if usize::from(kept) == number) {
                        index[24..48].copy_from_slice(&Kept { record: number as u64, offset }.encode());
                    }
                    has_gap |= kind % 3 == 2;
                    let length = u32::from(*length);
                    index.extend(record(kind % 3 + 1, u64::from(*time), offset, length));
                    offset += u64::from(length);
                }
                index.extend(&half[..half.len().min(23)]);
                let is_any = matches!(front, Front::Any(..));
                (index, (!is_any).then_some(Whole { bytes: offset, has_gap }))
            }
            Self::Any(records) => {
                for (kind, time, offset, length) in records {
                    index.extend(record(*kind, u64::from(*time), *offset, *length));
                }
                (index, None)
            }
        }
    }
}

fn record(kind: u8, time: u64, offset: u64, length: u32) -> impl Iterator<Item = u8> {
    let words = offset.to_le_bytes().into_iter().chain(time.to_le_bytes());
    words.chain(length.to_le_bytes()).chain([kind, 0, 0, 0])
}

impl std::convert::From<Place> for From {
    fn from(place: Place) -> Self {
        match place {
            Place::Start => Self::Start,
            Place::Offset(offset) => Self::Offset(offset),
            Place::NearOffset(offset) => Self::Offset(offset.into()),
            Place::TailLines(lines) => Self::TailLines(lines),
            Place::FewLines(lines) => Self::TailLines(lines.into()),
            Place::Since(unix_usec) => Self::Since { unix_usec },
        }
    }
}
