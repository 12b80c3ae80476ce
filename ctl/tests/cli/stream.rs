//! `jobctl stream`.

use std::io::Read;

use jobworker_proto::v1::stream_request::From;
use jobworker_proto::v1::stream_response::Event;
use jobworker_proto::v1::{Gap, GapReason, OutputStream};
use tonic::Status;

use crate::fake_worker::{ID, Script, Step, chunk, stderr, stdout};
use crate::jobctl::{Ran, World, exited};

#[test]
fn shows_both_streams_and_gaps_and_ends_with_the_job() {
    let gap = |offset, length, reason: GapReason| {
        Step::Send(Event::Gap(Gap { offset, length, reason: reason.into() }))
    };
    let dropped = gap(0, 12_345_678, GapReason::NoLongerKept);
    let unstored = gap(12_345_678, 7, GapReason::NotStored);
    let steps = vec![dropped, unstored, stdout(b"out\n"), stderr(b"err\n"), Step::End];
    let world = World::new(Script { steps, outcome: exited(3), ..Default::default() });
    for name in ["stream", "logs"] {
        let ran = world.run(&[name, ID]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "out\n"), "{ran:?}");
        assert_eq!(ran.stderr, "[… 12.3 MB no longer kept …]\n[… 7 B could not be stored …]\nerr\n");
    }
}

#[test]
fn timestamps_stand_in_front_of_lines() {
    let world =
        World::new(Script { steps: vec![stdout(b"a\nb"), stdout(b"c\n"), Step::End], ..Default::default() });
    let ran = world.run(&["stream", "--timestamps", ID]);
    let stamp = "1970-01-01T00:00:01.500000+00:00";
    assert_eq!(ran.stdout, format!("{stamp} a\n{stamp} bc\n"));
}

#[test]
fn asks_for_what_the_options_say() {
    let world = World::new(Script { steps: vec![], ..Default::default() });
    for options in [
        &["--stdout", "--tail", "0"][..],
        &["--stderr", "--from-offset", "5", "--no-follow"],
        &["--since", "1970-01-01T00:00:01Z"],
        // By the worker's clock; for an older worker by this one.
        &["--since", "10m"],
    ] {
        let ran = world.run(&[&["stream", ID][..], options].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "a stream of what is there may be empty");
    }
    let asked: Vec<_> = world.worker.asked(|asked| {
        asked.streams.iter().map(|stream| (stream.only(), stream.from, stream.no_follow)).collect()
    });
    let expected = [
        (OutputStream::Stdout, Some(From::TailLines(0)), false),
        (OutputStream::Stderr, Some(From::Offset(5)), true),
        (OutputStream::Unspecified, Some(From::SinceUnixUsec(1_000_000)), false),
    ];
    assert_eq!(asked[..3], expected);
    assert!(matches!(asked[3].1, Some(From::SinceUnixUsec(_))), "{asked:?}");
    let ago: Vec<_> =
        world.worker.asked(|asked| asked.streams.iter().map(|stream| stream.since_usec_ago).collect());
    assert_eq!(ago, [None, None, None, Some(600_000_000)]);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let flood = Step::Endless(chunk(OutputStream::Stdout, &[b'x'; 100_000]));
    let world = World::new(Script { steps: vec![flood], ..Default::default() });
    let mut child = world.command(&["stream", ID]).spawn().expect("jobctl runs");
    let mut first = [0; 10];
    child.stdout.take().expect("piped").read_exact(&mut first).expect("output");
    let ran = Ran::from(child.wait_with_output().expect("jobctl ends"));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn an_unknown_job_is_an_error_without_a_hint_to_go_on() {
    let refusal = Some(Status::not_found("job: \"1234\" fits no job"));
    let ran = World::new(Script { refusal, ..Default::default() }).run(&["stream", "1234"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), "jobctl: job: \"1234\" fits no job\n"));
}
