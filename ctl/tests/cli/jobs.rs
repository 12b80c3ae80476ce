//! `jobctl start`, `stop`, `status`, `list`, `wait`, `signal` and `remove`.

use std::fs::File;
use std::io::{BufRead, BufReader};

use jobworker_proto::v1::{Cause, Job, JobSpec, JobState, Owner, Remaining, outcome::Ended};
use tonic::Status;

use crate::fake_worker::{ID, Script, Step};
use crate::jobctl::{Ran, World, exited, outcome, show};

fn running() -> Job {
    let spec = JobSpec {
        command: b"make".to_vec(),
        args: vec![b"-j4".to_vec(), b"\xff".to_vec()],
        name: "build\x1b[31m".into(),
        ..Default::default()
    };
    let owner = Owner { name: "alice".into(), role: "admin".into(), ..Default::default() };
    Job {
        id: ID.into(),
        spec: Some(spec),
        owner: Some(owner),
        state: JobState::Running.into(),
        pid: Some(4711),
        created_unix_usec: 1_000_000,
        started_unix_usec: Some(1_000_000),
        ..Default::default()
    }
}

fn world() -> World {
    World::new(Script { now: running(), outcome: exited(3), ..Default::default() })
}

#[test]
fn start_prints_the_id_and_nothing_else() {
    let world = world();
    let ran = world.run(&["start", "--id", ID, "sleep", "1000"]);
    assert_eq!((ran.code, ran.stdout, ran.stderr), (Some(0), format!("{ID}\n"), String::new()));
}

#[test]
fn what_the_worker_warns_of_is_on_stderr_and_in_the_json() {
    let warnings = vec!["spec.limits.cpu: 512 CPUs\u{202e} are more".to_owned()];
    let world =
        World::new(Script { warnings, steps: vec![Step::End], outcome: exited(3), ..Default::default() });
    let said = "jobctl: warning: spec.limits.cpu: 512 CPUs\\u{202e} are more\n";
    let ran = world.run(&["start", "--id", ID, "sleep", "1000"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), &*format!("{ID}\n"), said));
    let ran = world.run(&["start", "--output", "json", "--id", ID, "sleep", "1000"]);
    let job: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let expected = serde_json::json!(["spec.limits.cpu: 512 CPUs\u{202e} are more"]);
    assert_eq!((&job["warnings"], job["id"].as_str(), ran.stderr.as_str()), (&expected, Some(ID), said));
    let ran = world.run(&["run", "--id", ID, "--", "make"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(3), said));
}

#[test]
fn status_is_readable_and_status_as_json_is_parsable() {
    let world = world();
    let ran = world.run(&["status", "0b5c"]);
    show("status", &ran);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stdout.contains("pid:") && ran.stdout.contains("running"), "{ran:?}");
    assert!(!ran.stdout.contains('\x1b'), "a job's name must not command the terminal: {ran:?}");

    let ran = world.run(&["status", "0b5c", "--output", "json"]);
    let job: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((job["id"].as_str(), job["pid"].as_u64()), (Some(ID), Some(4711)));
    assert_eq!(job["args"], serde_json::json!(["-j4", {"bytes": [255]}]));
    assert!(job["finished_unix_usec"].is_null());
}

#[test]
fn list_is_a_table_or_an_array() {
    let world = world();
    let ran = world.run(&["list"]);
    show("list", &ran);
    assert_eq!(ran.stdout.lines().count(), 3, "{ran:?}");
    assert!(ran.stdout.contains("exited with code 3") && !ran.stdout.contains('\x1b'), "{ran:?}");
    assert!(world.run(&["list", "--color", "always"]).stdout.contains("\x1b[32m"));
    let ran = world.run(&["--output=json", "list"]);
    let jobs: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((jobs.as_array().map(Vec::len), jobs[1]["outcome"]["exit_code"].as_i64()), (Some(2), Some(3)));
}

#[test]
fn a_stop_that_lasts_says_what_it_waits_for() {
    let stuck = Remaining {
        pid: 1234,
        name: "cp".into(),
        state: "D".into(),
        kernel_function: "folio_wait_bit".into(),
        ..Default::default()
    };
    let now = Job { state: JobState::Stopping.into(), remaining: vec![stuck], ..running() };
    let outcome = outcome(Cause::Stopped, Ended::Signal(9));
    // Answered only once somebody else has asked for the status, too.
    let world = World::new(Script { now, outcome, stop_waits: 2, ..Default::default() });
    let mut stopping = world.command(&["stop", ID]).spawn().expect("jobctl runs");
    let mut said = String::new();
    let mut stderr = BufReader::new(stopping.stderr.take().expect("piped"));
    stderr.read_line(&mut said).expect("UTF-8");
    assert_eq!(
        said,
        format!("jobctl: job {ID}: waiting for process 1234 (cp, D, in folio_wait_bit) to end\n")
    );
    assert_eq!(world.run(&["status", ID]).code, Some(0));
    let ran = Ran::from(stopping.wait_with_output().expect("jobctl ends"));
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.stdout, format!("job {ID}: stopped: killed by signal 9 (SIGKILL)\n"));
}

#[test]
fn stop_says_how_the_job_ended() {
    let outcome = outcome(Cause::Stopped, Ended::Signal(15));
    let world = World::new(Script { now: running(), outcome, ..Default::default() });
    let ran = world.run(&["stop", ID]);
    assert_eq!(
        (ran.code, ran.stdout),
        (Some(0), format!("job {ID}: stopped: killed by signal 15 (SIGTERM)\n"))
    );
    assert_eq!(world.run(&["stop", ID, "--signal", "INT", "--grace", "500ms"]).code, Some(0));
    assert_eq!(world.run(&["stop", ID, "--now"]).code, Some(0));
    let asked: Vec<_> = world
        .worker
        .asked(|asked| asked.stops.iter().map(|stop| (stop.signal.clone(), stop.grace_msec)).collect());
    let expected =
        [("", None), ("INT", Some(500)), ("KILL", Some(0))].map(|(signal, grace)| (signal.to_owned(), grace));
    assert_eq!(asked, expected);
}

#[test]
fn stop_of_an_ended_job_is_no_error() {
    let now = Job { state: JobState::Finished.into(), outcome: exited(3), ..running() };
    let world = World::new(Script { now, outcome: exited(3), ..Default::default() });
    let ran = world.run(&["stop", ID]);
    let expected = format!("job {ID} had already ended: exited with code 3\n");
    assert_eq!((ran.code, ran.stdout), (Some(0), expected));
}

#[test]
fn wait_exits_with_the_jobs_code() {
    let ran = world().run(&["wait", ID]);
    assert_eq!((ran.code, ran.stdout), (Some(3), format!("job {ID}: exited with code 3\n")));
    let refusal = Some(Status::not_found("job: \"1234\" fits no job"));
    assert_eq!(World::new(Script { refusal, ..Default::default() }).run(&["wait", "1234"]).code, Some(125));
}

#[test]
fn signal_is_sent_in_silence() {
    let world = world();
    let ran = world.run(&["signal", ID, "HUP", "--all"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    let (signal, all) = world.worker.asked(|asked| (asked.signals[0].signal.clone(), asked.signals[0].all));
    assert_eq!((signal.as_str(), all), ("HUP", true));
}

#[test]
fn remove_prints_what_is_gone_and_goes_on_after_a_failure() {
    let world = world();
    let ran = world.run(&["remove", "1111", "a222", "3333"]);
    show("remove", &ran);
    let complaint = "jobctl: job a222 is running; stop it first\n";
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(1), "1111\n3333\n", complaint));
    assert_eq!(world.worker.asked(|asked| asked.removes.clone()), ["1111", "a222", "3333"]);
    let ran = world.run(&["remove", "1111"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "1111\n", ""));
    assert_eq!(world.run(&["remove"]).code, Some(2), "at least one job");
}

#[test]
fn remove_asks_no_more_of_a_worker_that_is_gone() {
    let world =
        World::new(Script { unanswered: 1, now: running(), outcome: exited(3), ..Default::default() });
    let ran = world.run(&["remove", "1111", "3333"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.lines().count()), (Some(1), "", 1), "{ran:?}");
    assert_eq!(world.worker.asked(|asked| asked.removes.clone()), ["1111"]);
}

#[test]
fn what_the_worker_denies_is_said_once() {
    let refusal = Some(Status::permission_denied("role user may not stop jobs"));
    let ran = World::new(Script { refusal, ..Default::default() }).run(&["stop", ID]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (Some(1), "jobctl: permission denied: role user may not stop jobs\n")
    );
}

#[test]
fn what_cannot_be_printed_is_an_error() {
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let ran = Ran::from(world().command(&["list"]).stdout(full).output().expect("jobctl runs"));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("cannot write to stdout: No space left"), "{ran:?}");
}
