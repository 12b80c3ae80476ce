use jobworker_limits::{LimitsInForce, Usage};

use super::*;
use crate::job::engine::Live;
use crate::job::{JobId, Spec};
use crate::output::Extent;

fn claim(name: &str) -> Claim {
    Claim::Name(name.to_owned())
}

fn view(state: Option<State>) -> JobView {
    let request = JobRequest {
        command: ByteStr::new("sh").unwrap(),
        args: vec![ByteStr::new(*b"\xff").unwrap()],
        limits: limits::Limits { memory: Some("64MiB".parse().unwrap()), ..limits::Limits::default() },
        user: None,
        env: vec![("TOKEN".to_owned(), ByteStr::new("secret").unwrap())],
        workdir: ByteStr::new("/").unwrap(),
        name: None,
        timeout_msec: None,
        output_limit: Some("2MiB".parse().unwrap()),
    };
    let owner = Owner {
        name: "alice".to_owned(),
        common_name: "alice".to_owned(),
        role: "admin".to_owned(),
        serial: "1".to_owned(),
        fingerprint_sha256: "00".to_owned(),
    };
    let spec =
        Spec { version: 1, id: JobId::random(), request, owner, created_unix_usec: 1, output_limit: None };
    let spec = Spec { output_limit: spec.request.output_limit, ..spec };
    JobView {
        spec,
        state,
        live: Live::default(),
        output: Extent { bytes: 7, kept_from: 3 },
        ran_usec: Some(3),
    }
}

fn state(phase: Phase) -> State {
    State {
        version: 1,
        phase,
        pid: 42,
        shim_pid: 41,
        boot_id: String::new(),
        user: "nobody".to_owned(),
        cgroup: Some("/sys/fs/cgroup/x".into()),
        started_unix_usec: 2,
        birth: None,
        limits_in_force: LimitsInForce { pids_max: Some(9), ..LimitsInForce::default() },
        real_time_signals: true,
    }
}

fn finished(outcome: Outcome) -> v1::Outcome {
    let usage = Usage { oom_kills: Some(3), ..Usage::default() };
    let finished = Finished {
        outcome,
        at_unix_usec: 5,
        ran_usec: Some(3),
        escaped: Some(2),
        usage,
        output_bytes: Some(7),
        output_lost_bytes: 6,
    };
    let job = job(view(Some(state(Phase::Finished(Box::new(finished))))), &claim("bob"));
    assert_eq!(
        (job.state(), job.finished_unix_usec, job.output_lost_bytes),
        (v1::JobState::Finished, Some(5), 6)
    );
    assert_eq!((job.ran_usec, job.escaped_processes), (Some(3), Some(2)));
    assert_eq!(job.usage.unwrap().oom_kills, Some(3));
    assert_eq!(job.limits_in_force.unwrap().pids_max, Some(9));
    job.outcome.unwrap()
}

#[test]
fn a_starting_job_has_a_specification_and_no_more() {
    let job = job(view(None), &claim("bob"));
    assert_eq!((job.state(), job.pid, job.outcome), (v1::JobState::Starting, None, None));
    assert_eq!((job.output_bytes, job.output_kept_from, job.output_limit_bytes), (7, 3, Some(2 << 20)));
    let spec = job.spec.unwrap();
    assert_eq!(spec.output_limit, "2MiB");
    assert_eq!((spec.args, spec.limits.unwrap().memory.as_str()), (vec![b"\xff".to_vec()], "64MiB"));
}

#[test]
fn the_environment_is_its_owners() {
    assert_eq!(job(view(None), &claim("bob")).spec.unwrap().env, []);
    assert_eq!(job(view(None), &claim("alice")).spec.unwrap().env[0].value, b"secret");
}

#[test]
fn a_pid_is_told_only_while_its_process_is_there() {
    let mut running = view(Some(state(Phase::Running)));
    assert_eq!(job(running.clone(), &claim("bob")).pid, None);
    running.live.pid = Some(42);
    running.live.process = Some(ProcessStatus { state: 'S', threads: 2, resident_bytes: 4096 });
    let job = job(running, &claim("bob"));
    assert_eq!(
        (job.state(), job.pid, job.process.unwrap().state.as_str()),
        (v1::JobState::Running, Some(42), "S")
    );
}

#[test]
fn every_outcome() {
    let code = |code| Some(WireEnded::ExitCode(code));
    let signal = Some(WireEnded::Signal(9));
    let exited = finished(Outcome::Exited { code: 137 });
    assert_eq!((exited.cause(), exited.ended), (v1::Cause::Exited, code(137)));
    let signaled = finished(Outcome::Signaled { signal: 9 });
    assert_eq!((signaled.cause(), signaled.ended), (v1::Cause::Signaled, signal));
    let stopped = finished(Outcome::Stopped { by: "bob".to_owned(), ended: Ended::Exited(7) });
    assert_eq!(
        (stopped.cause(), stopped.ended, stopped.stopped_by.as_str()),
        (v1::Cause::Stopped, code(7), "bob")
    );
    let timed_out = finished(Outcome::TimedOut { ended: Ended::Signaled(9) });
    assert_eq!((timed_out.cause(), timed_out.ended), (v1::Cause::TimedOut, signal));
    let killed = finished(Outcome::OutOfMemory { own_limit: true, ended: Ended::Signaled(9) });
    assert_eq!((killed.cause(), killed.own_memory_limit), (v1::Cause::OutOfMemory, true));
    let lost = finished(Outcome::Lost { reason: "host restarted".to_owned() });
    assert_eq!((lost.cause(), lost.ended, lost.reason.as_str()), (v1::Cause::Lost, None, "host restarted"));
}

#[test]
fn a_list_leaves_out_what_may_be_very_long_and_says_how_much() {
    let mut secrets = view(None);
    assert_eq!(
        listed(secrets.clone(), &claim("alice")),
        job(secrets.clone(), &claim("alice")),
        "short ones are whole"
    );
    let value = ByteStr::new(vec![b'x'; 2000]).unwrap();
    secrets.spec.request.env.extend([("LONG".to_owned(), value.clone()), ("AFTER".to_owned(), value)]);
    let shown = listed(secrets.clone(), &claim("alice"));
    assert_eq!((shown.spec.unwrap().env[0].key.as_str(), shown.left_out_bytes), ("TOKEN", 4009));
    assert_eq!(listed(secrets, &claim("bob")).left_out_bytes, 0, "nor is bob told how long it is");

    let mut long = view(None);
    let arg = |length| ByteStr::new(vec![b'x'; length]).unwrap();
    long.spec.request.args = vec![arg(900), arg(0), arg(1 << 20), arg(3)];
    let shown = listed(long, &claim("bob"));
    let lengths: Vec<_> = shown.spec.unwrap().args.iter().map(Vec::len).collect();
    assert_eq!(lengths, [900, 0, 1024 - 900 - 3 * 8]);
    assert_eq!(shown.left_out_bytes, (1 << 20) + 3 - 100);

    let mut many = view(None);
    many.spec.request.args = vec![arg(0); 4096];
    assert!(listed(many, &claim("bob")).spec.unwrap().args.len() <= 128, "empty ones take place, too");
}
