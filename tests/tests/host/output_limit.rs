//! Output that grows past its limit: the oldest bytes go, offsets stay, and every reader is told.

use std::os::unix::fs::MetadataExt;

use jobworker_tests::Worker;
use jobworker_tests::api::stream_request::From;
use jobworker_tests::api::stream_response::Event;
use jobworker_tests::api::{Gap, GapReason, Job, JobSpec, StatusRequest, StreamRequest};
use jobworker_tests::client::{everything, run, shell, start};

use crate::support::jobctl;

const LIMIT_BYTES: u64 = 1 << 20;

/// Numbered lines of 10 bytes each.
const LINES: u64 = 1_000_000;

fn line(number: u64) -> String {
    format!("{number:09}\n")
}

fn counting() -> JobSpec {
    let script = format!("seq -f %09.0f 0 {}", LINES - 1);
    JobSpec { output_limit: "1MiB".to_owned(), ..shell(&script) }
}

async fn status(client: &mut jobworker_tests::Client, job: &str) -> Job {
    let request = StatusRequest { job: job.to_owned() };
    client.status(request).await.expect("there is such a job").into_inner().job.expect("a job")
}

#[tokio::test]
async fn the_newest_output_is_kept_and_the_rest_told_to_be_gone() {
    let worker = Worker::start();
    let mut client = worker.admin().await;
    let job = run(&mut client, counting()).await.expect("it runs").id;
    let ended = status(&mut client, &job).await;
    assert_eq!((ended.output_bytes, ended.output_limit_bytes), (LINES * 10, Some(LIMIT_BYTES)));
    assert_eq!(ended.output_lost_bytes, 0);
    let kept_bytes = ended.output_bytes - ended.output_kept_from;
    assert!(kept_bytes < LIMIT_BYTES && kept_bytes > LIMIT_BYTES / 8 * 7, "{kept_bytes} bytes are kept");
    let on_disk = |name: &str| {
        std::fs::metadata(worker.jobs_dir().join(&job).join(name)).expect("it is there").blocks() * 512
    };
    let disk_bytes = on_disk("output") + on_disk("index");
    assert!(disk_bytes <= LIMIT_BYTES + (16 << 10), "{disk_bytes} bytes on disk");

    for (from, begin) in
        [(None, 0), (Some(From::Offset(77)), 77), (Some(From::TailLines(5)), LINES * 10 - 50)]
    {
        let request = StreamRequest { from, ..everything(&job) };
        let mut stream = client.stream(request).await.expect("readable").into_inner();
        let (mut next, mut gaps) = (begin, Vec::new());
        while let Some(message) = stream.message().await.expect("to the end") {
            match message.event.expect("an event") {
                Event::Chunk(chunk) => {
                    assert_eq!(chunk.offset, next);
                    for byte in &chunk.data {
                        let at = usize::try_from(next % 10).expect("small");
                        assert_eq!(*byte, line(next / 10).as_bytes()[at], "at {next}");
                        next += 1;
                    }
                }
                Event::Gap(gap) => {
                    next = gap.offset + gap.length;
                    gaps.push(gap);
                }
                Event::End(_) => {}
            }
        }
        assert_eq!(next, LINES * 10, "from {begin}");
        let expected = Gap {
            offset: begin,
            length: ended.output_kept_from.saturating_sub(begin),
            reason: GapReason::NoLongerKept.into(),
        };
        assert_eq!(gaps, if expected.length > 0 { vec![expected] } else { Vec::new() });
    }
}

#[tokio::test]
async fn jobctl_tells_of_the_gap_and_status_of_what_is_kept() {
    let worker = Worker::start();
    let script = format!("seq -f %09.0f 0 {}", LINES - 1);
    let started =
        jobctl(&worker, &["start", "--output-limit", "1MiB", "--", "sh", "-c", &script]).with_code(0);
    let job = started.stdout.trim();
    jobctl(&worker, &["wait", job]).with_code(0);
    let shown = jobctl(&worker, &["stream", job]).with_code(0).saying(&[" MB no longer kept …]\n"]);
    let length = shown.stdout.len() as u64;
    assert!(shown.stdout.ends_with(&line(LINES - 1)) && length <= LIMIT_BYTES, "{length} bytes");
    let status = jobctl(&worker, &["status", job]).with_code(0).stdout;
    assert!(status.contains("output kept:") && status.contains("(limit 1 MiB)"), "{status}");
}

#[tokio::test]
async fn the_workers_default_holds_for_jobs_that_do_not_say() {
    let worker = Worker::builder().args(&["--output-limit", "2MiB"]).start();
    let mut client = worker.admin().await;
    let job = start(&mut client, shell(":")).await.expect("started");
    assert_eq!(job.output_limit_bytes, Some(2 << 20));
    assert_eq!(job.spec.expect("a spec").output_limit, "", "it did not say");
    let default = Worker::start();
    let job = start(&mut default.admin().await, shell(":")).await.expect("started");
    assert_eq!(job.output_limit_bytes, Some(1 << 30));
}

#[tokio::test]
async fn a_limit_that_can_not_be_kept_to_is_refused_in_words() {
    let worker = Worker::start();
    for (bad, why) in [
        ("0", "the least is 1MiB"),
        ("1023KiB", "the least is 1MiB"),
        ("-1", "give a number with a unit"),
        ("lots", "give a number with a unit"),
        ("16EiB", "it must be less than 16 EiB"),
    ] {
        let refused = jobctl(&worker, &["start", "--output-limit", bad, "--", "true"]);
        refused.with_code(1).saying(&["spec.output_limit", bad, why]);
    }
}
