//! Policies under test: a file of one's own, and truth tables that are filled in by asking a worker.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tonic::{Code, Status};

use crate::api::{
    ListRequest, RemoveRequest, RenewRequest, SignalRequest, StatusRequest, StopRequest, StreamRequest,
    WaitRequest,
};
use crate::client::{output, spec, start, wait};
use crate::pki::{self, Identity};
use crate::{Client, Worker};

/// The policies as they are shipped.
pub mod shipped {
    /// Admins everything, users look.
    pub const DEFAULT: &str = include_str!("../../worker/policies/default.toml");
    /// Everyone starts; stops and streams their own.
    pub const OWNER: &str = include_str!("../../worker/policies/owner.toml");
    /// Users see only their own.
    pub const ISOLATED: &str = include_str!("../../worker/policies/isolated.toml");
    /// Roles by certificate.
    pub const FINGERPRINT: &str = include_str!("../../worker/policies/fingerprint.toml");
    /// Users start under an envelope.
    pub const CEILINGS: &str = include_str!("../../worker/policies/ceilings.toml");
    /// Jobs run as the OS user that the certificate names.
    pub const OS_USER: &str = include_str!("../../worker/policies/os-user.toml");
}

/// A policy's file.
pub struct PolicyFile {
    dir: TempDir,
}

impl PolicyFile {
    /// One with this text.
    ///
    /// # Panics
    /// When it can't be written, as everything here does.
    pub fn new(text: &str) -> Self {
        let file = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        file.write(text);
        file
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("policy.toml")
    }

    /// The folder that it is in.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Writes it in place.
    pub fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("a writable folder");
    }

    /// Puts another in its place, as editors do.
    pub fn replace(&self, text: &str) {
        let new = self.dir.path().join("policy.toml~");
        fs::write(&new, text).expect("a writable folder");
        fs::rename(new, self.path()).expect("a writable folder");
    }
}

/// The job that a row of a truth table is about.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    /// One that this client has started.
    Of(&'a Identity),
    /// There is none.
    Nothing,
}

/// A truth table, as a worker that renews certificates fills it in. Each cell is `yes`, `no` (denied), `role` (no role, so unauthenticated),
/// `gone` (no such job), and in a list also `hidden`.
pub struct TruthTable<'a> {
    worker: &'a Worker,
    text: String,
}

const NO_JOB: &str = "0b0e5a1c-3c1f-4a53-9d2e-5f6a7b8c9d0e";

impl<'a> TruthTable<'a> {
    /// An empty one.
    pub fn of(worker: &'a Worker) -> Self {
        let text = "client job start list status stream wait signal stop remove renew\n".to_owned();
        Self { worker, text }
    }

    /// Asks for everything as `client`, about such a job.
    pub async fn row(&mut self, name: &str, client: &Identity, job: &str, subject: Subject<'_>) {
        let (running, ended) = match subject {
            Subject::Nothing => (NO_JOB.to_owned(), NO_JOB.to_owned()),
            Subject::Of(owner) => {
                let mut owner = self.worker.client(owner).await;
                let running = start(&mut owner, spec(&["sleep", "300"])).await.expect("the owner may start");
                let ended = start(&mut owner, spec(&["true"])).await.expect("the owner may start").id;
                wait(&mut owner, &ended).await.expect("the owner may wait");
                (running.id, ended)
            }
        };
        let mut client = self.worker.client(client).await;
        let cells = cells(&mut client, &running, &ended).await;
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "{name} {job} {}", cells.join(" "));
    }

    /// Compares it with what it should be, whatever the spaces, and each of the policy's decisions with the audit log.
    #[track_caller]
    pub fn expect(self, expected: &str) {
        let plain = |text: &str| -> Vec<String> {
            let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
            lines.filter(|line| !line.is_empty()).collect()
        };
        assert_eq!(plain(&self.text), plain(expected), "left: as it is");
        let by_policy =
            |line: &&serde_json::Value| line["decision"] == "allowed" || line["decision"] == "denied";
        for line in self.worker.audit().iter().filter(by_policy) {
            let rule = line["rule"].as_str().unwrap_or_default();
            assert!(
                rule.contains("policy.toml:") || rule.contains("default.toml:"),
                "names its line: {line}"
            );
        }
    }
}

async fn cells(client: &mut Client, running: &str, ended: &str) -> Vec<&'static str> {
    let started = word(start(client, spec(&["true"])).await);
    let listed = match client.list(ListRequest::default()).await {
        Ok(list) => match list.into_inner().jobs.iter().any(|job| job.id == running) {
            true => "yes",
            false if running == NO_JOB => "yes",
            false => "hidden",
        },
        Err(status) => word::<()>(Err(status)),
    };
    let job = running.to_owned();
    let streamed =
        output(client, StreamRequest { job: job.clone(), no_follow: true, ..StreamRequest::default() });
    let streamed = word(streamed.await);
    let signal = SignalRequest { job: job.clone(), signal: "CONT".to_owned(), all: false };
    vec![
        started,
        listed,
        word(client.status(StatusRequest { job: job.clone() }).await),
        streamed,
        word(client.wait(WaitRequest { job: ended.to_owned() }).await),
        word(client.signal(signal).await),
        word(client.stop(StopRequest { job, grace_msec: Some(0), ..StopRequest::default() }).await),
        word(client.remove(RemoveRequest { job: ended.to_owned() }).await),
        word(client.renew(RenewRequest { csr: pki::csr(|_| {}) }).await),
    ]
}

fn word<T>(answer: Result<T, Status>) -> &'static str {
    match answer.map_err(|status| (status.code(), status)) {
        Ok(_) => "yes",
        Err((Code::PermissionDenied, _)) => "no",
        Err((Code::Unauthenticated, _)) => "role",
        Err((Code::NotFound, _)) => "gone",
        Err((_, status)) => panic!("neither allowed nor denied: {status}"),
    }
}
