//! What the tests do with jobs again and again.

use std::path::Path;
use std::time::{Duration, Instant};

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::stream_response::Event;
use jobworker_tests::api::{Cause, Job, JobSpec, Outcome, StatusRequest, StopRequest};
use jobworker_tests::client::{everything, output, start};
use jobworker_tests::wait::{PATIENCE, until};
use jobworker_tests::{Client, census};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How a finished job ended.
pub(crate) fn outcome(job: &Job) -> &Outcome {
    job.outcome.as_ref().unwrap_or_else(|| panic!("not finished: {job:#?}"))
}

/// Asserts a job's cause, and its exit code or signal.
#[track_caller]
pub(crate) fn assert_ended(job: &Job, cause: Cause, ended: Ended) {
    let outcome = outcome(job);
    assert_eq!((outcome.cause(), outcome.ended), (cause, Some(ended)), "{job:#?}");
}

/// Runs a job to its end. Returns it with what it wrote to stdout.
pub(crate) async fn finish(client: &mut Client, spec: JobSpec) -> (Job, String) {
    let job = start(client, spec).await.expect("the job starts");
    let output = output(client, everything(&job.id)).await.expect("the output is there");
    let job = output.end.expect("the stream ends with the job's end");
    assert!(output.stderr.is_empty(), "on stderr: {}", String::from_utf8_lossy(&output.stderr));
    (job, String::from_utf8(output.stdout).expect("text"))
}

/// Starts a job and waits until it has written `word`.
pub(crate) async fn start_until(client: &mut Client, spec: JobSpec, word: &str) -> Job {
    let job = start(client, spec).await.expect("the job starts");
    until_written(client, &job.id, word).await;
    job
}

/// Waits until a job has written `word`.
pub(crate) async fn until_written(client: &mut Client, job: &str, word: &str) {
    let mut stream = client.stream(everything(job)).await.expect("the job is there").into_inner();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(word) {
        let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("the job writes");
        match message.expect("the stream goes on").and_then(|message| message.event) {
            Some(Event::Chunk(chunk)) => seen.extend(chunk.data),
            other => panic!("{word:?} did not come, but {other:?}, after {}", String::from_utf8_lossy(&seen)),
        }
    }
}

/// A job as it is now.
pub(crate) async fn status(client: &mut Client, job: &str) -> Job {
    let request = StatusRequest { job: job.to_owned() };
    client
        .status(request)
        .await
        .expect("the job is there")
        .into_inner()
        .job
        .expect("Status answers with a job")
}

/// Asks for a job's status until `look` finds what it looks for.
pub(crate) async fn until_status<T>(client: &mut Client, job: &str, look: impl Fn(&Job) -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        let now = status(client, job).await;
        if let Some(found) = look(&now) {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "still {now:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Stops a job. `grace` in milliseconds.
pub(crate) async fn stop(client: &mut Client, job: &str, grace: Option<u64>) -> Job {
    let request = StopRequest { job: job.to_owned(), signal: String::new(), grace_msec: grace };
    client.stop(request).await.expect("a stop is no error").into_inner().job.expect("Stop answers with a job")
}

/// The processes in a job's group now.
pub(crate) fn members(job: &Job) -> Vec<u32> {
    let procs =
        std::fs::read_to_string(Path::new(&job.cgroup).join("cgroup.procs")).expect("the group is there");
    procs.lines().map(|pid| pid.parse().expect("a pid")).collect()
}

/// Asserts that nothing is left of a finished job but its folder.
#[track_caller]
pub(crate) fn assert_gone(job: &Job, members: &[u32]) {
    assert!(!job.cgroup.is_empty() && !Path::new(&job.cgroup).exists(), "the group {:?} is left", job.cgroup);
    for pid in members {
        // One that has ended is its parent's to reap: of a job whose shim is gone, the VM's init's.
        let state = until("a zombie is reaped", || match census::status_line(*pid, "State") {
            Some(state) if state.starts_with('Z') => None,
            state => Some(state),
        });
        assert!(state.is_none(), "process {pid} is left: {state:?}");
    }
}

/// Asserts how a call was refused: the code, the reason in the ErrorInfo, and words in the message.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    code: Code,
    reason: &str,
    words: &[&str],
) {
    let status = answer.expect_err("the call is refused");
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{status:?}");
    for word in words {
        assert!(status.message().contains(word), "no {word:?} in {:?}", status.message());
    }
}
