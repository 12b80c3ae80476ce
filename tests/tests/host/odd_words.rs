//! What people type and what others name their jobs: ids in upper case, a whole line as the command, characters that
//! can't be seen.

use jobworker_tests::Worker;
use jobworker_tests::api::{JobSpec, StartRequest, StatusRequest};
use jobworker_tests::client::{run, spec};
use jobworker_tests::pki::{role_extension, role_value};
use jobworker_tests::wait::until;

use crate::support::{jobctl, jobctl_as};

const ID: &str = "0b5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_in_upper_case_is_the_same_id() {
    let worker = Worker::start();
    let upper = ID.to_uppercase();
    let started = jobctl(&worker, &["start", "--id", &upper, "--", "sleep", "300"]).with_code(0);
    assert_eq!(started.stdout, format!("{ID}\n"));
    for text in [&*upper, &upper[..8], "0B5C7b0e-6F"] {
        let status = jobctl(&worker, &["status", text]).with_code(0).stdout;
        assert!(status.contains(ID), "{text}: {status}");
    }
    let mut admin = worker.admin().await;
    let again = StartRequest { id: upper.clone(), spec: Some(spec(&["sleep", "300"])) };
    let job = admin.start(again).await.expect("the same job").into_inner().job.expect("a job");
    assert_eq!(job.id, ID);
    let found = admin.status(StatusRequest { job: upper[..13].to_owned() }).await.expect("the same job");
    assert_eq!(found.into_inner().job.expect("a job").id, ID);
    jobctl(&worker, &["stop", "--now", &upper]).with_code(0);
    jobctl(&worker, &["remove", &upper]).with_code(0);
    jobctl(&worker, &["status", &upper]).with_code(1).saying(&["no job"]);
}

#[test]
fn a_whole_line_as_the_command_is_told_what_to_do() {
    let worker = Worker::start();
    let words = ["arguments are separate words, as in \"sort\" \"a\" \"-o\" \"b\"", "sh -c 'sort a -o b'"];
    jobctl(&worker, &["run", "sort a -o b"]).with_code(127).saying(&words);
    jobctl(&worker, &["start", "--", "sort a -o b"]).with_code(1).saying(&words);
    jobctl(&worker, &["run", "echo it's"]).with_code(127).saying(&[r"sh -c 'echo it'\''s'"]);
    let plain = jobctl(&worker, &["run", "no-such-command"]).with_code(127);
    assert!(!plain.stderr.contains("separate words"), "{plain:?}");
}

/// A right-to-left override, a zero-width space, a zero-width joiner, an isolate, a byte order mark, a tag.
const HIDDEN: [char; 6] = ['\u{202e}', '\u{200b}', '\u{200d}', '\u{2066}', '\u{feff}', '\u{e0041}'];

#[track_caller]
fn assert_shown(text: &str, what: &str) {
    assert!(!text.contains(HIDDEN), "{what}: {text:?}");
    assert!(text.contains("\\u{202e}") || text.contains("\\u202e"), "{what}: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_seen_is_shown_as_its_escape() {
    let worker = Worker::start();
    let hidden: String = HIDDEN.into_iter().collect();
    let name = format!("backup{hidden}gnp");
    let job = JobSpec { name: name.clone(), ..spec(&["sh", "-c", "exit 3", &name]) };
    let job = run(&mut worker.admin().await, job).await.expect("a job").id;
    for args in [
        &["list"][..],
        &["status", &job],
        &["list", "--output", "json"],
        &["status", &job, "--output", "json"],
    ] {
        assert_shown(&jobctl(&worker, args).with_code(0).stdout, &args.join(" "));
    }
    let json = jobctl(&worker, &["status", &job, "--output", "json"]).with_code(0).stdout;
    let shown: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&shown["name"], &shown["args"][2]), (&name.as_str().into(), &name.as_str().into()));
    // In errors, which repeat what was asked for.
    for args in [
        &["status", &name][..],
        &["signal", &job, &name],
        &["run", "--", &name],
        &["start", "--user", &name, "--", "true"],
        &["start", "--workdir", &name, "--", "true"],
        &["start", "--io-limit", &name, "--", "true"],
    ] {
        assert_shown(&jobctl(&worker, args).stderr, args[0]);
    }
    let eve = worker.pki.odd_client("eve", |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("eve{hidden}"));
        params.custom_extensions.push(role_extension(&role_value("admin")));
    });
    let (cert, key) = (eve.cert.to_str().expect("UTF-8"), eve.key.to_str().expect("UTF-8"));
    let id =
        jobctl(&worker, &["--cert", cert, "--key", key, "start", "--", "sleep", "300"]).with_code(0).stdout;
    jobctl(&worker, &["--cert", cert, "--key", key, "stop", id.trim_end()]).with_code(0);
    assert_shown(&jobctl_as(&worker, "bob", &["status", id.trim_end()]).stdout, "owner and who stopped it");
    // The audit lines in the log included.
    let audited =
        || worker.log().into_iter().find(|line| line.contains("job_end") && line.contains("backup"));
    until("the job's end is in the log", audited);
    let log = worker.log().join("\n");
    assert_shown(&log, "the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_log_hides_nothing_and_means_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("audit.json");
    let worker = Worker::builder().args(&["--audit-log", path.to_str().expect("UTF-8")]).start();
    let name = format!("x{}y", HIDDEN.into_iter().collect::<String>());
    let job = JobSpec { name: name.clone(), ..spec(&["sh", "-c", "exit 3", &name]) };
    run(&mut worker.admin().await, job).await.expect("a job");
    let end = until("the job's end is audited", || {
        let text = std::fs::read_to_string(&path).ok()?;
        let line = text.lines().find(|line| line.contains("\"job_end\""))?;
        Some((text.clone(), serde_json::from_str::<serde_json::Value>(line).expect("JSON")))
    });
    assert_eq!(end.1["name"], name);
    assert_shown(&end.0, "the audit log");
}
