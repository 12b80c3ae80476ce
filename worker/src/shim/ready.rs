//! What every job needs, made before it is known which job it is for: a folder without a name, the pipes, and a process
//! that can be a job's parent.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, fchown, getsid, pipe2, setsid};

use super::attributes::Setting;
use super::birth::{Stdio, stop_ignoring_signals};
use super::capture::Capture;
use super::record::JobFolder;
use super::refusal::{disk_failed, host_failed};
use crate::spawner::host::Host;
use crate::spawner::protocol::{Refusal, StartReply};
use crate::spawner::users::OsUser;

/// How long a user that was looked up is taken for what it was: a change of `/etc/passwd` or `/etc/group` is in force for
/// the jobs that are started after it by more than this. The files take a tenth of a start to read.
const USER_LASTS: Duration = Duration::from_secs(1);

/// A shim that lacks nothing but its job.
pub(super) struct Ready {
    pub(super) folder: JobFolder,
    pub(super) capture: Capture,
    /// The reading side of the FIFO.
    pub(super) control: File,
    /// SIGCHLD, and SIGTERM to the shim.
    pub(super) signals: SignalFd,
    pub(super) streams: Streams,
    /// What the job would inherit from this process, and gets instead.
    pub(super) settings: Vec<Setting>,
    /// Whom jobs run as that name nobody, looked up at that time.
    default_user: Option<(Instant, OsUser)>,
}

/// The job's ends of its standard streams.
pub(super) struct Streams {
    stdin: File,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Ready {
    /// Makes this process a shim.
    ///
    /// # Errors
    /// The answer for the caller of `Start`; nothing is left behind then.
    pub(super) fn make(host: &Host) -> Result<Self, StartReply> {
        let signals = become_parent().map_err(|error| host_failed("become the job's parent", &error))?;
        let folder = JobFolder::prepare(&host.jobs, host.readers)
            .map_err(|error| disk_failed("make the job's folder", host.jobs.path(), &error))?;
        // What is wrong with it is told to whoever asks for a job.
        let default_user = host.users.resolve(None).ok().map(|user| (Instant::now(), user));
        match open(&folder) {
            Ok((capture, control, streams)) => {
                let settings = host.attributes.missing();
                Ok(Self { folder, capture, control, signals, streams, settings, default_user })
            }
            Err(reply) => {
                folder.remove();
                Err(reply)
            }
        }
    }

    /// Whom a job runs as that asks for this user, or for none.
    ///
    /// # Errors
    /// When there is no such user, or jobs may not run as it.
    pub(super) fn user(&mut self, asked: Option<&str>, host: &Host) -> Result<OsUser, Refusal> {
        match self.default_user.take() {
            Some((at, user)) if asked.is_none() && at.elapsed() < USER_LASTS => Ok(user),
            _ => host.users.resolve(asked),
        }
    }

    /// Removes what was made. Whether nothing is left.
    pub(super) fn discard(self) -> bool {
        self.folder.remove()
    }
}

fn open(folder: &JobFolder) -> Result<(Capture, File, Streams), StartReply> {
    let disk = |operation: &'static str| move |error| disk_failed(operation, folder.path(), &error);
    let (out_read, stdout) = pipe().map_err(|error| host_failed("make a pipe", &error))?;
    let (err_read, stderr) = pipe().map_err(|error| host_failed("make a pipe", &error))?;
    let capture = Capture::new(folder, out_read, err_read).map_err(disk("create output"))?;
    let control = folder.control().map_err(disk("open control"))?;
    let stdin = File::open("/dev/null").map_err(|error| host_failed("open /dev/null", &error))?;
    Ok((capture, control, Streams { stdin, stdout, stderr }))
}

impl Streams {
    /// Lets the job's user open them again by name (`/dev/stderr`).
    pub(super) fn admit(&self, user: &OsUser) -> io::Result<()> {
        let Some(credentials) = &user.credentials else { return Ok(()) };
        for end in [&self.stdout, &self.stderr] {
            fchown(end, Some(credentials.uid), Some(credentials.gid))?;
        }
        Ok(())
    }

    pub(super) fn stdio(&self) -> Stdio<'_> {
        Stdio { stdin: self.stdin.as_fd(), stdout: self.stdout.as_fd(), stderr: self.stderr.as_fd() }
    }
}

/// A session of its own, the reaper of all that the job orphans, and deaf to all but what the signalfd tells. Once more
/// is no error.
fn become_parent() -> io::Result<SignalFd> {
    if getsid(None)? != Pid::this() {
        setsid()?;
    }
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
    stop_ignoring_signals();
    Ok(SignalFd::with_flags(&told, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Non-blocking on our side.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}
