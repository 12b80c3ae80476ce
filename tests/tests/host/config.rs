//! What an operator writes: flags before the environment before the file; and whatever can't be used is named before
//! anything is served.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use jobworker_tests::binaries::binary;
use jobworker_tests::worker::clean;
use jobworker_tests::{Pki, Worker};
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use tempfile::TempDir;

use crate::support::{Running, jobctl};

/// A worker that is not expected to come up.
struct Attempt {
    pki: Pki,
    folder: TempDir,
    command: Command,
}

impl Attempt {
    fn new() -> Self {
        let (pki, folder) = (Pki::new(), tempfile::tempdir().expect("a temporary folder"));
        let mut command = Command::new(binary("jobworker"));
        clean(&mut command);
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("JOBWORKER_LISTEN", "127.0.0.1:0");
        command.env("JOBWORKER_STATE_DIR", folder.path().join("state"));
        let server = pki.server();
        command.env("JOBWORKER_CA", pki.ca()).env("JOBWORKER_CRL", pki.crl());
        command.env("JOBWORKER_CERT", server.cert).env("JOBWORKER_KEY", server.key);
        Self { pki, folder, command }
    }

    fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    fn config(self, text: &str) -> Self {
        let path = self.folder.path().join("worker.toml");
        fs::write(&path, text).expect("a writable folder");
        self.env("JOBWORKER_CONFIG", path)
    }

    /// Expects it to end at once, with these words on stderr.
    #[track_caller]
    fn expect_refusal(self, words: &[&str]) {
        let mut running = Running::start(self.command);
        let status = running.ended();
        assert!(status.code().is_some_and(|code| code != 0), "{status:?}: {}", running.stderr());
        for word in words {
            running.wait_for_stderr(word);
        }
        drop(self.pki);
    }
}

#[test]
fn the_flag_goes_before_the_environment_before_the_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("worker.toml");
    fs::write(&file, "max-args = 1\ngrace = \"1s\"\n").expect("a writable folder");
    let config = ["--config", file.to_str().expect("a UTF-8 path")];
    let expect_cap = |worker: &Worker, cap: &str| {
        let answer = jobctl(worker, &["start", "--", "true", "1", "2", "3", "4"]).with_code(1);
        answer.saying(&[&format!("4 arguments; this worker takes {cap} ")]);
    };
    expect_cap(&Worker::builder().args(&config).start(), "1");
    expect_cap(&Worker::builder().args(&config).env("JOBWORKER_MAX_ARGS", "2").start(), "2");
    let all = [&config[..], &["--max-args", "3"]].concat();
    expect_cap(&Worker::builder().args(&all).env("JOBWORKER_MAX_ARGS", "2").start(), "3");
}

#[test]
fn a_policy_that_is_not_right_keeps_the_worker_from_starting() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("policy.toml");
    fs::write(&file, "[roles.user]\nstop = \"mine\"\n").expect("a writable folder");
    let words = ["policy.toml:2: `stop = \"mine\"`", "unknown variant `mine`"];
    Attempt::new().env("JOBWORKER_POLICY", &file).expect_refusal(&words);
    let missing = folder.path().join("none.toml");
    let words = ["can't read the policy", "none.toml", "No such file"];
    Attempt::new().config(&format!("policy = '{}'", missing.display())).expect_refusal(&words);
}

#[test]
fn a_worker_runs_from_its_file_alone() {
    let pki = Pki::new();
    let state = tempfile::tempdir().expect("a temporary folder");
    let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("a password database");
    let text = format!(
        "default-user = '{}'\nlisten = '127.0.0.1:0'\nstate-dir = '{}'\nca = '{}'\ncert = '{}'\nkey = '{}'\ncrl = '{}'\n",
        own.expect("our own user").name,
        state.path().display(),
        pki.ca().display(),
        pki.server().cert.display(),
        pki.server().key.display(),
        pki.crl().display(),
    );
    let file = state.path().join("worker.toml");
    fs::write(&file, text).expect("a writable folder");
    let group = jobworker_tests::scratch::group_for(state.path());
    let mut command = Command::new(binary("jobworker"));
    clean(&mut command);
    command.arg("--config").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(group) = &group {
        command.arg("--cgroup").arg(group);
    }
    let worker = Running::start(command);
    worker.wait_for_stderr("listening on 127.0.0.1:");
    drop(worker);
    spawners_end(state.path());
    group.iter().for_each(|group| jobworker_tests::scratch::remove(group));
}

/// A spawner that the worker has started ends by itself when its worker is gone and no job runs.
fn spawners_end(state: &Path) {
    let state = state.to_str().expect("a UTF-8 path");
    jobworker_tests::wait::until_equal("the spawner has ended", &Vec::new(), || {
        jobworker_tests::census::processes_with(state)
    });
}

#[test]
fn what_the_file_should_not_hold_is_named() {
    let unknown = ["worker.toml", "max-arg"];
    Attempt::new().config("max-args = 5\nmax-arg = 5\n").expect_refusal(&unknown);
    Attempt::new().config("[limits]\nmemory = '1G'\n").expect_refusal(&["worker.toml", "limits"]);
    Attempt::new().config("max-args = 'many'\n").expect_refusal(&["worker.toml", "max-args"]);
    Attempt::new().config("max-args = 0\n").expect_refusal(&["worker.toml", "max-args"]);
    Attempt::new().config("keep-ended-for = '0s'\n").expect_refusal(&[
        "worker.toml",
        "keep-ended-for",
        "'0s'",
    ]);
    Attempt::new()
        .env("JOBWORKER_KEEP_ENDED_BYTES", "99999999EB")
        .expect_refusal(&["--keep-ended-bytes", "8 EiB"]);
    Attempt::new().config("grace = '10'\n").expect_refusal(&["worker.toml", "grace"]);
    Attempt::new().config("listen = 'everywhere'\n").expect_refusal(&["worker.toml", "listen"]);
    Attempt::new().config("max-args = \n").expect_refusal(&["worker.toml"]);
    Attempt::new().env("JOBWORKER_CONFIG", "/no/such/worker.toml").expect_refusal(&["/no/such/worker.toml"]);
    Attempt::new().env("JOBWORKER_MAX_ARGS", "0").expect_refusal(&["--max-args", "0"]);
}

#[test]
fn a_certificate_or_key_that_can_not_be_used_is_named() {
    for (variable, flag) in
        [("JOBWORKER_CA", "--ca"), ("JOBWORKER_CERT", "--cert"), ("JOBWORKER_KEY", "--key")]
    {
        Attempt::new().without(variable).expect_refusal(&[&format!("{flag} is missing"), variable]);
        Attempt::new()
            .env(variable, "/no/such/file.pem")
            .expect_refusal(&["/no/such/file.pem", "No such file"]);
        Attempt::new().env(variable, "/etc/hosts").expect_refusal(&["/etc/hosts", "-----BEGIN"]);
    }
    Attempt::new().env("JOBWORKER_CRL", "/no/such/crl.pem").expect_refusal(&["/no/such/crl.pem"]);
    let attempt = Attempt::new();
    let other = attempt.pki.identity("alice").key;
    attempt.env("JOBWORKER_KEY", &other).expect_refusal(&["alice-key.pem", "server.pem"]);
    let attempt = Attempt::new();
    let expired = attempt.pki.odd_client("old-server", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 15);
    });
    let attempt = attempt.env("JOBWORKER_CERT", &expired.cert).env("JOBWORKER_KEY", &expired.key);
    attempt.expect_refusal(&["old-server.pem", "expired on 2020-02-15"]);
}

#[test]
fn a_place_that_can_not_be_used_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    Attempt::new().env("JOBWORKER_LISTEN", &address).expect_refusal(&[&address, "in use"]);
    let attempt = Attempt::new().env("JOBWORKER_STATE_DIR", "/proc/no/such/folder");
    attempt.env("JOBWORKER_DEFAULT_USER", "root").expect_refusal(&["/proc/no/such/folder"]);
    Attempt::new()
        .env("JOBWORKER_DEFAULT_USER", "root")
        .env("JOBWORKER_CGROUP", "/tmp")
        .expect_refusal(&["/tmp", "cgroup"]);
    Attempt::new().env("JOBWORKER_DEFAULT_USER", "no-such-user").expect_refusal(&["no-such-user"]);
    let attempt = Attempt::new().env("JOBWORKER_SPAWNER_SOCKET", "/no/such/spawner.sock");
    attempt.expect_refusal(&["/no/such/spawner.sock"]);
}
