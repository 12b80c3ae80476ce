use std::fs;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::*;
use crate::job::fake::{FakeShim, spec};
use crate::job::folder::JobsDir;
use crate::job::{Outcome, Spec};
use crate::tasks::Tasks;

const ALL: Selection = Selection { from: From::Start, only: None, follow: true };

/// A worker's worth of things for one job.
struct Bench {
    _state_dir: TempDir,
    jobs: JobsDir,
    spec: Spec,
    hub: Hub,
    shutdown: CancellationToken,
}

impl Bench {
    fn new() -> Self {
        let state_dir = tempfile::tempdir().unwrap();
        let jobs = JobsDir::new(state_dir.path());
        let spec = spec(JobId::random(), "alice");
        let shutdown = CancellationToken::new();
        Self { _state_dir: state_dir, jobs, spec, hub: Hub::new(&Tasks::default()).unwrap(), shutdown }
    }

    fn start(&self) -> FakeShim {
        FakeShim::start(&self.jobs, &self.spec)
    }

    async fn try_follow(&self, selection: Selection) -> Result<Follower, EngineError> {
        let folder = self.jobs.folder(self.spec.id);
        Follower::open(self.spec.id, folder, self.hub.clone(), selection, self.shutdown.clone()).await
    }

    async fn follow(&self, selection: Selection) -> Follower {
        self.try_follow(selection).await.unwrap()
    }
}

async fn next(follower: &mut Follower) -> Option<Result<Event, EngineError>> {
    timeout(Duration::from_secs(30), follower.next()).await.expect("an event in time")
}

/// The next chunk's bytes.
async fn chunk(follower: &mut Follower) -> (u64, Kind, u64, Vec<u8>) {
    match next(follower).await {
        Some(Ok(Event::Chunk { offset, kind, time_unix_usec, data })) => {
            (offset, kind, time_unix_usec, data.to_vec())
        }
        other => panic!("{other:?} is no chunk"),
    }
}

/// Everything up to the end, byte by byte: `None` for a byte of a gap. And whether the job's end was told.
async fn drain(follower: &mut Follower) -> (Vec<(u64, Kind, Option<u8>)>, bool) {
    let mut bytes = Vec::new();
    let mut ended = false;
    while let Some(event) = next(follower).await {
        assert!(!ended, "{event:?} after the end");
        match event.unwrap() {
            Event::Chunk { offset, kind, data, .. } => {
                assert!(!data.is_empty() && data.len() <= 256 << 10, "a chunk of {} bytes", data.len());
                bytes.extend((offset..).zip(&*data).map(|(offset, byte)| (offset, kind, Some(*byte))));
            }
            Event::Gap(Gap { offset, length, .. }) => {
                bytes.extend((offset..offset + length).map(|offset| (offset, Kind::Gap, None)));
            }
            Event::End(view) => ended = view.is_finished(),
        }
    }
    (bytes, ended)
}

/// What a shim appended, and what a reader should see of it by going through all of it.
#[derive(Clone, Debug)]
struct Written {
    kind: Kind,
    time_unix_usec: u64,
    bytes: Vec<u8>,
}

fn expected(written: &[Written], from: From, only: Option<Kind>) -> Vec<(u64, Kind, Option<u8>)> {
    let mut all = Vec::new();
    for Written { kind, time_unix_usec, bytes } in written {
        for byte in bytes {
            let byte = (*kind != Kind::Gap).then_some(*byte);
            all.push((all.len() as u64, *kind, byte, *time_unix_usec));
        }
    }
    let end = all.len() as u64;
    let begin = match from {
        From::Start => 0,
        From::Offset(offset) => offset,
        From::Since { unix_usec } => all.iter().find(|byte| byte.3 >= unix_usec).map_or(end, |byte| byte.0),
        From::TailLines(0) => end,
        From::TailLines(lines) => {
            let mut text =
                all.iter().filter(|byte| byte.2.is_some() && only.is_none_or(|only| only == byte.1)).rev();
            text.next();
            let newlines = text.filter(|byte| byte.2 == Some(b'\n'));
            newlines.map(|byte| byte.0 + 1).nth(usize::try_from(lines).unwrap() - 1).unwrap_or(0)
        }
    };
    let wanted = |kind| kind == Kind::Gap || only.is_none_or(|only| only == kind);
    let seen = all.into_iter().filter(|byte| byte.0 >= begin && wanted(byte.1));
    seen.map(|(offset, kind, byte, _)| (offset, kind, byte)).collect()
}

fn any_written() -> impl Strategy<Value = Vec<Written>> {
    let kind = prop_oneof![4 => Just(Kind::Stdout), 3 => Just(Kind::Stderr), 1 => Just(Kind::Gap)];
    let bytes = prop::collection::vec(prop_oneof![Just(b'a'), Just(b'\n'), any::<u8>()], 1..40);
    prop::collection::vec((kind, 0u64..20_000, bytes), 0..40).prop_map(|parts| {
        let mut time_unix_usec = 1_000_000;
        let written = parts.into_iter().map(|(kind, later_usec, bytes)| {
            time_unix_usec += later_usec;
            Written { kind, time_unix_usec, bytes }
        });
        written.collect()
    })
}

fn any_from() -> impl Strategy<Value = From> {
    prop_oneof![
        Just(From::Start),
        (0u64..900).prop_map(From::Offset),
        (0u64..30).prop_map(From::TailLines),
        (900_000u64..1_500_000).prop_map(|unix_usec| From::Since { unix_usec }),
    ]
}

fn write(shim: &mut FakeShim, written: &[Written]) {
    for Written { kind, time_unix_usec, bytes } in written {
        match kind {
            Kind::Gap => shim.lose(*time_unix_usec, bytes.len()),
            kind => shim.append(*kind, *time_unix_usec, bytes),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn from_any_place_every_byte_comes_once_and_in_order(
        written in any_written(),
        from in any_from(),
        only in prop_oneof![Just(None), Just(Some(Kind::Stdout)), Just(Some(Kind::Stderr))],
        follow: bool,
        finished: bool,
    ) {
        Runtime::new().unwrap().block_on(async {
            let bench = Bench::new();
            let mut shim = bench.start();
            write(&mut shim, &written);
            shim.half_a_record();
            let finish = || shim.exit(0);
            if finished {
                finish();
            }
            let mut follower = bench.follow(Selection { from, only, follow }).await;
            if follow && !finished {
                finish();
            }
            let (seen, ended) = drain(&mut follower).await;
            assert_eq!(seen, expected(&written, from, only));
            assert_eq!(ended, follow || finished);
        });
    }

    /// The same while it is written: bounds that lie ahead hold for what comes.
    #[test]
    fn what_comes_later_is_judged_by_the_same_bounds(
        written in any_written(),
        from in prop_oneof![
            (0u64..900).prop_map(From::Offset),
            (900_000u64..1_500_000).prop_map(|unix_usec| From::Since { unix_usec }),
        ],
    ) {
        Runtime::new().unwrap().block_on(async {
            let bench = Bench::new();
            let mut shim = bench.start();
            let mut follower = bench.follow(Selection { from, ..ALL }).await;
            let following = tokio::spawn(async move { drain(&mut follower).await });
            write(&mut shim, &written);
            shim.exit(0);
            assert_eq!(following.await.unwrap(), (expected(&written, from, None), true));
        });
    }
}

/// Bytes that look like none of their neighbours.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn several_followers_get_all_of_it_while_it_is_written() {
    const LENGTH: usize = 16 << 20;
    let bench = Bench::new();
    let mut shim = bench.start();
    let bytes = noise(LENGTH);
    let collect = |mut follower: Follower| {
        tokio::spawn(async move {
            let mut collected: Vec<u8> = Vec::new();
            loop {
                match next(&mut follower).await {
                    Some(Ok(Event::Chunk { data, .. })) => collected.extend(&*data),
                    Some(Ok(Event::End(_))) => return collected,
                    other => panic!("{other:?}"),
                }
            }
        })
    };
    let offsets = [0, 1, 70_001, 5 << 20, LENGTH as u64 - 1, LENGTH as u64];
    let mut followers = Vec::new();
    for offset in offsets {
        followers.push(collect(bench.follow(Selection { from: From::Offset(offset), ..ALL }).await));
    }
    let writer = std::thread::spawn({
        let bytes = bytes.clone();
        move || {
            let (mut rest, mut step) = (&bytes[..], 1);
            while !rest.is_empty() {
                step = (step * 7919 + 13) % 65_536 + 1;
                let (now, later) = rest.split_at(step.min(rest.len()));
                let kind = if step % 3 == 0 { Kind::Stderr } else { Kind::Stdout };
                shim.append(kind, step as u64, now);
                rest = later;
            }
            shim.exit(0);
        }
    });
    for (follower, offset) in followers.into_iter().zip(offsets) {
        let begin = usize::try_from(offset).unwrap();
        assert!(follower.await.unwrap() == bytes[begin..], "from {offset}");
    }
    writer.join().unwrap();
    assert!(collect(bench.follow(ALL).await).await.unwrap() == bytes, "after the end");
}

#[tokio::test]
async fn each_single_byte_arrives_alone() {
    let bench = Bench::new();
    let mut shim = bench.start();
    let mut follower = bench.follow(ALL).await;
    for offset in 0..500 {
        let byte = [u8::try_from(offset % 251).unwrap()];
        shim.append(Kind::Stdout, 7, &byte);
        assert_eq!(chunk(&mut follower).await, (offset, Kind::Stdout, 7, byte.to_vec()));
    }
    shim.exit(3);
    let Some(Ok(Event::End(view))) = next(&mut follower).await else { panic!("no end") };
    assert_eq!(view.state.unwrap().finished().unwrap().outcome, Outcome::Exited { code: 3 });
    assert_eq!(view.output.bytes, 500);
    assert!(next(&mut follower).await.is_none());
}

#[tokio::test]
async fn a_chunk_is_a_quarter_mebibyte_at_most_and_one_moment_long() {
    let bench = Bench::new();
    let mut shim = bench.start();
    for part in 0..10 {
        shim.append(Kind::Stdout, 100 + part, &[1; 64 << 10]);
    }
    shim.append(Kind::Stdout, 10_108, b"10 ms later than the chunk began");
    shim.append(Kind::Stdout, 10_200, b"and more than that");
    shim.append(Kind::Stderr, 10_200, b"other stream");
    shim.append(Kind::Stdout, 30_000, &[2; (256 << 10) + 1]);
    shim.exit(0);
    let mut follower = bench.follow(ALL).await;
    let mut chunks = Vec::new();
    while let Some(Ok(Event::Chunk { kind, time_unix_usec, data, .. })) = next(&mut follower).await {
        chunks.push((kind, time_unix_usec, data.len()));
    }
    let stdout = |time_unix_usec, length| (Kind::Stdout, time_unix_usec, length);
    assert_eq!(
        chunks,
        [
            stdout(103, 256 << 10),
            stdout(107, 256 << 10),
            stdout(10_108, (128 << 10) + 32),
            stdout(10_200, 18),
            (Kind::Stderr, 10_200, 12),
            stdout(30_000, 256 << 10),
            stdout(30_000, 1),
        ]
    );
}

#[tokio::test]
async fn a_job_that_is_starting_is_waited_for() {
    let bench = Bench::new();
    let folder = FakeShim::prepare(&bench.jobs, &bench.spec);
    let mut follower = bench.follow(Selection { from: From::TailLines(1), ..ALL }).await;
    let following = tokio::spawn(async move { drain(&mut follower).await });
    let mut shim = FakeShim::open(&folder);
    shim.append(Kind::Stdout, 1, b"only line\n");
    shim.exit(0);
    let (seen, ended) = following.await.unwrap();
    assert!(ended && seen.len() == 10, "{seen:?}");
}

#[tokio::test]
async fn without_following_a_running_job_ends_where_it_is() {
    let bench = Bench::new();
    let mut shim = bench.start();
    shim.append(Kind::Stdout, 1, b"there");
    let mut follower = bench.follow(Selection { follow: false, ..ALL }).await;
    shim.append(Kind::Stdout, 2, b"too late");
    shim.exit(0);
    let (seen, ended) = drain(&mut follower).await;
    assert_eq!((seen.len(), ended), (5, false));
}

#[tokio::test]
async fn bytes_that_a_crash_took_are_a_gap() {
    let bench = Bench::new();
    let mut shim = bench.start();
    shim.append(Kind::Stdout, 1, b"kept");
    shim.record(Kind::Stdout, 2, 6);
    shim.record(Kind::Stderr, 3, 2);
    shim.exit(0);
    let (seen, ended) = drain(&mut bench.follow(ALL).await).await;
    let gap = (4..12).map(|offset| (offset, Kind::Gap, None));
    let kept = (0..).zip(b"kept").map(|(offset, byte)| (offset, Kind::Stdout, Some(*byte)));
    assert_eq!((seen, ended), (kept.chain(gap).collect(), true));
}

#[tokio::test]
async fn a_folder_that_is_removed_ends_its_followers() {
    let bench = Bench::new();
    let mut shim = bench.start();
    shim.append(Kind::Stdout, 1, b"x");
    let mut follower = bench.follow(ALL).await;
    chunk(&mut follower).await;
    let following =
        tokio::spawn(async move { (next(&mut follower).await, next(&mut follower).await.is_none()) });
    fs::remove_dir_all(shim.folder().path()).unwrap();
    let (error, ended) = following.await.unwrap();
    assert!(matches!(error, Some(Err(EngineError::NotFound { .. }))), "{error:?}");
    assert!(ended);
    for follow in [true, false] {
        let error = bench.try_follow(Selection { follow, ..ALL }).await.err().unwrap();
        assert!(matches!(error, EngineError::NotFound { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_ended_job_that_is_removed_is_read_to_its_end() {
    let bench = Bench::new();
    let mut shim = bench.start();
    shim.append(Kind::Stdout, 1, b"first");
    shim.append(Kind::Stderr, 2, b"second");
    shim.exit(3);
    let mut follower = bench.follow(ALL).await;
    chunk(&mut follower).await;
    fs::remove_dir_all(shim.folder().path()).unwrap();
    let (seen, ended) = drain(&mut follower).await;
    assert_eq!((seen.len(), ended), (6, true), "{seen:?}");
}

#[tokio::test]
async fn a_shutdown_ends_followers_with_an_error() {
    let bench = Bench::new();
    let _shim = bench.start();
    let mut follower = bench.follow(ALL).await;
    let following = tokio::spawn(async move { next(&mut follower).await });
    bench.shutdown.cancel();
    assert!(matches!(following.await.unwrap(), Some(Err(EngineError::ShuttingDown))));
}

#[tokio::test]
async fn a_damaged_index_is_an_error_that_names_the_place() {
    let bench = Bench::new();
    let shim = bench.start();
    let path = shim.folder().file("index");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend([0; 24]);
    fs::write(&path, &bytes).unwrap();
    shim.exit(0);
    let error = next(&mut bench.follow(ALL).await).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("index, record 0") && error.contains("kind 0"), "{error}");

    fs::write(&path, [b'x'; 24]).unwrap();
    let error = bench.try_follow(ALL).await.err().unwrap().to_string();
    assert!(error.contains("not an index"), "{error}");
}

/// The disk took the outcome, and no record of what it did not take before.
#[tokio::test]
async fn a_gap_at_the_end_that_has_no_record_is_told() {
    for (from, only) in [(From::Start, None), (From::Offset(3), None), (From::Start, Some(Kind::Stderr))] {
        let bench = Bench::new();
        let mut shim = bench.start();
        shim.append(Kind::Stdout, 1, b"kept");
        shim.lose_untold(7);
        shim.exit(0);
        let (bytes, ended) = drain(&mut bench.follow(Selection { from, only, follow: true }).await).await;
        let gap: Vec<u64> = bytes.iter().filter(|byte| byte.1 == Kind::Gap).map(|byte| byte.0).collect();
        assert_eq!((gap, ended), ((4..11).collect(), true), "{from:?} {only:?}");
    }
    let bench = Bench::new();
    let mut shim = bench.start();
    shim.lose_untold(7);
    shim.exit(0);
    let beyond = Selection { from: From::Offset(7), ..ALL };
    assert_eq!(drain(&mut bench.follow(beyond).await).await, (Vec::new(), true), "nothing was asked for");
}
