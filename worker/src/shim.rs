//! The shim: one process beside each job, the only owner of its life.
//!
//! Forked by the spawner for one request, it makes the job's folder and group, starts the command inside, answers the
//! worker, and stays: it captures the output, carries out stops, signals and the timeout, reaps, takes the evidence,
//! removes the group, writes the outcome and ends. Whatever fails before the command is executed goes back to the
//! caller of `Start`, and nothing of the job is left.

mod as_user;
pub mod attributes;
pub mod birth;
pub mod capture;
pub mod clock;
pub mod confinement;
pub mod control;
pub mod environment;
pub mod inherited;
pub mod life;
mod log;
pub mod machine;
pub mod process_tree;
mod ready;
pub mod record;
mod refusal;
pub mod spare;
mod start;

use std::ffi::CStr;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use jobworker_limits::{Group, GroupError, OomEvents};
use serde::Serialize;

use crate::job::state::{Finished, StopReason};
use crate::job::verdict::{MainEnd, verdict};
use crate::job::{Phase, Spec, State};
use crate::spawner::call_oneself;
use crate::spawner::host::Host;
use crate::spawner::protocol::StartReply;

use self::capture::{Capture, Sums};
use self::confinement::Confinement;
use self::life::Life;
use self::ready::Ready;
use self::record::JobFolder;
use self::start::{Born, NotStarted, start};

/// What it is called once it has a job.
const NAME: &CStr = c"jobworker-shim";

/// How often an outcome that the disk does not take is tried again, and a group that is still busy.
const RETRY: Duration = Duration::from_secs(1);

/// What a job that was not started has left behind, because it could not be removed. The spawner sees to it.
#[derive(Debug, thiserror::Error)]
#[error("not all that was made for a job could be removed")]
pub struct Remains;

/// Runs one job, from request to outcome. Where it can't be started, the caller is told why.
///
/// # Errors
/// When something is left of a job that was not started.
pub fn run(mut connection: UnixStream, spec: &Spec, host: &Host) -> Result<(), Remains> {
    call_oneself(NAME);
    match Ready::make(host) {
        Ok(ready) => run_ready(ready, connection, spec, host),
        Err(reply) => {
            answer(&mut connection, &reply);
            Ok(())
        }
    }
}

fn run_ready(ready: Ready, mut connection: UnixStream, spec: &Spec, host: &Host) -> Result<(), Remains> {
    match start(ready, spec, host) {
        Ok(born) => {
            let lines = [line(&StartReply::Started), line(&born.state)].concat();
            send(&mut connection, &lines);
            drop(connection);
            accompany(born);
            Ok(())
        }
        Err(NotStarted { reply, is_cleared }) => {
            answer(&mut connection, &reply);
            if is_cleared { Ok(()) } else { Err(Remains) }
        }
    }
}

pub(crate) fn answer(connection: &mut UnixStream, reply: &impl Serialize) {
    send(connection, &line(reply));
}

fn line(reply: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(reply).expect("replies are plain data");
    line.push(b'\n');
    line
}

/// A worker that went away in between finds the job by its folder.
fn send(connection: &mut UnixStream, lines: &[u8]) {
    if let Err(error) = connection.write_all(lines) {
        tracing::debug!(%error, "the worker did not wait for the answer");
    }
}

/// From birth to the end.
fn accompany(born: Born) {
    let Born { folder, mut state, mut confinement, mut capture, mut control, signals, main, timeout_at } =
        born;
    let (ended, stop) = Life {
        main,
        confinement: &mut confinement,
        capture: &mut capture,
        control: &mut control,
        signals: &signals,
        timeout_at,
        record_stopping: &mut |reason| {
            state.phase = Phase::Stopping(reason.clone());
            if let Err(error) = folder.write_state(&state) {
                tracing::warn!(%error, "can't record that the job is stopping");
            }
        },
    }
    .live();
    let finished = conclude(&ended, stop.as_ref(), &mut state, &confinement, capture.sums());
    finish(&folder, &mut capture, state, finished);
    capture.give_back_rest();
}

/// Takes the evidence, then removes the group.
fn conclude(
    ended: &MainEnd,
    stop: Option<&StopReason>,
    state: &mut State,
    confinement: &Confinement,
    output: Sums,
) -> Finished {
    let mut usage = jobworker_limits::Usage::default();
    let mut oom = OomEvents::default();
    if let Some(group) = confinement.as_group() {
        usage = evidence("usage", group, Group::usage);
        oom = evidence("OOM events", group, Group::oom);
        if let Ok(limits) = group.limits_in_force() {
            state.limits_in_force = limits;
        }
        remove(group);
    }
    let outcome = verdict(ended, stop, oom);
    Finished {
        outcome,
        at_unix_usec: clock::unix_usec(),
        usage,
        ran_usec: state.ran_usec(clock::boot_usec()),
        escaped: confinement.escaped(),
        output_bytes: Some(output.bytes),
        output_lost_bytes: output.lost_bytes,
    }
}

fn evidence<T: Default>(what: &str, group: &Group, read: impl FnOnce(&Group) -> Result<T, GroupError>) -> T {
    read(group).unwrap_or_else(|error| {
        if group.is_removed() {
            tracing::warn!(group = %group.path().display(), "no {what}: the job has removed its own group");
        } else {
            tracing::warn!(%error, "can't read the job's {what}");
        }
        T::default()
    })
}

/// An empty group can be busy for a moment, while the kernel lets go of its last process: asked again after 1 ms, then
/// less and less often, for ten seconds.
fn remove(group: &Group) {
    let pauses = (0..20).map(|n| Duration::from_millis(1 << n).min(RETRY));
    for pause in pauses {
        match group.remove() {
            Ok(()) => return,
            Err(error) if pause == RETRY => tracing::warn!(%error, "can't remove the job's group"),
            Err(_) => {}
        }
        thread::sleep(pause);
    }
}

/// The outcome is recorded as soon as the disk takes it, and before it the last gap: whoever hears of the end has heard
/// of all that is lost.
fn finish(folder: &JobFolder, capture: &mut Capture, mut state: State, finished: Finished) {
    state.phase = Phase::Finished(Box::new(finished));
    loop {
        let closed = capture.close();
        match folder.write_state(&state) {
            Ok(()) if closed || capture.close() => return,
            Ok(()) => return tracing::error!("can't record the gap at the end of the output"),
            Err(error) => tracing::error!(%error, "can't record the outcome; the next attempt follows"),
        }
        thread::sleep(RETRY);
    }
}
