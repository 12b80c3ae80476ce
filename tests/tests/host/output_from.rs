//! Where a reader begins: at any offset, so many lines from the end, at a time; and ends at what is there.

use jobworker_tests::api::stream_request::From;
use jobworker_tests::api::{OutputStream, StreamRequest};
use jobworker_tests::client::{Output, everything, output, run, shell, spec, start};
use jobworker_tests::wait::until_equal;
use jobworker_tests::{Client, Worker};

use crate::support::{jobctl, start_script, wait_for_file, write_in_turn};

async fn from(client: &mut Client, job: &str, from: From) -> Output {
    let request = StreamRequest { from: Some(from), ..everything(job) };
    output(client, request).await.expect("the output")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_offset_is_a_beginning() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let pieces = [(1, "0123"), (2, "4567"), (1, "89")].map(|(stream, text)| (stream, text.to_owned()));
    let job = write_in_turn(&mut admin, &pieces).await;
    assert_eq!(job.output_bytes, 10);
    for offset in 0..=12u64 {
        let found = from(&mut admin, &job.id, From::Offset(offset)).await;
        let expected = b"0123456789".get(usize::try_from(offset).expect("small")..).unwrap_or_default();
        assert_eq!(found.merged, expected, "from {offset}");
        assert!(found.end.is_some(), "from {offset}");
    }
    let only = StreamRequest {
        only: OutputStream::Stdout.into(),
        from: Some(From::Offset(2)),
        ..everything(&job.id)
    };
    assert_eq!(output(&mut admin, only).await.expect("the output").merged, b"2389");
    // Beyond it a request is refused.
    let far = from(&mut admin, &job.id, From::Offset(u64::MAX >> 1)).await;
    assert!(far.merged.is_empty() && far.end.is_some());
}

/// So that a client that loses the connection before the first byte can ask for the same place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_says_where_a_stream_begins() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let pieces = [(1, "one\n"), (2, "two\n"), (1, "three\n")].map(|(stream, text)| (stream, text.to_owned()));
    let job = write_in_turn(&mut admin, &pieces).await;
    for (from, begin) in [
        (None, "0"),
        (Some(From::Offset(5)), "5"),
        (Some(From::Offset(99)), "99"),
        (Some(From::TailLines(0)), "14"),
        (Some(From::TailLines(2)), "4"),
        (Some(From::SinceUnixUsec(0)), "0"),
        (Some(From::SinceUnixUsec(u64::MAX)), "14"),
    ] {
        let answer = admin.stream(StreamRequest { from, ..everything(&job.id) }).await.expect("a stream");
        let told = answer.metadata().get("jobworker-offset").expect("the worker says so");
        assert_eq!(told, begin, "{from:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_can_be_had_without_waiting_for_more() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let script = format!("echo early; {}; echo late", wait_for_file(&gate));
    let job = start(&mut admin, shell(&script)).await.expect("a job");
    let mut follower = admin.stream(everything(&job.id)).await.expect("its output").into_inner();
    let early = follower.message().await.expect("no error").expect("the first line").event.expect("an event");
    let jobworker_tests::api::stream_response::Event::Chunk(early) = early else {
        panic!("no output: {early:?}")
    };

    let request = StreamRequest { no_follow: true, ..everything(&job.id) };
    let present = output(&mut admin, request.clone()).await.expect("what is there");
    assert_eq!((present.merged.as_slice(), present.end), (&b"early\n"[..], None));
    let beyond = StreamRequest { from: Some(From::Offset(100)), ..request.clone() };
    let nothing = output(&mut admin, beyond).await.expect("nothing is an answer");
    assert_eq!((nothing.merged.as_slice(), nothing.end), (&b""[..], None));
    assert_eq!(jobctl(&worker, &["stream", "--no-follow", &job.id]).with_code(0).stdout, "early\n");

    std::fs::write(&gate, "").expect("a writable folder");
    let since = From::SinceUnixUsec(early.time_unix_usec + 1);
    assert_eq!(from(&mut admin, &job.id, since).await.stdout, b"late\n");
    let since = From::SinceUnixUsec(early.time_unix_usec);
    assert_eq!(from(&mut admin, &job.id, since).await.stdout, b"early\nlate\n");
    // By the worker's clock, though the client's is ten minutes ahead.
    let ahead = Some(From::SinceUnixUsec(early.time_unix_usec + 600_000_000));
    for (from, ago, expected) in
        [(ahead, 300_000_000, "early\nlate\n"), (None, 300_000_000, "early\nlate\n"), (None, 0, "")]
    {
        let since = StreamRequest { from, since_usec_ago: Some(ago), ..everything(&job.id) };
        assert_eq!(output(&mut admin, since).await.expect("its output").stdout, expected.as_bytes());
    }
    let both = StreamRequest { from: Some(From::Offset(1)), since_usec_ago: Some(1), ..everything(&job.id) };
    let refused = output(&mut admin, both).await.expect_err("two places");
    assert!(
        refused.code() == tonic::Code::InvalidArgument && refused.message().contains("since_usec_ago"),
        "{refused}"
    );
    let ended = output(&mut admin, request).await.expect("what is there");
    assert!(ended.merged == b"early\nlate\n" && ended.end.is_some(), "a finished job's end is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_ahead_of_the_job_waits_for_it() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let script = format!("{}; printf 0123456789", wait_for_file(&gate));
    let job = start(&mut admin, shell(&script)).await.expect("a job");
    let request = StreamRequest { from: Some(From::Offset(7)), ..everything(&job.id) };
    let mut ahead = admin.stream(request).await.expect("a stream").into_inner();
    std::fs::write(&gate, "").expect("a writable folder");
    let event = ahead.message().await.expect("no error").expect("the rest").event.expect("an event");
    let jobworker_tests::api::stream_response::Event::Chunk(chunk) = event else {
        panic!("not output: {event:?}")
    };
    assert_eq!((chunk.offset, &chunk.data[..]), (7, &b"789"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_lines_are_counted_from_the_end() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let whole = run(&mut admin, shell("seq 1 100000")).await.expect("a job");
    let unfinished = run(&mut admin, shell("printf 'a\\nb\\nc'")).await.expect("a job");
    for (job, lines, expected) in [
        (&whole, 1, "100000\n"),
        (&whole, 3, "99998\n99999\n100000\n"),
        (&whole, 0, ""),
        (&unfinished, 1, "c"),
        (&unfinished, 2, "b\nc"),
        (&unfinished, 99, "a\nb\nc"),
    ] {
        let found = from(&mut admin, &job.id, From::TailLines(lines)).await;
        assert_eq!(String::from_utf8_lossy(&found.merged), expected, "the last {lines}");
    }
    let all = from(&mut admin, &whole.id, From::TailLines(u64::MAX)).await;
    assert_eq!(u64::try_from(all.merged.len()), Ok(whole.output_bytes));
    let silent = run(&mut admin, spec(&["true"])).await.expect("a job");
    assert!(from(&mut admin, &silent.id, From::TailLines(5)).await.merged.is_empty());
}

#[test]
fn jobctl_begins_where_it_is_told_to() {
    let worker = Worker::start();
    let job = start_script(&worker, "echo one; echo two; echo three >&2");
    jobctl(&worker, &["wait", &job]).with_code(0);
    let stdout = |args: &[&str]| jobctl(&worker, &[&["stream", &job], args].concat()).with_code(0).stdout;
    assert_eq!(stdout(&["--from-offset", "4"]), "two\n");
    assert_eq!(stdout(&["--stdout", "--tail", "1"]), "two\n");
    assert_eq!(stdout(&["--since", "1h"]), "one\ntwo\n");
    assert_eq!(stdout(&["--since", "2090-01-01T00:00:00Z"]), "");
    let stamped = stdout(&["--timestamps", "--stdout"]);
    let words: Vec<Vec<_>> = stamped.lines().map(|line| line.split(' ').collect()).collect();
    assert!(matches!(&words[..], [one, two] if one[1] == "one" && two[1] == "two"), "{stamped}");
    assert!(words.iter().all(|line| line[0].len() > 20 && line[0].contains('T')), "{stamped}");
    jobctl(&worker, &["stream", &job, "--tail", "1", "--from-offset", "2"]).with_code(2).saying(&["--tail"]);
    jobctl(&worker, &["stream", &job, "--since", "yesterday"]).with_code(2).saying(&["yesterday"]);
    until_equal("a prefix is enough", &"two\n".to_owned(), || {
        jobctl(&worker, &["stream", &job[..8], "--stdout", "--tail", "1"]).stdout
    });
}
