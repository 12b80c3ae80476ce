//! `jobworker doctor`: what is wrong is named, with what to do; what runs is not disturbed; nothing is left.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use jobworker_tests::binaries::binary;
use jobworker_tests::worker::clean;
use jobworker_tests::{Pki, Worker, census, scratch};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use serde_json::Value;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::certs_support::list_until;
use crate::support::{Answer, jobctl, start_script};

/// A host that is set up well, until something is changed.
struct Patient {
    pki: Pki,
    folder: TempDir,
    group: Option<PathBuf>,
    command: Command,
}

impl Patient {
    fn new() -> Self {
        let (pki, folder) = (Pki::new(), tempfile::tempdir().expect("a temporary folder"));
        let group = scratch::group_for(folder.path());
        let mut command = Command::new(binary("jobworker"));
        clean(&mut command);
        command.arg("doctor").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("JOBWORKER_LISTEN", "127.0.0.1:0");
        command.env("JOBWORKER_STATE_DIR", folder.path());
        let server = pki.server();
        command.env("JOBWORKER_CA", pki.ca()).env("JOBWORKER_CRL", pki.crl());
        command.env("JOBWORKER_CERT", server.cert).env("JOBWORKER_KEY", server.key);
        if let Some(group) = &group {
            command.env("JOBWORKER_CGROUP", group);
        }
        if nix::unistd::geteuid().is_root() {
            command.env("JOBWORKER_DEFAULT_USER", "root");
        }
        Self { pki, folder, group, command }
    }

    fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// A server certificate of the same CA, changed by `edit`.
    fn with_certificate(self, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let odd = self.pki.odd_client("odd-server", |params| {
            params.distinguished_name.push(DnType::CommonName, "odd");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names =
                vec![SanType::DnsName("build7.example.org".try_into().expect("a name"))];
            edit(params);
        });
        fs::set_permissions(&odd.key, Permissions::from_mode(0o600)).expect("our own file");
        self.env("JOBWORKER_CERT", odd.cert).env("JOBWORKER_KEY", odd.key)
    }

    /// What doctor says. Its exit code is right, and nothing is left of it.
    #[track_caller]
    fn examined(&mut self) -> Vec<String> {
        let before = self.belongings();
        let answer = Answer::of(&mut self.command);
        let lines: Vec<String> = answer.stdout.lines().map(str::to_owned).collect();
        for line in &lines {
            let level = ["ok    ", "warn  ", "FAIL  "].iter().any(|level| line.starts_with(level));
            assert!(level && (line.starts_with("ok") || line.contains("; do: ")), "{line}");
        }
        let has_failed = lines.iter().any(|line| line.starts_with("FAIL"));
        let answer = answer.with_code(i32::from(has_failed));
        assert_eq!(answer.stderr, "");
        assert_eq!(self.belongings(), before, "something was left");
        lines
    }

    /// Files, groups, processes.
    fn belongings(&self) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>, Vec<u32>) {
        let entries = fs::read_dir(self.folder.path()).map(|entries| entries.flatten().map(|e| e.path()));
        let files = entries.map(Iterator::collect).unwrap_or_default();
        let groups = self.group.as_deref().map(census::folders).unwrap_or_default();
        (files, groups, census::processes_with(self.folder.path().to_str().expect("UTF-8")))
    }

    /// Expects a line that begins with a level and holds all these words.
    #[track_caller]
    fn expect(mut self, level: &str, words: &[&str]) {
        expect_line(&self.examined(), level, words);
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        let _ = fs::set_permissions(self.folder.path(), Permissions::from_mode(0o700));
        self.group.iter().for_each(|group| scratch::remove(group));
    }
}

#[track_caller]
fn expect_line(lines: &[String], level: &str, words: &[&str]) {
    let fits = |line: &&String| line.starts_with(level) && words.iter().all(|word| line.contains(word));
    assert!(lines.iter().any(|line| fits(&line)), "no {level} with {words:?} in {lines:#?}");
}

/// A CA that nobody knows, PEM.
fn self_signed(name: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("a signature").pem()
}

/// What an ordinary host may lack, whoever sets it up.
fn is_the_hosts(line: &str) -> bool {
    ["FAIL  controller ", "FAIL  subtree", "FAIL  cgroup mode"].iter().any(|start| line.starts_with(start))
}

#[test]
fn a_good_setup_fails_at_nothing_but_what_the_host_lacks() {
    let mut patient = Patient::new();
    let lines = patient.examined();
    let failed: Vec<_> =
        lines.iter().filter(|line| line.starts_with("FAIL") && !is_the_hosts(line)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let dir = patient.pki.dir().to_str().expect("UTF-8").to_owned();
    for words in [
        ["kernel: ", "cgroup.kill"],
        ["ca.pem: ", "valid until"],
        ["server.pem: ", "for localhost, 127.0.0.1"],
        ["server-key.pem: ", "mode 0600"],
        ["crl.pem: ", "valid until"],
        ["port 127.0.0.1:0: ", "free"],
        ["state folder ", "jobs in it: 0"],
        ["spawner: ", "starts one itself"],
        ["server-key.pem", &dir],
    ] {
        expect_line(&lines, "ok", &words);
    }
    if patient.group.is_some() {
        expect_line(&lines, "ok", &["birth: ", "CLONE_INTO_CGROUP"]);
    }

    patient.command.args(["--output", "json"]);
    let answer = Answer::of(&mut patient.command);
    let json: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!(json["findings"].as_array().map(Vec::len), Some(lines.len()));
    assert_eq!(
        (json["ok"].as_bool(), answer.code == Some(0)),
        (answer.code.map(|code| code == 0), json["ok"] == true)
    );
    assert_eq!(json["findings"][0]["subject"], "kernel");
}

#[test]
fn a_certificates_dates_are_measured_by_the_clock() {
    let expired = Patient::new().with_certificate(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 15);
    });
    let words = [
        "odd-server.pem",
        "expired on 2020-02-15",
        "certs server --dir",
        "--host build7.example.org --force",
    ];
    expired.expect("FAIL", &words);
    let soon = Patient::new().with_certificate(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(12) + Duration::hours(1);
    });
    soon.expect("warn", &["odd-server.pem", "expires in 12 days", "certs server --dir"]);
    let early = Patient::new().with_certificate(|params| {
        params.not_before = OffsetDateTime::now_utc() + Duration::days(1);
        params.not_after = params.not_before + Duration::days(90);
    });
    early.expect("FAIL", &["clock: ", "odd-server.pem is not valid before", "timedatectl"]);
}

#[test]
fn a_key_that_others_can_read_is_named() {
    let patient = Patient::new();
    let key = patient.pki.server().key;
    for mode in [0o604, 0o620] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).expect("our own file");
        let key = key.to_str().expect("UTF-8");
        Patient::new()
            .env("JOBWORKER_CERT", patient.pki.server().cert)
            .env("JOBWORKER_KEY", key)
            .expect("FAIL", &[key, &format!("mode 0{mode:o}"), &format!("chmod 600 {key}")]);
    }
    fs::set_permissions(&key, Permissions::from_mode(0o640)).expect("our own file");
    patient.expect("ok", &["server-key.pem", "mode 0640"]);
}

#[test]
fn a_renewal_ca_is_looked_at_as_serve_does() {
    let patient = Patient::new();
    let (ca, key) = (patient.pki.ca(), patient.pki.dir().join("ca-key.pem"));
    let mut patient = patient.env("JOBWORKER_RENEW_CA", ca).env("JOBWORKER_RENEW_KEY", &key);
    expect_line(&patient.examined(), "ok", &["ca.pem: renews certificates, for 45 days each"]);
    fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("our own file");
    patient.expect("FAIL", &["can't renew certificates", "ca-key.pem has mode 0644", "chmod 600"]);

    let (patient, other) = (Patient::new(), Pki::new());
    let patient = patient.env("JOBWORKER_RENEW_CA", other.ca());
    let patient = patient.env("JOBWORKER_RENEW_KEY", other.dir().join("ca-key.pem"));
    patient.expect("warn", &["would refuse the certificates that it renews", "add that CA to --ca"]);
}

#[test]
fn certificates_that_do_not_fit_are_told_apart() {
    let patient = Patient::new();
    let other = patient.pki.identity("alice");
    let words = ["alice-key.pem", "not the key of the certificate", "server.pem", "--host localhost"];
    patient.env("JOBWORKER_KEY", other.key).expect("FAIL", &words);

    let patient = Patient::new();
    let other = patient.pki.identity("alice");
    patient
        .env("JOBWORKER_CERT", other.cert)
        .env("JOBWORKER_KEY", other.key)
        .expect("FAIL", &["alice.pem", "certs server"]);

    let other = Pki::new();
    Patient::new()
        .env("JOBWORKER_CRL", other.crl())
        .expect("FAIL", &["has no list in --crl", "--crl FILE for each CA"]);

    let for_clients = Patient::new()
        .with_certificate(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    for_clients.expect("FAIL", &["odd-server.pem", "clients refuse it", "--host build7.example.org --force"]);

    // One that is called like ours, and one that is not.
    let stranger = Pki::new();
    let another = self_signed("another CA");
    let another_path = stranger.dir().join("another.pem");
    fs::write(&another_path, another).expect("a writable folder");
    for ca in [stranger.ca(), another_path] {
        let mut patient = Patient::new().env("JOBWORKER_CA", &ca);
        patient.command.env_remove("JOBWORKER_CRL");
        patient.expect("warn", &["server.pem", "no CA in", ca.to_str().expect("UTF-8"), "jobctl --ca"]);
    }

    let patient = Patient::new();
    let not_a_list = patient.pki.ca();
    patient.env("JOBWORKER_CRL", not_a_list).expect("FAIL", &["ca.pem", "X509 CRL", "gencrl"]);
    // Beside one that is good, with which a worker would start.
    let mut patient = Patient::new();
    let ended = patient.pki.dir().join("ended.pem");
    fs::write(&ended, list_until(&patient.pki, OffsetDateTime::now_utc() - Duration::hours(1)))
        .expect("a writable folder");
    patient.command.env_remove("JOBWORKER_CRL").arg("--crl").arg(&ended).arg("--crl").arg(patient.pki.crl());
    patient.expect("FAIL", &["ended.pem", "expired on", "gencrl"]);
}

#[test]
fn files_that_are_not_there_are_named() {
    for (variable, remedy) in [
        ("JOBWORKER_CA", "certs init"),
        ("JOBWORKER_CERT", "certs server"),
        ("JOBWORKER_KEY", "--key with"),
        ("JOBWORKER_CRL", "--crl with"),
    ] {
        Patient::new()
            .env(variable, "/no/such.pem")
            .expect("FAIL", &["/no/such.pem", "No such file", remedy]);
    }
    let mut patient = Patient::new();
    patient.command.env_remove("JOBWORKER_CA");
    let lines = patient.examined();
    expect_line(&lines, "FAIL", &["configuration: ", "--ca is missing"]);
    expect_line(&lines, "ok", &["kernel: "]);
}

#[test]
fn whoever_has_the_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let pid = format!("pid {}", std::process::id());
    let words = [address.as_str(), "in use by", &pid, "--listen with another port"];
    Patient::new().env("JOBWORKER_LISTEN", &address).expect("FAIL", &words);
    Patient::new()
        .env("JOBWORKER_LISTEN", "192.0.2.1:50051")
        .expect("FAIL", &["192.0.2.1", "no address", "ip address"]);
}

#[test]
fn a_policy_that_can_not_be_used_is_named_with_its_line() {
    Patient::new().expect("ok", &["policy", "the built-in one"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("policy.toml");
    let name = path.to_str().expect("UTF-8");
    fs::write(&path, "[roles.user]\nall = \"any\"\nstart = \"own\"\n").expect("our own folder");
    Patient::new().env("JOBWORKER_POLICY", name).expect("ok", &[name, "can be used"]);
    fs::write(&path, "[roles.user]\nall = \"everything\"\n").expect("our own folder");
    let words = [name, "everything", "jobworker policy check"];
    Patient::new().env("JOBWORKER_POLICY", name).expect("FAIL", &words);
}

#[test]
fn an_audit_log_that_can_not_be_written_is_named() {
    let file = |name: &str| Patient::new().env("JOBWORKER_AUDIT_LOG", name);
    file("/no/such/folder/audit.log")
        .expect("FAIL", &["audit log in /no/such/folder/audit.log", "No such file"]);
    file("/dev/full").expect("FAIL", &["audit log in /dev/full", "not a regular file"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("audit.log");
    file(path.to_str().expect("a UTF-8 path")).expect("ok", &["audit log in", "audit.log"]);
    assert!(!path.exists(), "doctor makes nothing");
}

#[test]
fn a_state_folder_that_can_not_be_used_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("UTF-8");
    Patient::new().env("JOBWORKER_STATE_DIR", path).expect("FAIL", &[path, "no folder", "--state-dir"]);
    let inside = format!("{path}/state");
    Patient::new().env("JOBWORKER_STATE_DIR", &inside).expect("FAIL", &[&inside, "--state-dir"]);

    // Not to be read, and not to be written to.
    for mode in [0o300, 0o555] {
        let mut patient = Patient::new();
        fs::set_permissions(patient.folder.path(), Permissions::from_mode(mode)).expect("our own folder");
        if nix::unistd::geteuid().is_root() {
            patient.command.uid(65534).gid(65534);
        }
        let path = patient.folder.path().to_str().expect("UTF-8").to_owned();
        let words = [&format!("state folder {path}"), "Permission denied", &format!("chmod 700 {path}")];
        patient.expect("FAIL", &words);
    }
}

#[test]
fn a_subtree_that_is_none_is_named() {
    Patient::new()
        .env("JOBWORKER_CGROUP", "/tmp")
        .expect("FAIL", &["/tmp is not a cgroup v2 group", "Delegate=yes"]);
}

#[test]
fn a_user_that_is_not_there_is_named() {
    let patient = Patient::new().env("JOBWORKER_DEFAULT_USER", "no-such-user");
    patient.expect("FAIL", &["jobs' users", "no-such-user", "--default-user"]);
}

#[test]
fn a_worker_that_runs_is_not_disturbed() {
    let worker = Worker::start();
    let (job, spawner) = (start_script(&worker, "sleep 1013"), worker.spawner_pid());
    let groups = || worker.cgroup().map(|group| census::folders(&group.join("jobs")));
    let before = (groups(), census::job_folders(&worker.jobs_dir()));
    let mut patient = Patient::new().env("JOBWORKER_STATE_DIR", worker.state().path());
    let server = worker.pki.server();
    patient = patient.env("JOBWORKER_LISTEN", &worker.address).env("JOBWORKER_CA", worker.pki.ca());
    patient = patient.env("JOBWORKER_CERT", server.cert).env("JOBWORKER_KEY", server.key);
    patient = patient.env("JOBWORKER_CRL", worker.pki.crl());
    let lines = patient.examined();
    expect_line(&lines, "ok", &["spawner: ", "listens on", "spawner.sock"]);
    expect_line(&lines, "ok", &["port ", &format!("a jobworker serves it (pid {})", worker.pid())]);
    expect_line(&lines, "ok", &["state folder ", "jobs in it: 1"]);
    assert_eq!((groups(), census::job_folders(&worker.jobs_dir())), before);
    assert_eq!(worker.spawner_pid(), spawner);
    assert!(census::processes_with(worker.state().path().to_str().expect("UTF-8")).contains(&spawner));
    jobctl(&worker, &["stop", &job, "--now"]).with_code(0);
}

#[test]
fn a_spawner_that_should_run_and_does_not_is_named() {
    let mut patient = Patient::new().env("JOBWORKER_SPAWNER_SOCKET", "/no/such/spawner.sock");
    patient.command.env_remove("JOBWORKER_CGROUP").env_remove("JOBWORKER_DEFAULT_USER");
    let lines = patient.examined();
    expect_line(&lines, "FAIL", &["spawner: ", "/no/such/spawner.sock", "systemctl start"]);
    expect_line(&lines, "warn", &["subtree: ", "nor limits were looked at"]);
}
