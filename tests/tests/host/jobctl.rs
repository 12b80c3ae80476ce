//! The command line: ids and nothing else on stdout, JSON that programs can read, stop and signal, and where it finds
//! its worker.

use std::fs;

use jobworker_tests::wait::until_equal;
use jobworker_tests::{Worker, census};
use serde_json::Value;

use crate::support::{Answer, Running, jobctl, start_script};

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("no JSON: {error}: {answer:#?}"))
}

#[test]
fn start_prints_the_id_and_nothing_else() {
    let worker = Worker::start();
    let answer = jobctl(&worker, &["start", "--", "true"]).with_code(0);
    let id = answer.stdout.trim_end();
    assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), (format!("{id}\n").as_str(), ""));
    assert_eq!(uuid::Uuid::try_parse(id).expect("a UUID").get_version_num(), 4);
    let own = "0b5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11";
    assert_eq!(
        jobctl(&worker, &["start", "--id", own, "--", "true"]).with_code(0).stdout,
        format!("{own}\n")
    );
}

#[test]
fn status_tells_programs_everything() {
    let worker = Worker::start();
    let args =
        ["--name", "a label", "--env", "A=b", "--workdir", "/tmp", "--timeout", "5m", "--", "sleep", "300"];
    let id = jobctl(&worker, &[&["start"], &args[..]].concat()).with_code(0).stdout.trim_end().to_owned();
    let job = json(&jobctl(&worker, &["status", &id, "--output", "json"]).with_code(0));
    let expected = [
        ("id", Value::from(id.as_str())),
        ("name", "a label".into()),
        ("command", "sleep".into()),
        ("args", serde_json::json!(["300"])),
        ("env", serde_json::json!([{"key": "A", "value": "b"}])),
        ("workdir", "/tmp".into()),
        ("timeout_msec", 300_000.into()),
        ("state", "running".into()),
        ("outcome", Value::Null),
        ("finished_unix_usec", Value::Null),
        ("output_bytes", 0.into()),
        ("processes", worker.cgroup().map(|_| 1).into()),
    ];
    for (key, value) in expected {
        assert_eq!(job[key], value, "{key}: {job:#}");
    }
    assert_eq!(job["owner"]["name"], "alice");
    assert_eq!(job["owner"]["role"], "admin");
    assert_eq!(job["process"]["threads"], 1);
    assert!(["R", "S", "D"].map(Into::into).contains(&job["process"]["state"]), "{job:#}");
    assert!(job["process"]["resident_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{job:#}");
    let pid = u32::try_from(job["pid"].as_u64().expect("a pid")).expect("a pid");
    assert_eq!(census::status_line(pid, "Name").as_deref(), Some("sleep"), "the pid is the main process's");
    assert!(job["created_unix_usec"].as_u64() <= job["started_unix_usec"].as_u64(), "{job:#}");
    let group = worker.cgroup().map(|base| base.join("jobs").join(&id).to_string_lossy().into_owned());
    assert_eq!(job["cgroup"].as_str(), group.as_deref());
}

#[test]
fn list_wait_and_stop_speak_json_too() {
    let worker = Worker::start();
    assert_eq!(json(&jobctl(&worker, &["list", "--output", "json"]).with_code(0)), serde_json::json!([]));
    let first = start_script(&worker, "exit 3");
    let second = start_script(&worker, "exec sleep 300");
    let waited = json(&jobctl(&worker, &["wait", &first, "--output", "json"]).with_code(3));
    assert_eq!((&waited["state"], &waited["outcome"]["cause"]), (&"finished".into(), &"exited".into()));
    assert_eq!((&waited["outcome"]["exit_code"], &waited["outcome"]["signal"]), (&3.into(), &Value::Null));
    let list = json(&jobctl(&worker, &["list", "--output", "json"]).with_code(0));
    let ids: Vec<_> = list.as_array().expect("an array").iter().map(|job| job["id"].as_str()).collect();
    assert_eq!(ids, [Some(first.as_str()), Some(second.as_str())], "oldest first");
    let stopped = json(&jobctl(&worker, &["stop", &second, "--output", "json"]).with_code(0));
    assert_eq!(
        (&stopped["outcome"]["cause"], &stopped["outcome"]["signal"]),
        (&"stopped".into(), &15.into())
    );
    assert_eq!(stopped["outcome"]["stopped_by"], "alice");
    let text = jobctl(&worker, &["list"]).with_code(0).stdout;
    assert!(text.contains(&first[..8]) && text.contains("exited with code 3"), "{text}");
    assert!(text.contains("stopped by alice"), "{text}");
}

#[test]
fn stop_asks_waits_and_kills() {
    let worker = Worker::start();
    let stubborn = "trap '' TERM; trap 'exit 7' USR1; echo up; while :; do sleep 0.05; done";
    let id = start_script(&worker, stubborn);
    ready(&worker, &id);
    let answer = jobctl(&worker, &["stop", &id, "--signal", "USR1"]).with_code(0);
    assert!(answer.stdout.contains("stopped by alice: exited with code 7"), "{answer:?}");
    let again = jobctl(&worker, &["stop", &id]).with_code(0).stdout;
    assert!(again.contains("had already ended"), "stopping twice is no error: {again}");

    let id = start_script(&worker, stubborn);
    ready(&worker, &id);
    let answer = jobctl(&worker, &["stop", &id, "--grace", "200ms"]).with_code(0);
    assert!(answer.stdout.contains("signal 9 (SIGKILL)"), "{answer:?}");

    let id = start_script(&worker, stubborn);
    let answer = jobctl(&worker, &["stop", &id, "--now"]).with_code(0);
    assert!(answer.stdout.contains("signal 9 (SIGKILL)"), "{answer:?}");
    jobctl(&worker, &["stop", &id, "--now", "--grace", "1s"]).with_code(2);
    let ended = start_script(&worker, "exit 4");
    jobctl(&worker, &["wait", &ended]).with_code(4);
    assert!(jobctl(&worker, &["stop", &ended]).with_code(0).stdout.contains("exited with code 4"));
}

/// Waits until the job has said "up": its traps stand then.
fn ready(worker: &Worker, id: &str) {
    until_equal("the job is up", &"up\n".to_owned(), || {
        jobctl(worker, &["stream", "--no-follow", id]).stdout
    });
}

#[test]
fn a_signal_reaches_the_main_process_or_all() {
    let worker = Worker::start();
    let script = "trap 'echo main' HUP; sh -c 'trap \"echo child\" HUP; echo up; while :; do sleep 0.05; done' & \
                  while :; do sleep 0.05; done";
    let id = start_script(&worker, script);
    let follower = Running::start(worker.jobctl_as("alice", &["stream", &id]));
    follower.wait_for_stdout("up");
    let sent = jobctl(&worker, &["signal", &id, "HUP"]).with_code(0);
    assert_eq!((sent.stdout.as_str(), sent.stderr.as_str()), ("", ""), "silent when it was sent");
    follower.wait_for_stdout("main");
    assert!(
        !jobctl(&worker, &["stream", "--no-follow", &id]).stdout.contains("child"),
        "the main process only"
    );
    jobctl(&worker, &["signal", "--all", &id, "SIGHUP"]).with_code(0);
    follower.wait_for_stdout("child");
    jobctl(&worker, &["stop", "--now", &id]).with_code(0);
    jobctl(&worker, &["signal", &id, "HUP"]).with_code(1).saying(&[&id]);
}

#[test]
fn the_environment_and_the_folder_are_the_jobs() {
    let worker = Worker::start();
    let script = "echo $A,$B,$PATH,$HOME; pwd";
    let args = [
        "--env",
        "A=1=2",
        "--env",
        "B=",
        "--env",
        "HOME=/srv",
        "--workdir",
        "/tmp",
        "--",
        "sh",
        "-c",
        script,
    ];
    let answer = jobctl(&worker, &[&["run"], &args[..]].concat()).with_code(0);
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(answer.stdout, format!("1=2,,{path},/srv\n/tmp\n"));
    jobctl(&worker, &["run", "--env", "NOVALUE", "--", "true"]).with_code(125).saying(&["K=V"]);
}

#[test]
fn a_context_names_the_worker_and_the_credentials() {
    let worker = Worker::start();
    let alice = worker.pki.identity("alice");
    let file = worker.pki.dir().join("contexts.toml");
    let context = |name: &str, address: &str| {
        let (cert, key) = (alice.cert.display(), alice.key.display());
        format!("[contexts.{name}]\naddress = '{address}'\nca = 'ca.pem'\ncert = '{cert}'\nkey = '{key}'\n")
    };
    let text =
        format!("current = 'here'\n{}{}", context("here", &worker.address), context("gone", "127.0.0.1:1"));
    fs::write(&file, &text).expect("a writable folder");
    let ask = |args: &[&str]| {
        let mut command = worker.jobctl_as("alice", args);
        for name in ["JOBCTL_ADDRESS", "JOBCTL_CA", "JOBCTL_CERT", "JOBCTL_KEY"] {
            command.env_remove(name);
        }
        Answer::of(command.env("JOBCTL_CONFIG", &file))
    };
    ask(&["list"]).with_code(0);
    ask(&["--context", "gone", "list"]).with_code(1).saying(&["127.0.0.1:1", "connection refused"]);
    ask(&["--context", "gone", "--address", &worker.address, "list"]).with_code(0);
    ask(&["--context", "nowhere", "list"]).with_code(1).saying(&["\"nowhere\"", "gone, here"]);
    fs::write(&file, text.replace("address", "adress")).expect("a writable folder");
    ask(&["list"]).with_code(1).saying(&["contexts.toml", "adress"]);
}
