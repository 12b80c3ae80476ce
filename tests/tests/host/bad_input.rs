//! Bad input is normal input: the error names field and value, its code is right, nothing is left behind and the worker
//! goes on serving.

use jobworker_tests::api::{EnvVar, JobSpec, SignalRequest, StartRequest, StatusRequest, StopRequest};
use jobworker_tests::client::{run, spec, start, wait};
use jobworker_tests::wait::until_equal;
use jobworker_tests::{Client, Worker};
use tonic::Code;

use crate::support::{Belongings, details, jobctl};

/// Expects a Start to be refused: with `field` in the details, all `words` in the message, and nothing left.
async fn expect_invalid(client: &mut Client, request: StartRequest, field: &str, words: &[&str]) {
    let refused = client.start(request).await.expect_err(field);
    assert_eq!(refused.code(), Code::InvalidArgument, "{field} {words:?}: {refused}");
    assert_eq!(
        details(&refused),
        ("INVALID_FIELD".to_owned(), vec![field.to_owned()]),
        "{words:?}: {refused}"
    );
    for word in [&[field], words].concat() {
        assert!(refused.message().contains(word), "{word:?} is not in {:?}", refused.message());
    }
}

/// The same for a specification.
pub(crate) async fn expect_invalid_spec(client: &mut Client, spec: JobSpec, field: &str, words: &[&str]) {
    expect_invalid(client, StartRequest { id: String::new(), spec: Some(spec) }, field, words).await;
}

/// That nothing of a job is there, and that the next one runs.
pub(crate) async fn expect_untouched(worker: &Worker, client: &mut Client) {
    until_equal("nothing is left behind", &Belongings::none(), || Belongings::of(worker));
    let job = run(client, spec(&["true"])).await.expect("the worker still serves");
    assert!(job.outcome.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_specification_is_refused() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let empty = StartRequest { id: String::new(), spec: None };
    expect_invalid(&mut admin, empty, "spec.command", &["empty"]).await;
    expect_invalid_spec(&mut admin, JobSpec::default(), "spec.command", &["empty"]).await;
    let nul = |bytes: &[u8]| JobSpec { command: bytes.to_vec(), ..JobSpec::default() };
    expect_invalid_spec(&mut admin, nul(b"tr\0ue"), "spec.command", &["NUL", "position 2"]).await;
    let args = JobSpec { args: vec![b"fine".to_vec(), b"a\0".to_vec()], ..spec(&["true"]) };
    expect_invalid_spec(&mut admin, args, "spec.args[1]", &["NUL", "position 1"]).await;
    let workdir = |path: &str| JobSpec { workdir: path.as_bytes().to_vec(), ..spec(&["true"]) };
    expect_invalid_spec(&mut admin, workdir("/tmp\0"), "spec.workdir", &["NUL"]).await;
    expect_invalid_spec(&mut admin, workdir("tmp"), "spec.workdir", &["\"tmp\"", "absolute"]).await;
    expect_invalid_spec(&mut admin, workdir("/no/such/folder"), "spec.workdir", &["/no/such/folder"]).await;
    expect_invalid_spec(&mut admin, workdir("/etc/hosts"), "spec.workdir", &["/etc/hosts"]).await;
    let user = JobSpec { user: "no-such-user".to_owned(), ..spec(&["true"]) };
    expect_invalid_spec(&mut admin, user, "spec.user", &["\"no-such-user\""]).await;
    expect_untouched(&worker, &mut admin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_variable_has_a_name_and_no_nul() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let table: [(&str, &[u8], &[&str]); 4] = [
        ("", b"x", &["empty"]),
        ("A=B", b"x", &["\"A=B\"", "="]),
        ("A\0B", b"x", &["NUL"]),
        ("A", b"x\0y", &["NUL"]),
    ];
    for (key, value, words) in table {
        let fine = EnvVar { key: "FINE".to_owned(), value: Vec::new() };
        let bad = EnvVar { key: key.to_owned(), value: value.to_vec() };
        let spec = JobSpec { env: vec![fine, bad], ..spec(&["true"]) };
        let start = StartRequest { id: String::new(), spec: Some(spec) };
        let refused = admin.start(start).await.expect_err(key);
        let (reason, fields) = details(&refused);
        assert_eq!((refused.code(), reason.as_str()), (Code::InvalidArgument, "INVALID_FIELD"), "{refused}");
        assert!(fields.len() == 1 && fields[0].starts_with("spec.env[1]"), "{fields:?}");
        assert!(words.iter().all(|word| refused.message().contains(word)), "{words:?}: {refused}");
    }
    expect_untouched(&worker, &mut admin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_job_is_not_found_and_a_short_prefix_is_ambiguous() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let unknown = "0b5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11";
    let ids = ["aaaa7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11", "aaab7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11"];
    for id in ids {
        let request = StartRequest { id: id.to_owned(), spec: Some(spec(&["true"])) };
        admin.start(request).await.expect("the client's own id");
        wait(&mut admin, id).await.expect("it ends");
    }
    let table = [
        (unknown, Code::NotFound, "JOB_NOT_FOUND"),
        ("0b5c", Code::NotFound, "JOB_NOT_FOUND"),
        ("aaa", Code::InvalidArgument, "JOB_AMBIGUOUS"),
        ("", Code::InvalidArgument, "INVALID_FIELD"),
        ("not-an-id", Code::InvalidArgument, "INVALID_FIELD"),
        ("../../etc/passwd", Code::InvalidArgument, "INVALID_FIELD"),
    ];
    for (job, code, reason) in table {
        let refused = admin.status(StatusRequest { job: job.to_owned() }).await.expect_err(job);
        assert_eq!((refused.code(), details(&refused).0.as_str()), (code, reason), "{job:?}: {refused}");
        assert!(refused.message().contains(job), "{job:?} is not named: {refused}");
        let again = wait(&mut admin, job).await.expect_err(job);
        assert_eq!(again.code(), code, "every call tells the same: {again}");
    }
    let words = ["\"aaa\"", &ids[0][..8], &ids[1][..8]];
    jobctl(&worker, &["status", "aaa"]).with_code(1).saying(&words);
    jobctl(&worker, &["status", "aaab"]).with_code(0);
    jobctl(&worker, &["stop", ""]).with_code(1).saying(&["\"\" is no job's id"]);
    jobctl(&worker, &["wait", "not-an-id"]).with_code(125).saying(&["\"not-an-id\" is no job's id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_id_is_refused() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    for id in [
        "1234",
        "0b5c7b0e-6f3c-1d39-9d3b-6f4e1f9d2a11",
        "../../../tmp/x",
        "zb5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11",
    ] {
        let request = StartRequest { id: id.to_owned(), spec: Some(spec(&["true"])) };
        expect_invalid(&mut admin, request, "id", &[&format!("{id:?}"), "version 4 UUID"]).await;
    }
    jobctl(&worker, &["start", "--id", "1234", "--", "true"]).with_code(2).saying(&["1234"]);
    expect_untouched(&worker, &mut admin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_signal_is_refused() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let job = start(&mut admin, spec(&["sleep", "300"])).await.expect("a job").id;
    for signal in ["FOO", "0", "-1", "99", "SIGSIG", "TERM "] {
        let signal = signal.to_owned();
        let request = SignalRequest { job: job.clone(), signal: signal.clone(), all: false };
        let refused = admin.signal(request).await.expect_err(&signal);
        assert_eq!((refused.code(), details(&refused).1), (Code::InvalidArgument, vec!["signal".to_owned()]));
        assert!(refused.message().contains(&format!("{signal:?}")), "{refused}");
        let stop = StopRequest { job: job.clone(), signal, grace_msec: None };
        let refused = admin.stop(stop).await.expect_err("no signal");
        assert_eq!((refused.code(), details(&refused).1), (Code::InvalidArgument, vec!["signal".to_owned()]));
    }
    let request = SignalRequest { job: job.clone(), signal: String::new(), all: false };
    assert_eq!(admin.signal(request).await.expect_err("no signal at all").code(), Code::InvalidArgument);
    let stop = StopRequest { job: job.clone(), signal: "9".to_owned(), grace_msec: Some(0) };
    admin.stop(stop).await.expect("a number is a signal");
    let late = SignalRequest { job, signal: "HUP".to_owned(), all: false };
    let refused = admin.signal(late).await.expect_err("it has ended");
    assert_eq!((refused.code(), details(&refused).0.as_str()), (Code::FailedPrecondition, "JOB_NOT_RUNNING"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_arguments_than_the_kernel_or_the_worker_takes_are_refused() {
    // Enough for the worker is too much for the kernel, which takes a quarter of the stack's limit (execve(2)).
    let worker = Worker::builder().args(&["--max-args-bytes", "7000000"]).start();
    let mut admin = worker.admin().await;
    let with_args = |args: Vec<Vec<u8>>| JobSpec { args, ..spec(&["true"]) };
    let many = with_args(vec![b"x".to_vec(); 10_000]);
    expect_invalid_spec(&mut admin, many, "spec.args", &["10000 arguments", "4096", "--max-args"]).await;
    // MAX_ARG_STRLEN is 128 KiB, a NUL included (execve(2)).
    let long = with_args(vec![Vec::new(), vec![b'x'; 128 << 10]]);
    expect_invalid_spec(&mut admin, long, "spec.args[1]", &["131072 bytes", "131071"]).await;
    let five_megabytes = with_args(vec![vec![b'x'; 100_000]; 50]);
    expect_invalid_spec(&mut admin, five_megabytes.clone(), "spec.args", &["kernel", "E2BIG"]).await;
    let huge = StartRequest { id: String::new(), spec: Some(with_args(vec![vec![b'x'; 100_000]; 100])) };
    let refused = admin.start(huge).await.expect_err("larger than any request may be");
    assert_eq!(
        (refused.code(), details(&refused).0.as_str()),
        (Code::ResourceExhausted, "CAP_REACHED"),
        "{refused}"
    );
    let words = refused.message();
    assert!(words.contains("8388608 bytes") && words.contains("--max-request-bytes"), "{words}");
    expect_untouched(&worker, &mut admin).await;

    let ordinary = Worker::start();
    let mut admin = ordinary.admin().await;
    let words = ["5000000 bytes", "1048576", "--max-args-bytes"];
    expect_invalid_spec(&mut admin, five_megabytes, "spec.args", &words).await;
    expect_untouched(&ordinary, &mut admin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_timeout_is_no_overflow() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let spec = JobSpec { timeout_msec: Some(u64::MAX), ..spec(&["true"]) };
    let job = run(&mut admin, spec).await.expect("584 million years are a timeout");
    assert!(job.outcome.is_some());
}
