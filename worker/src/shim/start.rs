//! From a request to a running command; or to a refusal, with nothing left behind.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use jobworker_limits::{Group, LimitsInForce};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, fchown, pipe2, setsid};

use super::birth::{Stdio, birth};
use super::capture::Capture;
use super::confinement::Confinement;
use super::environment;
use super::record::JobFolder;
use super::refusal::{birth_refusal, disk_failed, group_refusal, host_failed, refused};
use crate::job::spec::FORMAT_VERSION;
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

/// Starts the job; what was made before a failure is removed again.
pub(super) fn start(spec: &Spec, host: &Host) -> Result<Born, StartReply> {
    let user = host.users.resolve(spec.request.user.as_deref()).map_err(StartReply::Refused)?;
    let path = host.jobs.folder(spec.id).path().to_owned();
    let folder = match JobFolder::create(&path, host.readers, spec) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(StartReply::Exists),
        Err(error) => return Err(disk_failed("make the job's folder", &path, &error)),
    };
    let confinement = match confine(spec, host) {
        Ok(confinement) => confinement,
        Err(reply) => {
            folder.remove();
            return Err(reply);
        }
    };
    match begin(spec, host, &user, &folder, &confinement) {
        Ok((state, parts)) => {
            let Parts { capture, control, signals, main, timeout_at } = parts;
            Ok(Born { folder, state, confinement, capture, control, signals, main, timeout_at })
        }
        Err(reply) => {
            give_up(&confinement);
            folder.remove();
            Err(reply)
        }
    }
}

/// No process is in the group: its only one was reaped when its birth failed.
fn give_up(confinement: &Confinement) {
    if let Some(group) = confinement.as_group()
        && let Err(error) = group.remove()
    {
        tracing::warn!(%error, "can't remove the group of a job that was not started");
    }
}

/// The group with its limits, before there is anything to limit.
fn confine(spec: &Spec, host: &Host) -> Result<Confinement, StartReply> {
    let limits = &spec.request.limits;
    let Some(base) = &host.base else {
        if limits.is_empty() {
            return Ok(Confinement::Descendants);
        }
        let controllers = limits.controllers().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let message =
            format!("spec.limits: they need the controllers {controllers}, and {}", host.without_base);
        return Err(refused(RefusalKind::ControllerMissing, "spec.limits", message));
    };
    base.create_group(&spec.id.to_string(), limits, spec.request.workdir.as_path())
        .and_then(Confinement::group)
        .map_err(|error| StartReply::Refused(group_refusal(&error)))
}

/// What a job is made of besides its state.
struct Parts {
    capture: Capture,
    control: File,
    signals: SignalFd,
    main: Pid,
    timeout_at: Option<Instant>,
}

fn begin(
    spec: &Spec,
    host: &Host,
    user: &OsUser,
    folder: &JobFolder,
    confinement: &Confinement,
) -> Result<(State, Parts), StartReply> {
    let disk = |operation: &'static str| move |error| disk_failed(operation, folder.path(), &error);
    folder.reserve().map_err(disk("set disk space aside for the outcome"))?;
    let signals = become_parent().map_err(|error| host_failed("become the job's parent", &error))?;
    let (out_read, out_write) = pipe(user).map_err(|error| host_failed("make a pipe", &error))?;
    let (err_read, err_write) = pipe(user).map_err(|error| host_failed("make a pipe", &error))?;
    let capture =
        Capture::new(folder, spec.output_limit(), out_read, err_read).map_err(disk("create output"))?;
    let control = folder.control().map_err(disk("open control"))?;
    let limits_in_force = in_force(confinement)?;
    let stdin = File::open("/dev/null").map_err(|error| host_failed("open /dev/null", &error))?;

    let image = environment::image(&spec.request, user, confinement.as_group().is_some());
    let stdio = Stdio { stdin: stdin.as_fd(), stdout: out_write.as_fd(), stderr: err_write.as_fd() };
    let main = birth(&image, confinement.as_group().map(Group::dir), &stdio)
        .map_err(|error| birth_refusal(&error, spec, user, &image))?;
    drop((out_write, err_write));
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
        limits_in_force,
    };
    if let Err(error) = folder.write_state(&state) {
        end_unrecorded(confinement);
        return Err(disk_failed("write state.json", folder.path(), &error));
    }
    Ok((state, Parts { capture, control, signals, main, timeout_at }))
}

/// A session of its own, the reaper of all that the job orphans, and deaf to all but what the signalfd tells.
fn become_parent() -> io::Result<SignalFd> {
    setsid()?;
    set_child_subreaper(true)?;
    let mut told = SigSet::empty();
    told.add(Signal::SIGCHLD);
    told.add(Signal::SIGTERM);
    let mut deaf = told;
    for signal in
        [Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE, Signal::SIGUSR1, Signal::SIGUSR2]
    {
        deaf.add(signal);
    }
    deaf.thread_block()?;
    Ok(SignalFd::with_flags(&told, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// A pipe whose ends the job's user may open again by name (`/dev/stderr`), non-blocking on our side.
fn pipe(user: &OsUser) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    if let Some(credentials) = &user.credentials {
        fchown(&write, Some(credentials.uid), Some(credentials.gid))?;
    }
    Ok((read, write))
}

fn in_force(confinement: &Confinement) -> Result<LimitsInForce, StartReply> {
    match confinement.as_group().map(Group::limits_in_force) {
        None => Ok(LimitsInForce::default()),
        Some(read) => read.map_err(|error| StartReply::Refused(group_refusal(&error))),
    }
}

/// A job that no record tells of must not run.
fn end_unrecorded(confinement: &Confinement) {
    const PATIENCE: Duration = Duration::from_secs(10);
    let ended = confinement.kill().map_err(|error| error.to_string());
    if let Some(group) = confinement.as_group() {
        let empty = group.wait_empty(PATIENCE).map_err(|error| error.to_string());
        tracing::warn!(?ended, ?empty, "a job that could not be recorded was killed");
    }
    while rustix::process::wait(rustix::process::WaitOptions::empty()).is_ok() {}
}
