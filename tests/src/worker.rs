//! A worker of one's own: a real `jobworker` process with its own state folder, certificates and spawner.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

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
    spawner: Option<u32>,
}

/// How to start one.
#[derive(Default)]
pub struct Builder {
    pki: Option<Arc<Pki>>,
    state: Option<Arc<TempDir>>,
    cgroup: Option<PathBuf>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    uid: Option<u32>,
}

impl Builder {
    /// Certificates made before.
    #[must_use]
    pub fn pki(mut self, pki: &Arc<Pki>) -> Self {
        self.pki = Some(Arc::clone(pki));
        self
    }

    /// A state folder that another worker has used.
    #[must_use]
    pub fn state(mut self, state: &Arc<TempDir>) -> Self {
        self.state = Some(Arc::clone(state));
        self
    }

    /// The subtree for the jobs' groups [default: one of the worker's own, where this process can make one].
    #[must_use]
    pub fn cgroup(mut self, path: &Path) -> Self {
        self.cgroup = Some(path.to_owned());
        self
    }

    /// More flags.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The OS user of the worker itself.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it does not; with its log.
    pub fn start(self) -> Worker {
        let pki = self.pki.unwrap_or_default();
        let state = self.state.unwrap_or_else(|| Arc::new(tempfile::tempdir().expect("a temporary folder")));
        // A worker of another OS user could not use a group of ours.
        let own_cgroup = self.cgroup.is_none() && self.uid.is_none();
        let cgroup = if own_cgroup { scratch::group_for(state.path()) } else { self.cgroup };
        let mut command = Command::new(binary("jobworker"));
        clean(&mut command);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
        command.arg("--state-dir").arg(state.path());
        command.arg("--ca").arg(pki.ca()).arg("--crl").arg(pki.crl());
        command.arg("--cert").arg(pki.server().cert).arg("--key").arg(pki.server().key);
        if let Some(cgroup) = &cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        command.args(&self.args).envs(self.env);
        if let Some(uid) = self.uid {
            std::os::unix::process::CommandExt::uid(&mut command, uid);
            std::os::unix::process::CommandExt::gid(&mut command, uid);
        }
        let mut process = command.stderr(Stdio::piped()).spawn().expect("jobworker can be executed");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = process.stderr.take().expect("a pipe");
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("no reader panics").push(line);
            }
        });
        let address = String::new();
        let mut worker = Worker { pki, address, state, cgroup, own_cgroup, process, log, spawner: None };
        worker.address = until("the worker listens", || {
            assert!(worker.is_running(), "the worker ended: {:#?}", worker.log());
            worker
                .log()
                .iter()
                .find_map(|line| Some(line.split_once("listening on ")?.1.split('"').next()?.to_owned()))
        });
        worker.spawner = worker.find_spawner();
        worker
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

    /// The audit lines so far.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let parsed = self.log().into_iter().filter_map(|line| serde_json::from_str(&line).ok());
        parsed.filter(|line: &serde_json::Value| line["target"] == "audit").collect()
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

    fn is_running(&mut self) -> bool {
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
