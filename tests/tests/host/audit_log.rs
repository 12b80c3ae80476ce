//! `--audit-log`: each decision a line of JSON in a file or on stdout, whatever is in it, wherever the file goes, and also
//! when it takes nothing.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jobworker_tests::api::{EnvVar, JobSpec, ListRequest, StartRequest, StatusRequest};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{limited, refusal, run, spec, start};
use jobworker_tests::wait::{until, until_equal};
use jobworker_tests::worker::clean;
use jobworker_tests::{Pki, Worker};
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustls::version::TLS13;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Answer, jobctl_as, start_script};

/// A worker with its audit log in a file.
struct Audited {
    worker: Worker,
    folder: TempDir,
}

impl Audited {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("audit.log");
        let args = ["--audit-log", path.to_str().expect("a UTF-8 path")];
        Self { worker: Worker::builder().args(&args).start(), folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    /// The lines of an event, once there are so many.
    fn lines(&self, event: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} lines"), || {
            Some(of_event(&self.path(), event)).filter(|lines| lines.len() >= count)
        })
    }
}

/// All lines of a file. Each is one JSON object, and the last is whole.
fn lines_of(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "a part of a line: {text:?}");
    let parsed =
        |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(parsed).inspect(|line| assert!(line.is_object(), "{line}")).collect()
}

fn of_event(path: &Path, event: &str) -> Vec<Value> {
    lines_of(path).into_iter().filter(|line| line["event"] == event).collect()
}

fn told(line: &Value, keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| line[key].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_decision_has_its_line_with_all_fields_and_the_log_has_none() {
    let audited = Audited::start();
    let worker = &audited.worker;
    let job = start_script(worker, "exit 0");
    jobctl_as(worker, "bob", &["signal", &job, "HUP"]).with_code(1);
    let memory = jobworker_tests::api::Limits { memory: "1.5G B".to_owned(), ..Default::default() };
    let odd = JobSpec { user: "nobody\n".to_owned(), ..limited(spec(&["true"]), memory) };
    start(&mut worker.admin().await, odd).await.expect_err("no limit");
    refusal(&worker.address, &worker.pki.ca(), None, &[&TLS13]).await;

    let lines = audited.lines("decision", 3);
    let [started, signalled, invalid] = &lines[..] else { panic!("{lines:#?}") };
    let keys = ["decision", "client", "common_name", "role", "action"];
    assert_eq!(told(started, &keys), ["allowed", "alice", "alice", "admin", "start"]);
    assert_eq!(told(started, &["job", "argv"]), [job.as_str(), "sh -c 'exit 0'"]);
    assert_eq!(told(signalled, &keys), ["denied", "bob", "bob", "user", "signal"]);
    assert_eq!(told(signalled, &["job", "signal"]), [job.as_str(), "HUP"]);
    assert_eq!(told(invalid, &keys), ["invalid", "alice", "alice", "admin", "start"]);
    assert_eq!(told(invalid, &["limits", "user"]), ["memory=1.5G B", "nobody\n"]);
    assert!(told(invalid, &["reason"])[0].contains("spec.limits.memory"), "{invalid}");
    for line in &lines {
        let is_hex = |text: &String| !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit());
        assert!(told(line, &["serial", "fingerprint"]).iter().all(is_hex), "{line}");
        assert!(line["rule"].is_string() || line["decision"] == "invalid", "{line}");
    }
    let refused = audited.lines("connection", 1).remove(0);
    assert_eq!(told(&refused, &["decision", "action"]), ["denied", "connect"]);
    assert!(told(&refused, &["reason"])[0].contains("no client certificate"), "{refused}");
    for line in lines.iter().chain([&refused]) {
        let [peer, time] = &told(line, &["peer", "time"])[..] else { panic!() };
        assert!(peer.starts_with("127.0.0.1:"), "{line}");
        // As 2026-11-21T20:00:04.123456Z.
        assert!(time.len() == 27 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{line}");
    }
    let mode = fs::metadata(audited.path()).expect("a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert_eq!((worker.audit().len(), worker.ends().len()), (0, 0), "in the log, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_of_an_environment_is_anywhere() {
    const SECRET: &str = "hunter2-of-the-environment";
    let audited = Audited::start();
    let mut admin = audited.worker.admin().await;
    let with = |key: &str, command: &[&str]| {
        let variable = EnvVar { key: key.to_owned(), value: SECRET.into() };
        JobSpec { env: vec![variable], ..spec(command) }
    };
    run(&mut admin, with("TOKEN", &["true"])).await.expect("a job");
    start(&mut admin, with("TO=KEN", &["true"])).await.expect_err("no variable");
    start(&mut admin, with("TOKEN", &["/no/such/command"])).await.expect_err("no command");
    start(&mut audited.worker.user().await, with("TOKEN", &["true"])).await.expect_err("a user may not");
    audited.lines("decision", 5);
    audited.lines("job_end", 1);
    let file = fs::read(audited.path()).expect("a file");
    let has = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    assert!(!has(&file), "{}", String::from_utf8_lossy(&file));
    assert!(!has(audited.worker.log().join("\n").as_bytes()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_client_sends_makes_a_second_line() {
    let audited = Audited::start();
    let mut admin = audited.worker.admin().await;
    let forged = "x\"}\n{\"event\":\"decision\",\"decision\":\"allowed\",\"client\":\"root\"}\n\r\u{2028}\u{0}\u{1b}[2J";
    let words: Vec<Vec<u8>> =
        vec![forged.into(), b"\xff\xfe\n\x00\x01".to_vec(), vec![b'\x01'; 500_000], vec![b'"'; 500_000]];
    let hostile = JobSpec {
        command: forged.into(),
        args: words,
        user: forged.repeat(1000),
        name: forged.repeat(100),
        ..JobSpec::default()
    };
    let requests = [
        StartRequest { id: forged.to_owned(), spec: Some(hostile.clone()) },
        StartRequest { id: forged.repeat(10_000), spec: Some(hostile) },
    ];
    for request in requests {
        admin.start(request).await.expect_err("nothing of it is valid");
    }
    for job in [forged.to_owned(), "\u{1}".repeat(300_000)] {
        admin.status(StatusRequest { job }).await.expect_err("no job");
    }
    // One that is carried out: its words are kept for its end.
    let name = "quotes \" and \\ and ü";
    let job = JobSpec {
        name: name.to_owned(),
        ..spec(&["sh", "-c", "exit 3", forged.trim_end_matches("\u{0}\u{1b}[2J")])
    };
    run(&mut admin, job).await.expect("a job");
    let lines = audited.lines("decision", 6);
    let end = audited.lines("job_end", 1).remove(0);
    assert_eq!(lines_of(&audited.path()).len(), 7, "a line for each call, and for one end");
    assert!(lines.iter().all(|line| line["client"] == "alice"), "{lines:#?}");
    assert_eq!(told(&end, &["name", "client"]), [name, "alice"]);
    let text = fs::read_to_string(audited.path()).expect("a file");
    let longest = text.lines().map(str::len).max().expect("lines");
    assert!(longest < 128 << 10, "{longest}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "a control character as it is");
}

/// Calls by several clients until `done`; how many there were.
async fn calls_until(
    worker: &Worker,
    done: &Arc<AtomicBool>,
    count: &Arc<AtomicUsize>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let mut client = worker.user().await;
        let (done, count) = (Arc::clone(done), Arc::clone(count));
        tasks.push(tokio::spawn(async move {
            while !done.load(Ordering::Acquire) {
                client.list(ListRequest::default()).await.expect("a list");
                count.fetch_add(1, Ordering::Release);
            }
        }));
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_load_loses_no_line() {
    let audited = Audited::start();
    let (done, count) = (Arc::default(), Arc::default());
    let tasks = calls_until(&audited.worker, &done, &count).await;
    let mut files = vec![audited.path()];
    for round in 0..6 {
        let before = count.load(Ordering::Acquire);
        until("calls go on", || (count.load(Ordering::Acquire) >= before + 50).then_some(()));
        let rotated = audited.folder.path().join(format!("audit.log.{round}"));
        fs::rename(audited.path(), &rotated).expect("our own folder");
        files.push(rotated);
        // The next line brings a new file, too, without a signal.
        if round % 2 == 0 {
            audited.worker.signal(Signal::SIGHUP);
        }
        until("a new file", || audited.path().exists().then_some(()));
    }
    done.store(true, Ordering::Release);
    for task in tasks {
        task.await.expect("served to the end");
    }
    let calls = count.load(Ordering::Acquire);
    let lines = || files.iter().map(|path| lines_of(path).len()).collect::<Vec<_>>();
    until_equal("a line for each call", &calls, || lines().iter().sum());
    assert!(lines().iter().skip(1).all(|lines| *lines > 0), "each file was used: {:?}", lines());
    assert_eq!(audited.worker.audit().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_makes_the_file_without_a_line() {
    let audited = Audited::start();
    fs::remove_file(audited.path()).expect("it was made at the start");
    audited.worker.signal(Signal::SIGHUP);
    until("it is there again", || audited.path().exists().then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_loses_no_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("stdout");
    mkfifo(&path, Mode::S_IRWXU).expect("our own folder");
    // Somebody who does not read, until asked: most lines are in the queue by then.
    let mut reader =
        File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("our own");
    let mut worker = Worker::builder().args(&["--audit-log", "stdout"]).stdout(&path).start();
    let mut client = worker.user().await;
    for _ in 0..500 {
        client.list(ListRequest::default()).await.expect("nobody waits for the reader");
    }
    drop(client);
    worker.signal(Signal::SIGTERM);
    let waits = |line: &String| line.contains("waiting until the audit log has taken its last lines");
    until("it waits", || worker.log().iter().any(waits).then_some(()));
    let mut bytes = Vec::new();
    let mut read = || match reader.read_to_end(&mut bytes) {
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        Ok(_) => panic!("we could write to it, too"),
    };
    until("the worker has ended", || {
        read();
        (!worker.is_running()).then_some(())
    });
    read();
    assert_eq!(String::from_utf8(bytes).expect("JSON").lines().count(), 500);
}

/// How large files may become that the worker writes: beyond it, a disk is full as far as it can tell.
fn limit_file_size(worker: &Worker, bytes: &str) {
    let pid = worker.pid().to_string();
    let limit = format!("--fsize={bytes}:");
    let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status().expect("util-linux is there");
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_file_does_not_take_is_in_the_log_and_nobody_is_refused() {
    let audited = Audited::start();
    let worker = &audited.worker;
    let mut client = worker.user().await;
    let mut list = async || client.list(ListRequest::default()).await.expect("served all the same");
    list().await;
    audited.lines("decision", 1);
    // Within the next line.
    let length = fs::metadata(audited.path()).expect("a file").len();
    limit_file_size(worker, &(length + 100).to_string());
    for _ in 0..3 {
        list().await;
    }
    let marked = || {
        let log = worker.log();
        let lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == "a line that the audit log did not take").collect::<Vec<_>>()
    };
    until_equal("three lines in the log", &3, || marked().len());
    for line in marked() {
        let inner: Value =
            serde_json::from_str(line["line"].as_str().expect("a text")).expect("the line as it is");
        assert_eq!(told(&inner, &["event", "client", "action"]), ["decision", "bob", "list"]);
    }
    assert_eq!(lines_of(&audited.path()).len(), 1, "and no part of one in the file");
    limit_file_size(worker, "unlimited");
    list().await;
    audited.lines("decision", 2);
    let is_told = |text: &str| worker.log().iter().filter(|line| line.contains(text)).count();
    let path = audited.path().display().to_string();
    assert_eq!(is_told(&format!("can't write the audit log to {path}")), 1, "{:#?}", worker.log());
    until_equal("that it works again", &1, || is_told(&format!("the audit log goes to {path} again")));
    assert_eq!(marked().len(), 3);
}

#[test]
fn a_file_that_can_not_be_written_is_told_at_once() {
    let (pki, folder) = (Pki::new(), tempfile::tempdir().expect("a temporary folder"));
    let serve = |path: &Path| {
        let mut command = Command::new(binary("jobworker"));
        clean(&mut command);
        command.args(["serve", "--listen", "127.0.0.1:0", "--state-dir"]).arg(folder.path().join("state"));
        command
            .arg("--ca")
            .arg(pki.ca())
            .arg("--cert")
            .arg(pki.server().cert)
            .arg("--key")
            .arg(pki.server().key);
        command
            .arg("--audit-log")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Answer::of(&mut command).with_code(1)
    };
    let missing = folder.path().join("missing/audit.log");
    serve(&missing).saying(&[
        "can't write the audit log to",
        missing.to_str().expect("UTF-8"),
        "No such file",
    ]);
    serve(folder.path()).saying(&["can't write the audit log to", folder.path().to_str().expect("UTF-8")]);
    serve(Path::new("/dev/full")).saying(&["/dev/full", "not a regular file"]);
    assert!(!folder.path().join("state").exists(), "a spawner was started");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stdout_has_the_lines_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("stdout");
    let worker =
        Worker::builder().args(&["--audit-log", "stdout", "--log-level", "debug"]).stdout(&path).start();
    run(&mut worker.admin().await, spec(&["true"])).await.expect("a job");
    until_equal("start, wait and the end", &3, || lines_of(&path).len());
    assert_eq!(of_event(&path, "job_end").len(), 1);
    assert_eq!(worker.audit().len(), 0);
}

#[test]
fn a_renewal_is_in_the_file_with_what_came_of_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("audit.log");
    let args = ["--audit-log", path.to_str().expect("a UTF-8 path"), "--renew-days=90"];
    let worker = Worker::builder().args(&args).renewing().start();
    jobctl_as(&worker, "bob", &["cert", "renew"]).with_code(0);
    until("the line", || (!of_event(&path, "certificate_issued").is_empty()).then_some(()));
    let lines = of_event(&path, "certificate_issued");
    let [issued] = &lines[..] else { panic!("{lines:#?}") };
    let told: Vec<_> = ["decision", "client", "role", "action"].map(|key| &issued[key]).into();
    assert_eq!(told, ["allowed", "bob", "user", "renew"]);
    assert!(issued["serial"].is_string() && issued["new_serial"].is_string(), "{issued}");
    assert_ne!(issued["serial"], issued["new_serial"]);
    assert!(worker.certificates_issued().is_empty(), "the log has none of it");
}
