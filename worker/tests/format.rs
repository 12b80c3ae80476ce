//! Jobs' folders as builds before this one wrote them. Files of a released format are never changed here, only added to.

use std::fs;
use std::path::Path;

use jobworker::job::folder::{Folder, INDEX, JobsDir, OUTPUT};
use jobworker::job::{Ended, Outcome};
use jobworker::output::Extent;
use jobworker::output::index::{Kind, RECORD_BYTES, Record, Version};

fn folder(id: &str) -> Folder {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1");
    JobsDir::new(&fixtures).folder(id.parse().expect("an id"))
}

fn outcome(folder: &Folder) -> Outcome {
    let state = folder.state().expect("a state that can be read").expect("a state");
    assert_eq!((state.version, &*state.user), (1, "nobody"));
    state.finished().expect("it is finished").outcome.clone()
}

fn records(folder: &Folder) -> Vec<(u64, u32, Kind)> {
    let index = fs::read(folder.file(INDEX)).expect("an index");
    let header = index[..RECORD_BYTES].try_into().expect("24 bytes");
    let begin = usize::try_from(Version::of(header).expect("a header").record_at(0)).expect("a small file");
    let (records, rest) = index[begin..].as_chunks::<RECORD_BYTES>();
    assert!(rest.is_empty());
    let records = records.iter().map(|bytes| Record::decode(bytes).expect("a record"));
    records.map(|record| (record.offset, record.length, record.kind)).collect()
}

#[test]
fn a_finished_job_of_format_1_reads_as_it_was_written() {
    let folder = folder("96b24eea-6952-483f-9262-5e5cbc087e96");
    let spec = folder.spec().expect("a spec that can be read").expect("a spec");
    assert_eq!((spec.version, &*spec.owner.name, &*spec.owner.role), (1, "alice", "admin"));
    let request = spec.request;
    assert_eq!((request.command.as_bytes(), request.name.as_deref()), (&b"sh"[..], Some("greeting")));
    assert_eq!(request.args[1].as_bytes(), b"echo \"$GREETING\"; exit 3");
    assert_eq!((&*request.env[0].0, request.env[0].1.as_bytes()), ("GREETING", &b"hello"[..]));
    assert!(request.limits.is_empty() && request.timeout_msec.is_none());
    assert_eq!(outcome(&folder), Outcome::Exited { code: 3 });
    assert_eq!(records(&folder), [(0, 6, Kind::Stdout)]);
    assert_eq!(folder.last_writer(), None, "that build left the lock empty");
}

#[test]
fn a_stopped_job_of_format_1_reads_as_it_was_written() {
    let folder = folder("5b0c2f4e-6a1d-4e83-9c7f-0d2e8a4b6c10");
    let stopped = Outcome::Stopped { by: "alice".to_owned(), ended: Ended::Signaled(15) };
    assert_eq!(outcome(&folder), stopped);
}

#[test]
fn the_output_of_both_streams_of_format_1_reads_as_it_was_written() {
    let folder = folder("9fce5a67-8189-4995-845d-8339c1523a2f");
    assert_eq!(outcome(&folder), Outcome::Exited { code: 0 });
    assert_eq!(records(&folder), [(0, 6, Kind::Stdout), (6, 7, Kind::Stderr), (13, 5, Kind::Stdout)]);
    assert_eq!(fs::read(folder.file(OUTPUT)).expect("output"), b"first\nsecond\nthird");
    assert_eq!(Extent::read(&folder).expect("an index"), Extent { bytes: 18, kept_from: 0 });
}
