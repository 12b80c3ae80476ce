use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::job::fake::{FakeShim, spec};
use crate::job::folder::{Folder, INDEX, JobsDir, OUTPUT};
use crate::job::{JobId, Outcome};
use crate::output::Extent;
use crate::output::follower::{Event, Follower, From, Gap, GapReason, Selection};
use crate::output::hub::Hub;
use crate::shim::record::{JobsDirWriter, Readers};
use crate::tasks::Tasks;

const LIMIT_BYTES: u64 = OutputLimit::MIN_BYTES;

/// A log on a real file system.
struct Bench {
    _state_dir: TempDir,
    id: JobId,
    folder: Folder,
    log: Log,
}

impl Bench {
    fn new() -> Self {
        let state_dir = tempfile::tempdir().unwrap();
        let jobs = JobsDirWriter::make(state_dir.path(), None).unwrap();
        let spec = spec(JobId::random(), "alice");
        let folder = JobsDir::new(state_dir.path()).folder(spec.id);
        let mut writer = JobFolder::prepare(&jobs, Readers { group: None }).unwrap();
        writer.give_to(&spec).unwrap();
        let mut log = Log::create(&writer).unwrap();
        log.limit("1MiB".parse().unwrap());
        Self { _state_dir: state_dir, id: spec.id, folder, log }
    }

    fn write(&mut self, kind: Kind, length: usize) {
        let from = self.log.output_end;
        let bytes: Vec<u8> = (from..from + length as u64).map(byte).collect();
        self.log.append(kind, &bytes);
    }

    fn disk_bytes(&self) -> u64 {
        let blocks = |name| std::fs::metadata(self.folder.file(name)).unwrap().blocks();
        (blocks(OUTPUT) + blocks(INDEX)) * 512
    }

    async fn follow(&self, hub: &Hub, from: From, only: Option<Kind>) -> Follower {
        let selection = Selection { from, only, follow: true };
        let (folder, shutdown) = (self.folder.clone(), CancellationToken::new());
        Follower::open(self.id, folder, hub.clone(), selection, shutdown).await.unwrap()
    }
}

/// What a job writes at an offset; never the zero of a hole.
fn byte(offset: u64) -> u8 {
    u8::try_from(offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56).unwrap() | 1
}

/// Every byte from `next` on is either right or told to be gone. Returns how many were gone, and whether gaps came.
async fn check(mut follower: Follower, mut next: u64, only: bool) -> (u64, u64) {
    let (mut gone, mut end) = (0, 0);
    loop {
        let event = timeout(Duration::from_secs(60), follower.next()).await.expect("an event in time");
        match event.expect("the end comes first").unwrap() {
            Event::Chunk { offset, data, .. } => {
                assert!(offset == next || only && offset > next, "{offset} instead of {next}");
                assert!(data.iter().zip(offset..).all(|(got, at)| *got == byte(at)), "wrong at {offset}");
                next = offset + data.len() as u64;
            }
            Event::Gap(Gap { offset, length, reason }) => {
                assert!(offset == next || only && offset > next, "a gap at {offset} instead of {next}");
                assert_eq!(reason, GapReason::NoLongerKept);
                gone += length;
                next = offset + length;
            }
            Event::End(view) => {
                end = end.max(view.output.bytes);
                assert!(next == end || only && next <= end, "ended at {next} of {end}");
                return (gone, end);
            }
        }
    }
}

fn finish(bench: &Bench) {
    FakeShim::end(&bench.folder, Outcome::Exited { code: 0 });
}

#[tokio::test]
async fn the_oldest_bytes_make_room_and_readers_are_told() {
    for piece in [1, 700, 65_536] {
        let mut bench = Bench::new();
        let mut seen_kept = 0;
        let pieces = 2 * LIMIT_BYTES / (piece as u64 + 24) + 1;
        for number in 0..pieces {
            bench.write(if number % 3 == 0 { Kind::Stderr } else { Kind::Stdout }, piece);
            if bench.log.kept.offset > seen_kept {
                seen_kept = bench.log.kept.offset;
                let used = bench.log.used_bytes(bench.log.kept);
                let least_bytes = LIMIT_BYTES / 16 * 15 - 2 * 65_560;
                assert!((least_bytes..=LIMIT_BYTES).contains(&used), "{used} bytes are kept");
                // Header and partial blocks at both ends of both files, and what is set aside in the index.
                assert!(
                    bench.disk_bytes() <= LIMIT_BYTES + 4 * BLOCK_BYTES + ROOM_BYTES + RESERVE_BYTES,
                    "{} on disk",
                    bench.disk_bytes()
                );
            }
        }
        assert!(seen_kept > 0);
        let extent = Extent::read(&bench.folder).unwrap();
        assert_eq!((extent.bytes, extent.kept_from), (bench.log.output_end, bench.log.kept.offset));
        finish(&bench);
        let hub = Hub::new(&Tasks::default()).unwrap();
        let kept = extent.kept_from;
        for (from, next, gone) in [
            (From::Start, 0, kept),
            (From::Offset(kept / 2), kept / 2, kept - kept / 2),
            (From::Offset(kept), kept, 0),
            (From::Offset(kept + 5), kept + 5, 0),
            (From::Since { unix_usec: 0 }, kept, 0),
            (From::TailLines(u64::MAX), kept, 0),
        ] {
            let told = check(bench.follow(&hub, from, None).await, next, false).await;
            assert_eq!(told, (gone, extent.bytes), "from {from:?}");
            let told = check(bench.follow(&hub, from, Some(Kind::Stderr)).await, next, true).await;
            assert_eq!(told.0, gone, "from {from:?}, stderr only");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_are_overtaken_get_no_byte_that_is_not_the_jobs() {
    let mut bench = Bench::new();
    let hub = Hub::new(&Tasks::default()).unwrap();
    let mut checks = Vec::new();
    for only in [None, None, Some(Kind::Stdout), Some(Kind::Stderr)] {
        let follower = bench.follow(&hub, From::Start, only).await;
        checks.push(tokio::spawn(check(follower, 0, only.is_some())));
    }
    let writer = thread::spawn(move || {
        for number in 0..20_000u64 {
            let kind = if number % 5 == 0 { Kind::Stderr } else { Kind::Stdout };
            bench.write(kind, usize::try_from(number % 97 * 89 + 1).unwrap());
        }
        finish(&bench);
        bench
    });
    for check in checks {
        let (_gone, end) = check.await.unwrap();
        assert!(end > 50 * LIMIT_BYTES, "{end} bytes were written");
    }
    drop(writer.join().unwrap());
}

#[tokio::test]
async fn without_holes_what_comes_after_the_limit_is_not_stored() {
    let mut bench = Bench::new();
    bench.log.can_punch = false;
    for _ in 0..40 {
        bench.write(Kind::Stdout, 65_536);
    }
    assert_eq!(bench.log.kept, Kept::default());
    assert!(bench.disk_bytes() <= LIMIT_BYTES + ROOM_BYTES + RESERVE_BYTES);
    let stored = bench.log.output_end - bench.log.lost_bytes;
    assert!(stored <= LIMIT_BYTES && stored > LIMIT_BYTES - 2 * 65_536, "{stored} bytes were stored");
}
