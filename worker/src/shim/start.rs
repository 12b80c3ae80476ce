//! From a request to a running command; or to a refusal, with nothing left behind.

use std::fs::File;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use jobworker_limits::{Group, GroupError, LimitsInForce, resolve_io};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use rustix::process::WaitOptions;

use super::as_user::as_user;
use super::attributes::Setting;
use super::birth::birth;
use super::capture::Capture;
use super::confinement::{Confinement, Left};
use super::environment;
use super::ready::{Ready, Streams};
use super::record::JobFolder;
use super::refusal::{birth_refusal, disk_failed, group_refusal, host_failed, refused};
use crate::job::spec::FORMAT_VERSION;
use crate::job::state::Birth;
use crate::job::{Phase, Spec, State};
use crate::shim::clock;
use crate::spawner::host::Host;
use crate::spawner::protocol::{RefusalKind, StartReply};
use crate::spawner::users::OsUser;

/// A job whose command has been executed.
pub(super) struct Born {
    pub folder: JobFolder,
    pub state: State,
    pub confinement: Confinement,
    pub capture: Capture,
    pub control: File,
    pub signals: SignalFd,
    pub main: Pid,
    pub timeout_at: Option<Instant>,
}

/// A job that was not started.
pub(super) struct NotStarted {
    pub reply: StartReply,
    /// Nothing is left of it. Else a recoverer has to see to that.
    pub is_cleared: bool,
}

/// Starts the job; what was made before a failure is removed again.
pub(super) fn start(mut ready: Ready, spec: &Spec, host: &Host) -> Result<Born, NotStarted> {
    let asked = ask_for(&mut ready, spec, host);
    let (user, mut confinement) = match asked {
        Ok(asked) => asked,
        Err(reply) => return Err(NotStarted { reply, is_cleared: ready.discard() }),
    };
    let Ready { folder, mut capture, control, signals, streams, settings, .. } = ready;
    capture.limit(spec.output_limit());
    match begin(spec, host, &user, &folder, &mut confinement, (streams, settings)) {
        Ok((state, main, timeout_at)) => {
            Ok(Born { folder, state, confinement, capture, control, signals, main, timeout_at })
        }
        Err(reply) => {
            give_up(&confinement);
            Err(NotStarted { reply, is_cleared: folder.remove() })
        }
    }
}

/// Whether the job may be, before there is any process: its user, its folder, its group.
fn ask_for(ready: &mut Ready, spec: &Spec, host: &Host) -> Result<(OsUser, Confinement), StartReply> {
    let user = ready.user(spec.request.user.as_deref(), host).map_err(StartReply::Refused)?;
    ready.folder.give_to(spec).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => StartReply::Exists,
        _ => disk_failed("make the job's folder", host.jobs.folder(spec.id).path(), &error),
    })?;
    let confinement = confine(spec, host, &user)?;
    Ok((user, confinement))
}

/// No process is in the group: its only one was reaped when its birth failed.
fn give_up(confinement: &Confinement) {
    if let Some(group) = confinement.as_group()
        && let Err(error) = group.remove()
    {
        tracing::warn!(%error, "can't remove the group of a job that was not started");
    }
}

/// The group with its limits, before there is anything to limit. The disks of IO limits are looked up as the job's user.
fn confine(spec: &Spec, host: &Host, user: &OsUser) -> Result<Confinement, StartReply> {
    let limits = &spec.request.limits;
    let Some(base) = &host.base else {
        if limits.is_empty() {
            return Ok(Confinement::descendants());
        }
        let controllers = limits.controllers().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let message =
            format!("spec.limits: they need the controllers {controllers}, and {}", host.without_base);
        return Err(refused(RefusalKind::ControllerMissing, "spec.limits", message));
    };
    let refused = |error: GroupError| StartReply::Refused(group_refusal(&error));
    base.check_controllers(limits).map_err(refused)?;
    let io = if limits.io.is_empty() {
        Vec::new()
    } else {
        as_user(user, || resolve_io(&limits.io, spec.request.workdir.as_path()))
            .map_err(|error| host_failed("look up the disks of spec.limits.io as the job's user", &error))?
            .map_err(refused)?
    };
    base.create_group_with(&spec.id.to_string(), limits, &io).and_then(Confinement::group).map_err(refused)
}

fn begin(
    spec: &Spec,
    host: &Host,
    user: &OsUser,
    folder: &JobFolder,
    confinement: &mut Confinement,
    (streams, settings): (Streams, Vec<Setting>),
) -> Result<(State, Pid, Option<Instant>), StartReply> {
    streams.admit(user).map_err(|error| host_failed("make a pipe the job's", &error))?;
    let limits_in_force = in_force(confinement)?;
    let image = environment::image(&spec.request, user, settings, confinement.as_group().is_some());
    let began_boot_usec = clock::boot_usec();
    let main = birth(&image, confinement.as_group().map(Group::dir), &streams.stdio())
        .map_err(|error| birth_refusal(&error, spec, user, &image))?;
    drop(streams);
    let timeout_at = spec
        .request
        .timeout_msec
        .and_then(|msec| Instant::now().checked_add(Duration::from_millis(msec.get())));

    let state = State {
        version: FORMAT_VERSION,
        phase: Phase::Running,
        pid: main.as_raw(),
        shim_pid: Pid::this().as_raw(),
        boot_id: host.boot_id.clone(),
        user: user.name.clone(),
        cgroup: confinement.as_group().map(|group| group.path().to_owned()),
        started_unix_usec: clock::unix_usec(),
        birth: Some(Birth { began_boot_usec, executed_boot_usec: clock::boot_usec() }),
        limits_in_force,
        real_time_signals: true,
    };
    if let Err(error) = folder.write_state(&state) {
        end_unrecorded(confinement, main);
        return Err(disk_failed("write state.json", folder.path(), &error));
    }
    Ok((state, main, timeout_at))
}

fn in_force(confinement: &Confinement) -> Result<LimitsInForce, StartReply> {
    match confinement.as_group().map(Group::limits_in_force) {
        None => Ok(LimitsInForce::default()),
        Some(read) => read.map_err(|error| StartReply::Refused(group_refusal(&error))),
    }
}

/// A job that no record tells of must not run.
fn end_unrecorded(confinement: &mut Confinement, main: Pid) {
    const PATIENCE: Duration = Duration::from_secs(10);
    const PAUSE: Duration = Duration::from_millis(5);
    let until = Instant::now() + PATIENCE;
    let mut main = Some(main);
    loop {
        let killed = confinement.kill(main).and_then(|()| confinement.kill_children());
        let has_children = loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, _))) => main = main.filter(|main| main.as_raw() != pid.as_raw_pid()),
                other => break other.is_ok(),
            }
        };
        let left = confinement.left(has_children);
        if matches!(left, Ok(Left::Nothing)) {
            return tracing::warn!("a job that could not be recorded was killed");
        }
        if until <= Instant::now() {
            return tracing::error!(?killed, ?left, "a job that could not be recorded can't be killed");
        }
        thread::sleep(PAUSE);
    }
}
