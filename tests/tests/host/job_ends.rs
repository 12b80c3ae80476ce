//! Each job's end has its line in the audit log: with how it ended and what it used, once, whatever becomes of the
//! worker meanwhile.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use jobworker_tests::api::{JobSpec, RemoveRequest, StopRequest};
use jobworker_tests::client::{run, shell, spec, start, wait};
use jobworker_tests::wait::{until, until_equal};
use jobworker_tests::{Client, Worker, census};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::wait_for_file;

/// An audit log, and the workers that write it one after the other.
struct Log {
    folder: TempDir,
}

impl Log {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    fn start(&self) -> Worker {
        Worker::builder().args(&["--audit-log", self.path().to_str().expect("a UTF-8 path")]).start()
    }

    fn next(&self, worker: &Worker) -> Worker {
        let path = self.path();
        let args = ["--audit-log", path.to_str().expect("a UTF-8 path")];
        Worker::builder().pki(&worker.pki).state(worker.state()).args(&args).start()
    }

    /// The lines of ends so far.
    fn ends(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.filter(|line| line["event"] == "job_end").collect()
    }

    fn end_of(&self, job: &str) -> Value {
        until("the line of its end", || self.ends().into_iter().find(|line| line["job"] == job))
    }

    /// How often each job's end was told.
    fn counts(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for line in self.ends() {
            *counts.entry(line["job"].as_str().expect("an id").to_owned()).or_default() += 1;
        }
        counts
    }
}

fn kill_9(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("it runs");
}

fn state_of(worker: &Worker, job: &str) -> Value {
    let text = fs::read_to_string(worker.jobs_dir().join(job).join("state.json")).expect("its state");
    serde_json::from_str(&text).expect("JSON")
}

/// As the log writes it.
fn usec_of(time: &Value) -> i128 {
    let time = time.as_str().expect("a time");
    let format = time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::parse(time, &format).expect("RFC 3339").unix_timestamp_nanos() / 1000
}

/// A job that outlasts the test: its spawner does not end between two workers.
async fn keep_spawner(worker: &Worker) {
    start(&mut worker.admin().await, spec(&["sleep", "300"])).await.expect("a job");
}

async fn remove(client: &mut Client, job: &str) {
    client.remove(RemoveRequest { job: job.to_owned() }).await.expect("removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_end_is_told_with_its_particulars() {
    let log = Log::new();
    let worker = log.start();
    let mut admin = worker.admin().await;
    let exited = JobSpec { name: "build 7".to_owned(), ..shell("echo four; exit 5") };
    let exited = run(&mut admin, exited).await.expect("a job").id;
    let signalled = run(&mut admin, shell("kill -SEGV $$")).await.expect("a job").id;
    let timed_out = JobSpec { timeout_msec: Some(50), ..spec(&["sleep", "300"]) };
    let timed_out = run(&mut admin, timed_out).await.expect("a job").id;
    let stopped = start(&mut admin, spec(&["sleep", "300"])).await.expect("a job").id;
    admin.stop(StopRequest { job: stopped.clone(), ..StopRequest::default() }).await.expect("stopped");
    let lost = start(&mut admin, spec(&["sleep", "300"])).await.expect("a job").id;
    kill_9(u32::try_from(state_of(&worker, &lost)["shim_pid"].as_u64().expect("a pid")).expect("a pid"));
    wait(&mut admin, &lost).await.expect("it is lost");

    let line = log.end_of(&exited);
    assert_eq!(line["outcome"], "exited");
    assert_eq!((&line["exit_code"], &line["ended"]), (&5.into(), &"exited with code 5".into()), "{line}");
    assert_eq!((&line["name"], &line["output_bytes"]), (&"build 7".into(), &5.into()), "{line}");
    let keys = ["exit_signal", "stopped_by", "own_limit", "lost_reason"];
    assert!(keys.iter().all(|key| line[key].is_null()), "{line}");
    let state = state_of(&worker, &exited);
    let finished = &state["phase"]["finished"];
    assert_eq!(usec_of(&line["ended_at"]), i128::from(finished["at_unix_usec"].as_u64().expect("a time")));
    assert_eq!(
        usec_of(&line["started_at"]),
        i128::from(state["started_unix_usec"].as_u64().expect("a time"))
    );
    assert!(usec_of(&line["time"]) >= usec_of(&line["ended_at"]), "{line}");
    for key in ["cpu_usec", "memory_peak_bytes"] {
        assert_eq!(line[key], finished["usage"][key], "{key}: {line}");
    }

    let line = log.end_of(&signalled);
    assert_eq!((&line["outcome"], &line["exit_signal"]), (&"signaled".into(), &11.into()), "{line}");
    let line = log.end_of(&timed_out);
    assert_eq!((&line["outcome"], &line["exit_signal"]), (&"timed_out".into(), &15.into()), "{line}");
    let line = log.end_of(&stopped);
    assert_eq!((&line["outcome"], &line["stopped_by"]), (&"stopped".into(), &"alice".into()), "{line}");
    assert_eq!(line["ended"], "was stopped by alice and was ended by signal 15");
    let line = log.end_of(&lost);
    assert_eq!((&line["outcome"], &line["exit_signal"]), (&"lost".into(), &Value::Null), "{line}");
    assert!(line["lost_reason"].as_str().is_some_and(|reason| reason.contains("was killed")), "{line}");

    let spec: Value = serde_json::from_slice(
        &fs::read(worker.jobs_dir().join(&exited).join("spec.json")).expect("its spec"),
    )
    .expect("JSON");
    for line in log.ends() {
        let keys = [
            ("client", "name"),
            ("role", "role"),
            ("serial", "serial"),
            ("fingerprint", "fingerprint_sha256"),
        ];
        assert!(
            keys.iter().all(|(key, owner)| line[key] == spec["owner"][owner] && line[key].is_string()),
            "{line}"
        );
        assert_eq!((&line["late"], &line["output_lost_bytes"]), (&false.into(), &0.into()), "{line}");
    }
    assert_eq!(log.ends().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_option_ends_are_told_among_the_log() {
    let worker = Worker::start();
    keep_spawner(&worker).await;
    let mut admin = worker.admin().await;
    let job = run(&mut admin, shell("exit 7")).await.expect("a job").id;
    let line = until("its line", || worker.ends().pop());
    assert_eq!(
        (&line["job"], &line["exit_code"], &line["client"]),
        (&job.into(), &7.into(), &"alice".into()),
        "{line}"
    );
    let next = Worker::builder().pki(&worker.pki).state(worker.state()).start();
    run(&mut next.admin().await, shell("exit 8")).await.expect("a job");
    until_equal("only the new one", &vec![8], || {
        next.ends().iter().map(|line| line["exit_code"].as_i64().unwrap()).collect()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_while_no_worker_ran_is_told_by_the_next_with_its_time_and_once() {
    let log = Log::new();
    let mut worker = log.start();
    keep_spawner(&worker).await;
    let gate = log.folder.path().join("gate");
    let mut admin = worker.admin().await;
    let mut jobs = Vec::new();
    for code in 0..5 {
        jobs.push(
            start(&mut admin, shell(&format!("{}; exit {code}", wait_for_file(&gate))))
                .await
                .expect("a job")
                .id,
        );
    }
    let before = run(&mut admin, spec(&["true"])).await.expect("a job").id;
    log.end_of(&before);
    worker.signal(Signal::SIGTERM);
    worker.ended();
    fs::write(&gate, "").expect("a writable folder");
    for job in &jobs {
        until("it has ended", || state_of(&worker, job)["phase"]["finished"].is_object().then_some(()));
    }
    assert_eq!(log.ends().len(), 1, "nobody was there to tell");
    let mut next = log.next(&worker);
    for (code, job) in jobs.iter().enumerate() {
        let line = log.end_of(job);
        assert_eq!((&line["exit_code"], &line["late"]), (&code.into(), &true.into()), "{line}");
        let ended = state_of(&worker, job)["phase"]["finished"]["at_unix_usec"].as_u64().expect("a time");
        assert_eq!(usec_of(&line["ended_at"]), i128::from(ended));
    }
    for _ in 0..2 {
        next.signal(Signal::SIGKILL);
        next.ended();
        next = log.next(&worker);
        // Its own end comes after those that it finds.
        let last = run(&mut next.admin().await, spec(&["true"])).await.expect("a job").id;
        log.end_of(&last);
    }
    assert!(log.counts().values().all(|count| *count == 1), "{:?}", log.counts());
    assert_eq!(log.counts().len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_knowing_what_was_told_nothing_old_is() {
    let log = Log::new();
    let mut worker = log.start();
    keep_spawner(&worker).await;
    let old = run(&mut worker.admin().await, spec(&["true"])).await.expect("a job").id;
    log.end_of(&old);
    worker.signal(Signal::SIGTERM);
    worker.ended();
    fs::remove_file(worker.state().path().join("worker/ends-told")).expect("it was made");
    let mut next = log.next(&worker);
    for _ in 0..2 {
        let new = run(&mut next.admin().await, spec(&["true"])).await.expect("a job").id;
        log.end_of(&new);
        assert_eq!(log.counts()[&old], 1, "told again");
        next.signal(Signal::SIGTERM);
        next.ended();
        next = log.next(&worker);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_account_can_be_kept_that_is_told_and_the_worker_works() {
    let log = Log::new();
    let state = std::sync::Arc::new(tempfile::tempdir().expect("a temporary folder"));
    fs::write(state.path().join("worker"), "in the way").expect("our own folder");
    let path = log.path();
    let args = ["--audit-log", path.to_str().expect("a UTF-8 path")];
    let worker = Worker::builder().state(&state).args(&args).start();
    let job = run(&mut worker.admin().await, spec(&["true"])).await.expect("a job").id;
    log.end_of(&job);
    let is_told = |line: &String| line.contains("those of jobs that end while no worker runs won't be");
    until_equal("what is lost", &1, || worker.log().iter().filter(|line| is_told(line)).count());
}

/// Short jobs, one after the other, by a client that connects again whenever the worker is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_again_and_again_tells_each_end() {
    const ROUNDS: usize = 8;
    const JOBS: usize = 25;
    let log = Log::new();
    let mut worker = log.start();
    keep_spawner(&worker).await;
    let mut jobs = Vec::new();
    for round in 0..ROUNDS {
        let mut admin = worker.admin().await;
        for number in 0..JOBS {
            let script = format!("sleep 0.0{}", (number * 7 + round) % 60);
            jobs.push(start(&mut admin, shell(&script)).await.expect("a job").id);
        }
        worker.signal(Signal::SIGKILL);
        worker.ended();
        worker = log.next(&worker);
    }
    for job in &jobs {
        log.end_of(job);
    }
    let counts = log.counts();
    assert_eq!(counts.len(), ROUNDS * JOBS);
    assert!(counts.values().all(|count| (1..=2).contains(count)), "{counts:?}");
    let twice = counts.values().filter(|count| **count == 2).count();
    assert!(twice < ROUNDS * 3, "{twice} were told twice: more than what a kill can cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_short_jobs_are_told_once_each_and_leave_no_watch() {
    let log = Log::new();
    let worker = log.start();
    let held = || (census::descriptors(worker.pid()), watches(worker.pid()));
    // By then the census is at work.
    let first = run(&mut worker.admin().await, spec(&["true"])).await.expect("a job").id;
    log.end_of(&first);
    until_equal("watched: the folder of the certificates, and that of the jobs", &2, || {
        watches(worker.pid())
    });
    let before = held();
    let mut tasks = Vec::new();
    for client in 0..4 {
        let mut admin = worker.admin().await;
        tasks.push(tokio::spawn(async move {
            let mut jobs = Vec::new();
            for number in 0..50 {
                let job = run(&mut admin, spec(&["true"])).await.expect("a job").id;
                // Some are gone at once.
                if (number + client) % 2 == 0 {
                    remove(&mut admin, &job).await;
                }
                jobs.push(job);
            }
            jobs
        }));
    }
    let mut jobs = Vec::new();
    for task in tasks {
        jobs.extend(task.await.expect("no panic"));
    }
    until_equal("an end each", &201, || log.counts().len());
    assert!(jobs.iter().all(|job| log.counts()[job] == 1), "{:?}", log.counts());
    until("nothing more is left open or under watch", || {
        let (descriptors, watches) = held();
        (descriptors <= before.0 && watches == before.1).then_some(())
    });
}

/// How much a process has inotify watch.
fn watches(pid: u32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs").flatten();
    let count = |path: &Path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("inotify ")).count()
    };
    entries.map(|entry| count(&entry.path())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removal_by_retention_comes_after_the_end() {
    let log = Log::new();
    let path = log.path();
    let args = ["--audit-log", path.to_str().expect("a UTF-8 path"), "--keep-ended-for", "1ns"];
    let worker = Worker::builder().args(&args).start();
    let mut admin = worker.admin().await;
    let mut jobs = Vec::new();
    // Over some sweeps: each finds jobs that have ended this moment.
    for _ in 0..80 {
        jobs.push(run(&mut admin, spec(&["true"])).await.expect("a job").id);
    }
    until_equal("all are gone", &0, || census::job_folders(&worker.jobs_dir()).len());
    let events = |job: &str| {
        let text = fs::read_to_string(log.path()).expect("a file");
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let of_job = lines.filter(|line| line["job"] == job && line["event"] != "decision");
        of_job.map(|line| line["event"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    for job in &jobs {
        until_equal("its end, then its removal", &vec!["job_end".to_owned(), "removal".to_owned()], || {
            events(job)
        });
    }
}
