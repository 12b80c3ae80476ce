//! Runs the `jobctl` binary.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use jobworker_proto::v1::{self, Cause, outcome::Ended};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fake_worker::{FakeWorker, Script};
use crate::pki::Pki;

/// `jobctl` with nothing of this machine's environment or configuration.
pub(crate) fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobctl"));
    command.env_clear().env("TZ", "UTC").args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `jobctl` as the owner of the certificate `name`.
pub(crate) fn as_client(pki: &Pki, name: &str, address: impl std::fmt::Display, args: &[&str]) -> Command {
    let mut command = bare(args);
    command
        .env("JOBCTL_ADDRESS", address.to_string())
        .env("JOBCTL_CA", pki.path("ca.pem"))
        .env("JOBCTL_CERT", pki.path(&format!("{name}.pem")))
        .env("JOBCTL_KEY", pki.path(&format!("{name}-key.pem")));
    command
}

/// A worker and the certificates for it.
pub(crate) struct World {
    pub(crate) pki: Pki,
    pub(crate) worker: FakeWorker,
}

impl World {
    pub(crate) fn new(script: Script) -> Self {
        let pki = Pki::new();
        let worker = FakeWorker::new(&pki, script);
        Self { pki, worker }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        as_client(&self.pki, "alice", self.worker.address, args)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().expect("jobctl runs"))
    }
}

/// What a finished `jobctl` left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

pub(crate) fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().expect("a pid")), signal).expect("the child lives");
}

pub(crate) fn outcome(cause: Cause, ended: Ended) -> Option<v1::Outcome> {
    Some(v1::Outcome { cause: cause.into(), ended: Some(ended), ..Default::default() })
}

pub(crate) fn exited(code: i32) -> Option<v1::Outcome> {
    outcome(Cause::Exited, Ended::ExitCode(code))
}

/// Shows in the test's output what a person would see.
pub(crate) fn show(what: &str, ran: &Ran) {
    let _ = writeln!(std::io::stderr(), "--- {what}\n{}{}[{:?}]", ran.stdout, ran.stderr, ran.code);
}
