//! A worker of one's own: a real `jobworker` process with its own state folder, certificates and spawner.

mod builder;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{env, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub use self::builder::Builder;

use crate::Client;
use crate::binaries::binary;
use crate::pki::{Identity, Pki};
use crate::wait::{until, until_within};
use crate::{census, client, scratch};

/// A running worker. Ends with its spawner and its jobs when dropped.
pub struct Worker {
    /// Its certificates.
    pub pki: Arc<Pki>,
    /// Where it listens.
    pub address: String,
    state: Arc<TempDir>,
    cgroup: Option<PathBuf>,
    own_cgroup: bool,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    is_unread: Arc<Unread>,
    spawner: Option<u32>,
}

/// Whether the worker's stderr is left unread.
#[derive(Default)]
struct Unread {
    is_so: Mutex<bool>,
    changed: Condvar,
}

impl Unread {
    fn set(&self, is_so: bool) {
        *self.is_so.lock().expect("no holder panics") = is_so;
        self.changed.notify_all();
    }

    /// Returns as soon as it is not.
    fn wait(&self) {
        let mut is_so = self.is_so.lock().expect("no holder panics");
        while *is_so {
            is_so = self.changed.wait(is_so).expect("no holder panics");
        }
    }
}

impl Worker {
    /// A worker with everything at its default.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A worker with something of one's own.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A connection of `alice`, the admin.
    pub async fn admin(&self) -> Client {
        self.client(&self.pki.identity("alice")).await
    }

    /// A connection of `bob`, the user.
    pub async fn user(&self) -> Client {
        self.client(&self.pki.identity("bob")).await
    }

    /// A connection of somebody.
    ///
    /// # Panics
    /// When it can't be made.
    pub async fn client(&self, identity: &Identity) -> Client {
        client::connect(&self.address, &self.pki.ca(), Some(identity), rustls::ALL_VERSIONS)
            .await
            .unwrap_or_else(|error| panic!("can't connect: {error:?}; the worker's log: {:#?}", self.log()))
    }

    /// `jobctl` as somebody, with its flags for this worker set; ready to run.
    pub fn jobctl_as(&self, name: &str, args: &[&str]) -> Command {
        let identity = self.pki.identity(name);
        let mut command = Command::new(binary("jobctl"));
        clean(&mut command);
        command.env("JOBCTL_CONFIG", "/nonexistent/jobctl.toml");
        command.env("JOBCTL_ADDRESS", &self.address).env("JOBCTL_CA", self.pki.ca());
        command.env("JOBCTL_CERT", identity.cert).env("JOBCTL_KEY", identity.key);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `jobctl` as the admin.
    ///
    /// # Panics
    /// When it can't be executed.
    pub fn jobctl(&self, args: &[&str]) -> Output {
        self.jobctl_as("alice", args).output().expect("jobctl can be executed")
    }

    /// The worker's pid.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The pid of the spawner that belongs to this worker's state folder.
    pub fn spawner_pid(&self) -> u32 {
        self.spawner.expect("the worker has a spawner")
    }

    /// Its state folder, for another worker on the same one.
    pub fn state(&self) -> &Arc<TempDir> {
        &self.state
    }

    /// The subtree that it was started with, where there is one.
    pub fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    /// The folder of the jobs' folders.
    pub fn jobs_dir(&self) -> PathBuf {
        self.state.path().join("jobs")
    }

    /// What it has written to stderr so far, line by line.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no writer panics").clone()
    }

    /// Reads no more of its stderr, and its spawner's and its shims'; the pipe stays open.
    pub fn stop_reading_log(&self) {
        self.is_unread.set(true);
    }

    /// Goes on reading.
    pub fn read_log_again(&self) {
        self.is_unread.set(false);
    }

    /// The audit lines of decisions in the log so far: on calls, on connections and on removals that nobody asked for.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        self.audit_lines(&["decision", "connection", "removal"])
    }

    /// The audit lines of one event in the log so far.
    pub fn audit_of(&self, event: &str) -> Vec<serde_json::Value> {
        self.audit_lines(&[event])
    }

    /// The audit lines of jobs' ends in the log so far.
    pub fn ends(&self) -> Vec<serde_json::Value> {
        self.audit_lines(&["job_end"])
    }

    /// The audit lines of certificates that were issued, in the log so far.
    pub fn certificates_issued(&self) -> Vec<serde_json::Value> {
        self.audit_lines(&["certificate_issued"])
    }

    fn audit_lines(&self, events: &[&str]) -> Vec<serde_json::Value> {
        let parsed = self.log().into_iter().filter_map(|line| serde_json::from_str(&line).ok());
        let is_event = |message: &serde_json::Value| events.iter().any(|event| *message == *event);
        let is_one = |line: &serde_json::Value| line["target"] == "audit" && is_event(&line["message"]);
        parsed.filter(is_one).collect()
    }

    /// Sends a signal to the worker.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        kill(pid(self.process.id()), signal).expect("the worker runs");
    }

    /// Waits until the worker has ended.
    pub fn ended(&mut self) -> ExitStatus {
        let process = &mut self.process;
        until("the worker has ended", || process.try_wait().expect("our own child"))
    }

    /// Whether the worker has not ended.
    ///
    /// # Panics
    /// When that can not be told.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("our own child").is_none()
    }

    fn find_spawner(&self) -> Option<u32> {
        let state = self.state.path().to_str().expect("a UTF-8 path");
        let pids = census::processes_with(state);
        pids.into_iter().filter(|pid| *pid != self.process.id()).min()
    }
}

impl Drop for Worker {
    /// The jobs by their shims, the worker, then the spawner: nothing outlives its test.
    fn drop(&mut self) {
        self.read_log_again();
        // A worker that follows on this one's state folder has the jobs now.
        let last = Arc::strong_count(&self.state) == 1;
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !last {
            return;
        }
        let state = self.state.path().to_string_lossy().into_owned();
        for pid_of_ours in census::processes_with(&state) {
            let _ = kill(pid(pid_of_ours), Signal::SIGTERM);
        }
        until_within(Duration::from_secs(90), "the spawner and the shims have ended", || {
            census::processes_with(&state).is_empty().then_some(())
        });
        if let Some(cgroup) = &self.cgroup {
            for inner in ["jobs", "shims", "worker"] {
                let _ = std::fs::remove_dir(cgroup.join(inner));
            }
            if self.own_cgroup {
                scratch::remove(cgroup);
            }
        }
        if thread::panicking() {
            eprintln!("the worker's log: {:#?}", self.log());
        }
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).expect("a pid"))
}

/// No setting of the person who runs the tests gets into a command.
pub fn clean(command: &mut Command) {
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("JOBCTL_") || name.starts_with("JOBWORKER_") {
            command.env_remove(&key);
        }
    }
}
