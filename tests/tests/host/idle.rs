//! Waiting costs nothing: an idle job, its shim, the spawner, and the worker with idle followers make no system call.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use jobworker_tests::Worker;
use jobworker_tests::api::SignalRequest;
use jobworker_tests::client::{everything, run, shell, start, wait};
use jobworker_tests::wait::{PATIENCE, until};

/// How long nothing may happen.
const WATCHED: Duration = Duration::from_secs(5);

/// Attaching to a process ends the call that it sleeps in, and the process sleeps again: that much is strace's own.
const SETTLED: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_followers_and_jobs_make_no_system_calls() {
    let worker = Worker::start();
    let job = start(&mut worker.admin().await, shell("echo up; exec sleep 300")).await.expect("a job");
    let mut followers = Vec::new();
    for _ in 0..3 {
        let mut client = worker.user().await;
        let mut stream = client.stream(everything(&job.id)).await.expect("its output").into_inner();
        stream.message().await.expect("no error").expect("the first line");
        followers.push((client, stream));
    }
    let (mut waiter, id) = (worker.user().await, job.id.clone());
    let waiting = tokio::spawn(async move { wait(&mut waiter, &id).await });
    until("the wait has begun", || worker.audit().iter().any(|line| line["action"] == "wait").then_some(()));
    let shim = shim_of(job.pid.expect("it runs"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let calls = folder.path().join("calls");
    let watched = [worker.pid(), worker.spawner_pid(), shim];
    let strace = Tracer::attach(&watched, &calls);
    let before = settled(&calls);
    tokio::time::sleep(WATCHED).await;
    let after = fs::read_to_string(&calls).expect("strace writes");
    assert_eq!(after.strip_prefix(&before), Some(""), "system calls while idle:\n{after}");
    // That the tracer would have seen one: each of the three has something to do now.
    let mut admin = worker.admin().await;
    let signal = SignalRequest { job: job.id.clone(), signal: "CONT".to_owned(), all: false };
    admin.signal(signal).await.expect("the shim is asked");
    run(&mut admin, shell("exit 0")).await.expect("the spawner is asked");
    for pid in watched {
        let has_called = || {
            let new = fs::read_to_string(&calls).ok()?.split_off(after.len());
            let threads = jobworker_tests::census::thread_ids(pid);
            threads.iter().any(|thread| new.contains(&format!("{thread} "))).then_some(())
        };
        until("strace saw a call that did come", has_called);
    }
    drop(strace);
    assert!(!waiting.is_finished(), "somebody waited all along");
}

fn shim_of(main: u32) -> u32 {
    let parent = jobworker_tests::census::status_line(main, "PPid").expect("the job runs");
    parent.parse().expect("a pid")
}

struct Tracer(Child);

impl Tracer {
    fn attach(pids: &[u32], calls: &Path) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-q", "-o"]).arg(calls);
        command.args(pids.iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]));
        let child = command.stderr(Stdio::null()).spawn().expect("strace is installed");
        for pid in pids {
            until("strace has attached", || {
                let tracer = jobworker_tests::census::status_line(*pid, "TracerPid")?;
                (tracer != "0").then_some(())
            });
        }
        Self(child)
    }
}

impl Drop for Tracer {
    /// SIGTERM: strace lets go of the processes, which a kill would take along.
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// What strace has written once it writes no more.
fn settled(calls: &Path) -> String {
    let started = Instant::now();
    let mut last = (Instant::now(), String::new());
    while last.0.elapsed() < SETTLED {
        let now = fs::read_to_string(calls).unwrap_or_default();
        if now != last.1 {
            last = (Instant::now(), now);
        }
        assert!(started.elapsed() < PATIENCE, "system calls without end:\n{}", last.1);
        thread::sleep(Duration::from_millis(20));
    }
    last.1
}
