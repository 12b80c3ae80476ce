//! The host's clock is set while clients are connected: what has ended by it, ends.

use std::time::{Duration, Instant};

use jobworker_tests::Worker;
use jobworker_tests::api::ListRequest;
use jobworker_tests::client::{shell, start, wait};
use jobworker_tests::pki::{role_extension, role_value};
use jobworker_tests::wait::{PATIENCE, until};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use time::OffsetDateTime;
use tokio::time::timeout;
use tonic::Code;

use crate::jobs::{start_until, status};
use crate::setup::Setup;

/// The clock, so many seconds off; right again when dropped, whatever the test does.
struct Off(i64);

impl Off {
    fn by(sec: i64) -> Self {
        shift(sec);
        Self(sec)
    }
}

impl Drop for Off {
    fn drop(&mut self) {
        shift(-self.0);
    }
}

fn shift(sec: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("a clock");
    let then = TimeSpec::new(now.tv_sec() + sec, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).expect("root may set the clock");
}

/// `ran for` of `jobctl status`, and of the JSON of it in seconds.
fn shown(worker: &Worker, job: &str) -> (String, f64) {
    let text = String::from_utf8(worker.jobctl(&["status", job]).stdout).expect("UTF-8");
    let line = text.lines().find_map(|line| line.strip_prefix("ran for:"));
    let json = worker.jobctl(&["status", job, "--output", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let ran_usec = json["ran_usec"].as_u64().expect("a number");
    (
        line.unwrap_or_else(|| panic!("{text}")).trim().to_owned(),
        Duration::from_micros(ran_usec).as_secs_f64(),
    )
}

#[tokio::test]
async fn how_long_a_job_runs_does_not_follow_the_clock() {
    const GATE: &str = "/tmp/clock-gate";
    let setup = Setup::alone().await;
    let worker = &setup.worker;
    let mut client = worker.admin().await;
    for sec in [3600, -480] {
        let _ = std::fs::remove_file(GATE);
        let began = Instant::now();
        let script = format!("echo up; until [ -e {GATE} ]; do sleep 0.1; done");
        let job = start_until(&mut client, shell(&script), "up").await;
        {
            let _off = Off::by(sec);
            let running = status(&mut client, &job.id).await.ran_usec.expect("it runs");
            assert!(running > 0 && u128::from(running) <= began.elapsed().as_micros(), "{running}");
            std::fs::write(GATE, "").expect("a writable folder");
            wait(&mut client, &job.id).await.expect("it ends");
        }
        let (line, sec) = shown(worker, &job.id);
        assert!(sec > 0.0 && sec <= began.elapsed().as_secs_f64(), "{sec}");
        assert!(line != "0s" && !line.contains('h'), "{line}");
        let told =
            until("the audit log has its end", || worker.ends().into_iter().find(|end| end["job"] == job.id));
        assert!(told["ran_usec"].as_u64().is_some_and(|usec| usec > 0 && usec < 60_000_000), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_forward_cuts_off_who_has_expired_by_it_and_nobody_else() {
    const DAY_SEC: i64 = 86_400;
    let setup = Setup::alone().await;
    let worker = &setup.worker;
    let shortly = worker.pki.odd_client("shortly", |params| {
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(20);
        params.custom_extensions.push(role_extension(&role_value("admin")));
    });
    let (mut shortly, mut alice) = (worker.client(&shortly).await, worker.admin().await);
    let job = start(&mut alice, shell("exec sleep 300")).await.expect("a job").id;
    let waiting = tokio::spawn(async move { (wait(&mut shortly, &job).await, Instant::now()) });
    let is_waiting = |line: &serde_json::Value| line["action"] == "wait";
    until("the wait is under way", || worker.audit().iter().any(is_waiting).then_some(()));
    {
        let _back = Off::by(-10 * DAY_SEC);
        alice.list(ListRequest::default()).await.expect("a clock that is set back takes no right away");
    }
    assert!(!waiting.is_finished(), "nor does it when it is right again");
    let began = Instant::now();
    let _forward = Off::by(21 * DAY_SEC);
    let (answer, at) = timeout(PATIENCE, waiting).await.expect("cut off").expect("no panic");
    eprintln!("measured: cut off {:?} after the clock was set", at.duration_since(began));
    let status = answer.expect_err("expired");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().starts_with("certificate of shortly expired on "), "{status}");
    alice.list(ListRequest::default()).await.expect("hers goes on");
    let said = |line: &String| line.contains("cut off: certificate of shortly expired on");
    until("the log says so", || worker.log().iter().any(said).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(300), "by the clock that nobody sets");
}
