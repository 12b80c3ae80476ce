//! Jobs that run: what each costs beside itself, what a thousand of them cost an idle worker, and whether five thousand
//! make it slower to see an end.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Settings;
use super::clock::monotonic_nsec;
use super::line::{Bound, Figure, Line, Unit};
use super::parts;
use super::stats::Summary;
use super::subject::Subject;
use crate::api::{Job, JobSpec, StreamRequest};
use crate::client::{everything, output, spec};
use crate::{Client, census};

/// Shims whose memory is looked at.
const LOOKED_AT: usize = 50;

/// How long the worker is watched while nothing happens.
const WATCHED: Duration = Duration::from_secs(5);

/// How long a job whose end is watched for lives, in milliseconds: the wait for it has begun by then.
const LATE_MSEC: &str = "100";

/// An idle thread of the runtime goes after ten seconds.
const THREADS_REST: Duration = Duration::from_secs(12);

pub(super) fn jobs(settings: Settings) -> anyhow::Result<Vec<Line>> {
    let (few, many) = if settings.quick || settings.emulated { (200, 1000) } else { (1000, 5000) };
    let subject = Subject::new(settings)?;
    let mut client = subject.connect()?;
    // What is made once, for the first jobs.
    let mut running = start_sleepers(&subject, &client, 100)?;
    thread::sleep(THREADS_REST);
    let before = subject.kib("RssAnon")?;
    running.extend(start_sleepers(&subject, &client, few)?);
    thread::sleep(THREADS_REST);
    let each = (subject.kib("RssAnon")? - before) / f64::from(u32::try_from(few)?);
    let shims = private_kib(&subject.shims())?;
    let wakes = wakes_per_sec(subject.worker.pid())?;
    let ends = settings.rounds(60);
    let seen_among_few = ends_seen(&subject, &mut client, ends, running.len())?;
    running.extend(start_sleepers(&subject, &client, many - running.len())?);
    let seen_among_many = ends_seen(&subject, &mut client, ends, running.len())?;
    end_all(&subject)?;
    let figure = |name: &str, unit, value| Figure::counted(name, unit, value);
    let seen = |name: String, summary| Figure::new(&name, Unit::Usec, summary);
    let line = |what: &str, figure, reference| Line::new("jobs", what, figure, reference);
    Ok(vec![
        line("a running job's shim: private memory", Figure::new("shim", Unit::Kib, shims), None)
            .goal(Bound::AtMost(300.0))
            .stretch(Bound::AtMost(150.0)),
        line("a running job: memory of the worker", figure("worker", Unit::Kib, each), None)
            .goal(Bound::AtMost(8.0)),
        line(
            &format!("idle worker, {few} jobs running: wake-ups"),
            figure("worker", Unit::PerSec, wakes),
            None,
        )
        .goal(Bound::AtMost(0.0)),
        line(
            &format!("a job's end → seen by Wait, {many} jobs running"),
            seen(format!("among {many}"), seen_among_many),
            Some(seen(format!("among {few}"), seen_among_few)),
        )
        .goal(Bound::AtMost(1.3)),
    ])
}

/// Jobs that do nothing, by sixteen at a time.
fn start_sleepers(subject: &Subject, client: &Client, count: usize) -> anyhow::Result<Vec<Job>> {
    let mut jobs = Vec::with_capacity(count);
    while jobs.len() < count {
        let some = (0..16.min(count - jobs.len())).map(|_| {
            let mut client = client.clone();
            async move { crate::client::start(&mut client, sleeper()).await }
        });
        jobs.extend(subject.runtime.block_on(try_join_all(some))?);
    }
    Ok(jobs)
}

fn sleeper() -> JobSpec {
    spec(&["/bin/sleep", "600"])
}

/// What would be free if the process were not there.
fn private_kib(pids: &[u32]) -> anyhow::Result<Summary> {
    let step = (pids.len() / LOOKED_AT).max(1);
    let some = pids.iter().step_by(step).map(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let lines = text.lines().filter(|line| line.starts_with("Private_"));
        let numbers = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        Ok(numbers.sum())
    });
    let some = some.collect::<anyhow::Result<Vec<f64>>>()?;
    Summary::of(&some).context("shims")
}

/// How often a process' threads begin to run.
fn wakes_per_sec(pid: u32) -> anyhow::Result<f64> {
    let before = switches(pid)?;
    thread::sleep(WATCHED);
    Ok((switches(pid)? - before) / WATCHED.as_secs_f64())
}

/// Times that a thread of the process stopped running, over all that there are now.
fn switches(pid: u32) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("status"))?;
        let lines = text.lines().filter(|line| line.contains("ctxt_switches"));
        sum += lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(sum)
}

/// How long after its last action a job's end is seen by who waits for it, in microseconds.
fn ends_seen(
    subject: &Subject,
    client: &mut Client,
    count: usize,
    running: usize,
) -> anyhow::Result<Summary> {
    let mut samples = Vec::new();
    for _ in 0..=count {
        let job = subject.start(client, parts::spec(&["late-stamp", LATE_MSEC])?)?;
        subject.wait(client, &job)?;
        let seen = monotonic_nsec();
        let request = StreamRequest { no_follow: true, ..everything(&job.id) };
        let output = subject.runtime.block_on(output(client, request))?;
        let written: u64 = std::str::from_utf8(&output.stdout)?.trim().parse().context("a stamp")?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53 ns")]
        samples.push(seen.saturating_sub(written) as f64 / 1e3);
        subject.settle(running)?;
    }
    Summary::of(&samples[1..]).context("samples")
}

/// By their shims, as when the host goes down: one call to the worker for each would take longer.
fn end_all(subject: &Subject) -> anyhow::Result<()> {
    for shim in subject.shims() {
        ensure!(
            census::status_line(shim, "PPid") == Some(subject.worker.spawner_pid().to_string()),
            "a shim"
        );
        kill(Pid::from_raw(i32::try_from(shim)?), Signal::SIGTERM)?;
    }
    subject.settle(0)
}
