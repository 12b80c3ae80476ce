//! How a worker is started.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::unistd::geteuid;
use tempfile::TempDir;

use super::{Unread, Worker, clean};
use crate::binaries::binary;
use crate::pki::Pki;
use crate::scratch;
use crate::wait::until;

/// How to start one.
#[derive(Default)]
pub struct Builder {
    pki: Option<Arc<Pki>>,
    state: Option<Arc<TempDir>>,
    cgroup: Option<PathBuf>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    uid: Option<u32>,
    behind: Vec<String>,
    stdout: Option<PathBuf>,
    renewing: bool,
    without_list: bool,
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

    /// It renews clients' certificates, with the CA that signs all others as well.
    #[must_use]
    pub fn renewing(mut self) -> Self {
        self.renewing = true;
        self
    }

    /// No certificate is revoked.
    #[must_use]
    pub fn without_list(mut self) -> Self {
        self.without_list = true;
        self
    }

    /// The OS user of the worker itself.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// A command that becomes the worker, which it is given as its last arguments: `actor odd`.
    #[must_use]
    pub fn behind(mut self, command: &[&str]) -> Self {
        self.behind = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// A file for its stdout.
    #[must_use]
    pub fn stdout(mut self, path: &Path) -> Self {
        self.stdout = Some(path.to_owned());
        self
    }

    /// Starts it and waits until it listens and has nothing more to begin.
    ///
    /// # Panics
    /// When it does not; with its log.
    pub fn start(self) -> Worker {
        let pki = self.pki.unwrap_or_default();
        let state = self.state.unwrap_or_else(|| Arc::new(tempfile::tempdir().expect("a temporary folder")));
        // A worker of another OS user could not use a group of ours.
        let own_cgroup = self.cgroup.is_none() && self.uid.is_none();
        let cgroup = if own_cgroup { scratch::group_for(state.path()) } else { self.cgroup };
        let mut command = command(&self.behind, &pki, state.path(), cgroup.as_deref());
        let is_said = |flag: &&String| ["--default-user", "--spawner-socket"].contains(&flag.as_str());
        // A worker that is root has to be told as whom jobs run.
        if geteuid().is_root() && self.uid.is_none() && !self.args.iter().any(|arg| is_said(&arg)) {
            command.args(["--default-user", "root"]);
        }
        if !self.without_list {
            command.arg("--crl").arg(pki.crl());
        }
        command.args(&self.args).envs(self.env);
        if let Some(path) = self.stdout {
            command.stdout(File::create(path).expect("a writable folder"));
        }
        if self.renewing {
            command.arg("--renew-ca").arg(pki.ca()).arg("--renew-key").arg(pki.dir().join("ca-key.pem"));
        }
        if let Some(uid) = self.uid {
            std::os::unix::process::CommandExt::uid(&mut command, uid);
            std::os::unix::process::CommandExt::gid(&mut command, uid);
        }
        let mut process = command.spawn().expect("jobworker can be executed");
        let is_unread = Arc::default();
        let log = gather(process.stderr.take().expect("a pipe"), &is_unread);
        let address = String::new();
        let mut worker =
            Worker { pki, address, state, cgroup, own_cgroup, process, log, is_unread, spawner: None };
        worker.address = until("the worker listens", || {
            assert!(worker.is_running(), "the worker ended: {:#?}", worker.log());
            worker.log().iter().find_map(|line| listening(line))
        });
        // Up to here it opens what it holds for good: whoever counts, counts from here.
        until("the worker has counted the jobs", || {
            worker.log().iter().any(|line| line.contains("all jobs are counted")).then_some(())
        });
        worker.spawner = worker.find_spawner();
        worker
    }
}

/// The address in the line of the log that tells it.
fn listening(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on ")?;
    rest.split('"').next().map(str::to_owned)
}

/// `jobworker serve` with its files, and a log that tests can read.
fn command(behind: &[String], pki: &Pki, state: &Path, cgroup: Option<&Path>) -> Command {
    let program = binary("jobworker");
    let mut command = match behind {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(binary(first));
            command.args(rest).arg(program);
            command
        }
    };
    clean(&mut command);
    command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]).stderr(Stdio::piped());
    command.arg("--state-dir").arg(state).arg("--ca").arg(pki.ca());
    command.arg("--cert").arg(pki.server().cert).arg("--key").arg(pki.server().key);
    if let Some(cgroup) = cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    command
}

/// The lines that come from a pipe, as they come, but while it is to be left unread.
fn gather(pipe: ChildStderr, is_unread: &Arc<Unread>) -> Arc<Mutex<Vec<String>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let (lines, is_unread) = (Arc::clone(&log), Arc::clone(is_unread));
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            lines.lock().expect("no reader panics").push(line);
            is_unread.wait();
        }
    });
    log
}
