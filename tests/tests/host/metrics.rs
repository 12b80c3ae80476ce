//! Metrics: off unless asked for, on loopback only, and each thing that happens counted where it should be.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use jobworker_tests::binaries::binary;
use jobworker_tests::client::{everything, refusal, shell, spec, start};
use jobworker_tests::http2::{END_HEADERS, END_STREAM, Http2, call, frame, kind};
use jobworker_tests::metrics::{address, http, samples};
use jobworker_tests::wait::{until, until_equal};
use jobworker_tests::{Pki, Worker, api, census, worker};
use rustls::version::TLS13;

use crate::support::{jobctl_as, start_script};

fn with_metrics() -> Worker {
    Worker::builder().args(&["--metrics-listen=127.0.0.1:0"]).start()
}

/// The sum of the samples whose name and labels contain all of `parts`.
fn sum(address: &str, parts: &[&str]) -> f64 {
    let samples = samples(address);
    samples
        .iter()
        .filter(|(name, _)| parts.iter().all(|part| name.contains(part)))
        .map(|(_, value)| value)
        .sum()
}

#[track_caller]
fn until_sum(address: &str, parts: &[&str], expected: u32) {
    until_equal(&format!("{parts:?}"), &f64::from(expected), || sum(address, parts));
}

#[test]
fn they_are_off_unless_asked_for() {
    let listening = |worker: &Worker| {
        let sockets = fs::read_to_string("/proc/net/tcp").expect("proc(5)");
        let open = fs::read_dir(format!("/proc/{}/fd", worker.pid())).expect("its descriptors");
        let open: Vec<_> = open.flatten().filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
        let is_its =
            |inode: &str| open.iter().any(|target| target.to_str() == Some(&format!("socket:[{inode}]")));
        let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // 0A: listening.
        fields.filter(|fields| fields.get(3) == Some(&"0A") && is_its(fields[9])).count()
    };
    assert_eq!(listening(&Worker::start()), 1, "the API");
    let worker = with_metrics();
    address(&worker);
    assert_eq!(listening(&worker), 2, "the API and the metrics");
}

#[test]
fn they_are_told_on_loopback_only() {
    for at in ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464", "9464"] {
        let mut command = Command::new(binary("jobworker"));
        worker::clean(&mut command);
        let output = command.args(["--metrics-listen", at]).stdin(Stdio::null()).output().expect("executed");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.status.signal().is_none(), "{at}: {told}");
        assert!(told.contains(at) && told.contains("loopback"), "{at}: {told}");
    }
}

#[test]
fn an_address_that_is_taken_is_an_error_at_start() {
    let worker = with_metrics();
    let taken = address(&worker);
    let state = tempfile::tempdir().expect("a folder");
    let alice = worker.pki.identity("server");
    let mut command = Command::new(binary("jobworker"));
    worker::clean(&mut command);
    command.args(["--listen=127.0.0.1:0", "--metrics-listen", &taken]).arg("--state-dir").arg(state.path());
    command.arg("--ca").arg(worker.pki.ca()).arg("--cert").arg(alice.cert).arg("--key").arg(alice.key);
    let output = command.stdin(Stdio::null()).output().expect("executed");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && told.contains(&format!("can't listen on {taken} (--metrics-listen)")),
        "{told}"
    );
    assert_eq!(census::processes_with(state.path().to_str().expect("UTF-8")), Vec::<u32>::new());
}

#[test]
fn nothing_but_metrics_is_there() {
    let worker = with_metrics();
    let at = address(&worker);
    let answer = http(&at, "GET", "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{answer:#?}");
    assert_eq!(http(&at, "HEAD", "/metrics").body, "");
    for (method, path, status) in
        [("GET", "/", 404), ("GET", "/../etc/passwd", 404), ("POST", "/metrics", 405)]
    {
        assert_eq!(http(&at, method, path).status, status, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_counted() {
    let worker = with_metrics();
    let at = address(&worker);
    assert_eq!(sum(&at, &["jobworker_build_info", "version=", "arch="]), 1.0);
    let mut admin = worker.admin().await;
    until_sum(&at, &["jobworker_connections"], 1);

    for code in ["0", "3"] {
        let job = start(&mut admin, shell(&format!("printf 12345; exit {code}"))).await.expect("started");
        let mut stream = admin.stream(everything(&job.id)).await.expect("a stream").into_inner();
        while stream.message().await.expect("no error").is_some() {}
    }
    start(&mut admin, spec(&["/nonexistent"])).await.expect_err("nothing to execute");
    assert_eq!(sum(&at, &["jobworker_starts_total", "started"]), 2.0);
    assert_eq!(sum(&at, &["jobworker_starts_total", "failed"]), 1.0);
    assert_eq!(sum(&at, &["jobworker_start_duration_seconds_count"]), 3.0);
    assert!(sum(&at, &["jobworker_start_duration_seconds_sum"]) > 0.0);
    assert_eq!(sum(&at, &["jobworker_streams_total"]), 2.0);
    assert_eq!(sum(&at, &["jobworker_streamed_bytes_total"]), 10.0);
    assert_eq!(sum(&at, &["jobworker_calls_total", "\"start\"", "\"OK\""]), 2.0);
    assert_eq!(sum(&at, &["jobworker_calls_total", "\"start\"", "\"INVALID_ARGUMENT\""]), 1.0);

    let mut user = worker.user().await;
    user.start(api::StartRequest::default()).await.expect_err("a user may not");
    assert_eq!(sum(&at, &["jobworker_denied_calls_total", "\"start\"", "\"role\""]), 1.0);
    assert_eq!(sum(&at, &["jobworker_calls_total", "\"PERMISSION_DENIED\""]), 1.0);
    refusal(&worker.address, &worker.pki.ca(), None, &[&TLS13]).await;
    until_sum(&at, &["jobworker_refused_connections_total", "\"no_certificate\""], 1);
    let cpu = sum(&at, &["process_cpu_seconds_total"]);
    assert!(cpu > 0.0 && sum(&at, &["process_cpu_seconds_total"]) >= cpu);
    assert!(sum(&at, &["process_resident_memory_bytes"]) > 1e6);
    assert!(sum(&at, &["process_open_fds"]) > 5.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_is_told_until_it_is_closed() {
    let worker = with_metrics();
    let at = address(&worker);
    let job = start_script(&worker, "echo begun; exec sleep 600");
    until_sum(&at, &["jobworker_connections"], 0);
    let mut user = worker.user().await;
    let mut stream = user.stream(everything(&job)).await.expect("a stream").into_inner();
    stream.message().await.expect("no error").expect("a message");
    let mut waiter = user.clone();
    let wait = tokio::spawn(async move { waiter.wait(api::WaitRequest { job }).await });
    until_sum(&at, &["jobworker_followers", "\"wait\""], 1);
    until_sum(&at, &["jobworker_followers", "\"stream\""], 1);
    until_sum(&at, &["jobworker_connections"], 1);
    drop(stream);
    until_sum(&at, &["jobworker_followers", "\"stream\""], 0);
    wait.abort();
    until_sum(&at, &["jobworker_followers"], 0);
    drop((user, wait));
    until_sum(&at, &["jobworker_connections"], 0);
    assert_eq!(sum(&at, &["jobworker_streams_total"]), 1.0, "what was begun stays counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_clients_make_up_are_no_series() {
    let worker = with_metrics();
    let at = address(&worker);
    jobctl_as(&worker, "bob", &["list"]).with_code(0);
    let before = samples(&at).len();
    let mut raw = Http2::begin(&worker, "alice").await.expect("a connection");
    for number in 0..20 {
        let (id, headers) = (2 * number + 1, call(&format!("Nonsense{number}"), &[]));
        raw.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM, id, &headers)).await;
    }
    until("calls are counted", || (sum(&at, &["jobworker_calls_total", "\"other\""]) >= 20.0).then_some(()));
    assert_eq!(samples(&at).len(), before + 1, "{:#?}", samples(&at));
}

/// Who says nothing holds nothing for long, and costs others nothing.
#[test]
fn a_scraper_that_says_nothing_is_let_go() {
    let worker = with_metrics();
    let at = address(&worker);
    let before = census::descriptors(worker.pid());
    let mut silent: Vec<_> = (0..3).map(|_| TcpStream::connect(&at).expect("connected")).collect();
    samples(&at);
    silent[0].write_all(b"GET /met").expect("sent");
    for tcp in &mut silent {
        tcp.set_read_timeout(Some(jobworker_tests::wait::PATIENCE)).expect("a timeout");
        let mut rest = Vec::new();
        // A reset is as good as an end.
        let _ = tcp.read_to_end(&mut rest);
    }
    until_equal("descriptors", &before, || census::descriptors(worker.pid()));
}

#[test]
fn the_ends_of_certificates_are_told_as_of_the_files_in_force() {
    let worker = with_metrics();
    let at = address(&worker);
    let told = samples(&at);
    let of = |what: &str| {
        let names =
            told.iter().filter(|(name, _)| name.starts_with("jobworker_certificate_not_after_seconds{"));
        let values: Vec<_> = names.filter(|(name, _)| name.contains(&format!("what=\"{what}\""))).collect();
        assert_eq!(values.len(), 1, "{what}: {told:#?}");
        let days_left = (values[0].1 - unix_sec()) / 86_400.0;
        assert!((300.0..=366.0).contains(&days_left), "{what}: {days_left} days, of the test's PKI");
    };
    ["server", "ca", "revocation_list"].into_iter().for_each(of);
}

fn unix_sec() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

#[test]
fn files_that_can_not_be_used_are_told_until_they_can() {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("policy.toml");
    let good = "[roles.admin]\nall = \"any\"\n";
    fs::write(&policy, good).expect("written");
    let pki = Arc::new(Pki::new());
    let args = ["--metrics-listen=127.0.0.1:0", "--policy", policy.to_str().expect("UTF-8")];
    let worker = Worker::builder().pki(&pki).args(&args).start();
    let at = address(&worker);
    let failed = |what: &str| sum(&at, &["jobworker_reload_failed", &format!("\"{what}\"")]);
    assert_eq!((failed("policy"), failed("certificates")), (0.0, 0.0));
    let list = fs::read_to_string(pki.crl()).expect("a list");
    fs::write(&policy, "[roles.admin]\nall = \"everything\"\n").expect("written");
    fs::write(pki.crl(), "garbage").expect("written");
    until_equal("both are broken", &(1.0, 1.0), || (failed("policy"), failed("certificates")));
    jobctl_as(&worker, "alice", &["list"]).with_code(0);
    fs::write(&policy, good).expect("written");
    fs::write(pki.crl(), list).expect("written");
    until_equal("both are good", &(0.0, 0.0), || (failed("policy"), failed("certificates")));
}
