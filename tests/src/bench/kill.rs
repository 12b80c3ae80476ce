//! Stops: of a thousand processes against the kernel's own kill, and of a fork bomb.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::Settings;
use super::line::{Bound, Figure, Line, Unit};
use super::parts;
use super::stats::{Summary, interleave};
use super::subject::Subject;
use crate::Client;
use crate::api::{Job, JobSpec, JobState, Limits, StatusRequest, StopRequest};
use crate::client::limited;

/// A stamp, which a part writes when it is ready.
const STAMP_BYTES: u64 = 21;

pub(super) fn herd(settings: Settings) -> anyhow::Result<Vec<Line>> {
    const WHAT: &str = "stop of 1,000 processes";
    let subject = Subject::new(settings)?;
    if subject.worker.cgroup().is_none() {
        return Ok(vec![Line::missing("kill", WHAT, "no writable cgroup v2 here; --vm has one")]);
    }
    let mut client = subject.connect()?;
    let [own, floor] =
        interleave(settings.rounds(20), [&mut || stop_herd(&subject, &mut client), &mut kill_herd])?;
    let msec = |name: &str, summary| Figure::new(name, Unit::Msec, summary);
    let line = Line::new("kill", WHAT, msec("Stop", own), Some(msec("kill(-pgrp)", floor)));
    Ok(vec![line.goal(Bound::AtMost(1.25))])
}

fn stop_herd(subject: &Subject, client: &mut Client) -> anyhow::Result<f64> {
    let job = start_ready(subject, client, parts::spec(&["herd", "1000"])?)?;
    let took = stop(subject, client, &job)?;
    subject.settle(0)?;
    Ok(took.as_secs_f64() * 1e3)
}

/// A job that has said that it is ready.
fn start_ready(subject: &Subject, client: &mut Client, spec: JobSpec) -> anyhow::Result<Job> {
    let job = subject.start(client, spec)?;
    subject.wait_for_output(client, &job, STAMP_BYTES)?;
    Ok(job)
}

/// At once, without a grace period.
fn stop(subject: &Subject, client: &mut Client, job: &Job) -> anyhow::Result<Duration> {
    let request = StopRequest { job: job.id.clone(), grace_msec: Some(0), ..StopRequest::default() };
    let asked = Instant::now();
    let answer = subject.runtime.block_on(client.stop(request))?.into_inner();
    let took = asked.elapsed();
    ensure!(answer.job.context("a job")?.state() == JobState::Finished, "the job is not finished");
    Ok(took)
}

/// The same processes, in a process group of their own. All are reaped, those too that lost their parent.
fn kill_herd() -> anyhow::Result<f64> {
    set_child_subreaper(true)?;
    let mut command = parts::command(&["herd", "1000"])?;
    let mut process = command.process_group(0).stdout(Stdio::piped()).spawn()?;
    let mut ready = String::new();
    BufReader::new(process.stdout.take().context("a pipe")?).read_line(&mut ready)?;
    ensure!(!ready.is_empty(), "the herd ended: {:?}", process.wait());
    let group = Pid::from_raw(i32::try_from(process.id())?);
    let asked = Instant::now();
    killpg(group, Signal::SIGKILL)?;
    let mut reaped = 0;
    let members = Pid::from_raw(-group.as_raw());
    while waitpid(members, None::<WaitPidFlag>).map_or_else(|errno| errno != Errno::ECHILD, |_| true) {
        reaped += 1;
    }
    let took = asked.elapsed();
    set_child_subreaper(false)?;
    ensure!(reaped == 1001, "{reaped} of 1,001 processes were reaped");
    Ok(took.as_secs_f64() * 1e3)
}

pub(super) fn bomb(settings: Settings) -> anyhow::Result<Vec<Line>> {
    const WHAT: &str = "stop of a fork bomb, 500 processes";
    if !settings.controllers {
        return Ok(vec![Line::missing(
            "bomb",
            WHAT,
            "no cgroup v2 controllers to keep it small; --vm has them",
        )]);
    }
    let subject = Subject::new(settings)?;
    let mut client = subject.connect()?;
    let mut samples = Vec::new();
    for _ in 0..settings.rounds(10) {
        let limits = Limits { pids: "500".to_owned(), ..Limits::default() };
        let job = start_ready(&subject, &mut client, limited(parts::spec(&["bomb"])?, limits))?;
        wait_until_full(&subject, &mut client, &job)?;
        samples.push(stop(&subject, &mut client, &job)?.as_secs_f64() * 1e3);
        subject.settle(0)?;
    }
    let summary = Summary::of(&samples).context("samples")?;
    Ok(vec![
        Line::new("bomb", WHAT, Figure::new("Stop", Unit::Msec, summary), None).goal(Bound::AtMost(2000.0)),
    ])
}

fn wait_until_full(subject: &Subject, client: &mut Client, job: &Job) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let request = StatusRequest { job: job.id.clone() };
        let status = subject.runtime.block_on(client.status(request))?.into_inner().job.context("a job")?;
        if status.processes.is_some_and(|processes| processes >= 490) {
            return Ok(());
        }
        ensure!(
            started.elapsed() < Duration::from_secs(60),
            "the bomb did not go off: {:?}",
            status.processes
        );
    }
}
