//! The birth of a job's main process: `clone3` straight into its group, then `execve`. This file and those below it are
//! the shim's only ones with `unsafe` in them.
//!
//! The process is never moved: writing `cgroup.procs` would take a system-wide lock and let the job run outside its
//! limits for a moment. As with vfork(2) the child shares the shim's memory, and the shim sleeps until the child has
//! executed the command or ended: no page table is copied (a fork took 40 % of a start's time in the shim). The child runs
//! on a stack of its own, calls nothing but async-signal-safe functions on memory that [`Image`] prepared before, and
//! writes to nothing but that stack, this thread's `errno` and the place for what failed. No handler of the shim runs in it:
//! Rust's own for SIGSEGV would, and on that stack.
//!
//! clone3(2), `CLONE_CLEAR_SIGHAND`: Linux 5.5; `CLONE_INTO_CGROUP`: Linux 5.7; `close_range(2)` with
//! `CLOSE_RANGE_CLOEXEC`: Linux 5.11.

mod clone;
mod settings;

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};

pub use self::settings::io_priority;

use self::clone::clone_into;
use super::attributes::Setting;

/// The kernel's `sigset_t`: a bit for each of its 64 signals.
const SIGSET_BYTES: usize = 8;

/// Everything the child needs, ready to be handed to the kernel.
pub struct Image {
    /// The paths to try, in order.
    pub programs: Vec<CString>,
    /// The arguments, the command's name first.
    pub argv: Vec<CString>,
    /// `KEY=value`, each.
    pub env: Vec<CString>,
    /// Where the process starts.
    pub workdir: CString,
    /// What it would inherit from the shim, and gets instead.
    pub settings: Vec<Setting>,
    /// Whom it runs as; none: as the shim does.
    pub user: Option<Credentials>,
    /// Die with the shim: where no group holds the job together.
    pub die_with_parent: bool,
}

/// The OS identity of a job.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user.
    pub uid: Uid,
    /// The user's own group.
    pub gid: Gid,
    /// Every group that the user is in.
    pub groups: Vec<Gid>,
}

/// The three standard streams of the child.
pub struct Stdio<'a> {
    /// Read from.
    pub stdin: BorrowedFd<'a>,
    /// Written to.
    pub stdout: BorrowedFd<'a>,
    /// Written to.
    pub stderr: BorrowedFd<'a>,
}

/// What the child was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `clone3`: not even born.
    Clone,
    /// `setsid`.
    Session,
    /// `dup2`.
    Streams,
    /// `close_range`.
    Descriptors,
    /// `sigprocmask`.
    Signals,
    /// One of the image's settings, by its place among them.
    Setting(usize),
    /// `setgroups`, `setresgid`, `setresuid`.
    User,
    /// `chdir`.
    Workdir,
    /// `execve`.
    Exec,
}

impl Step {
    /// What was called.
    pub fn call(self, image: &Image) -> String {
        let call = match self {
            Self::Clone => "start a process in the group (clone3 with CLONE_INTO_CGROUP)",
            Self::Session => "give it a session (setsid)",
            Self::Streams => "give it its streams (dup2)",
            Self::Descriptors => "keep other descriptors from it (close_range with CLOSE_RANGE_CLOEXEC)",
            Self::Signals => "unblock its signals (sigprocmask)",
            Self::User => "change to its user (setgroups, setresgid, setresuid)",
            Self::Workdir => "enter its working directory (chdir)",
            Self::Exec => "execute its command (execve)",
            Self::Setting(place) => {
                return image.settings.get(place).map_or_else(String::new, |one| format!("give it {one}"));
            }
        };
        call.to_owned()
    }
}

/// A birth that failed; no process is left of it.
#[derive(Debug)]
pub struct BirthError {
    /// Where.
    pub step: Step,
    /// Why.
    pub errno: nix::Error,
}

/// Starts the process inside `group` and returns its pid once the command has been executed.
///
/// # Errors
/// What failed, and where; the child is reaped by then.
pub fn birth(image: &Image, group: Option<BorrowedFd<'_>>, stdio: &Stdio<'_>) -> Result<Pid, BirthError> {
    let mut exec = Exec::new(image, stdio);
    // SAFETY: `run` takes an `Exec`, calls async-signal-safe functions only and does not return; `exec` lives until the
    // child has done with it, because this thread sleeps that long.
    let pid = unsafe { clone_masked(group, run, (&raw mut exec).cast()) }
        .map_err(|errno| BirthError { step: Step::Clone, errno })?;
    // SAFETY: a plain read of our own memory; the child has written to it behind the compiler's back.
    match unsafe { ptr::read_volatile(&raw const exec.failed) } {
        None => Ok(pid),
        Some((step, errno)) => {
            // It exits; an error here means that it is reaped already.
            let _ = waitpid(pid, None);
            Err(BirthError { step, errno: nix::Error::from_raw(errno) })
        }
    }
}

/// Gives a process that ends at once all of these, as [`birth`] does. Returns for each why it failed, if it did.
///
/// # Errors
/// When there can be no such process, or it did not come to its end.
pub fn try_out(settings: &[Setting]) -> nix::Result<Vec<Option<nix::Error>>> {
    let mut trial = Trial { settings, failed: vec![None; settings.len()] };
    // SAFETY: `attempt` takes a `Trial`, calls async-signal-safe functions only and does not return; `trial` lives until the
    // child has ended, because this thread sleeps that long.
    let pid = unsafe { clone_masked(None, attempt, (&raw mut trial).cast()) }?;
    match waitpid(pid, None)? {
        WaitStatus::Exited(_, 0) => Ok(trial.failed),
        _ => Err(nix::Error::ECANCELED),
    }
}

/// Makes a child as [`clone_into`] does, with no signal for it until it asks.
///
/// # Safety
/// As [`clone_into`], but for the signals.
unsafe fn clone_masked(
    group: Option<BorrowedFd<'_>>,
    entry: unsafe extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> nix::Result<Pid> {
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: the caller's promise, and all signals are blocked.
    let born = unsafe { clone_into(group, entry, argument) };
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    born.map(Pid::from_raw)
}

/// The node that a process's memory comes from is the kernel's choice again: set_mempolicy(2), `MPOL_DEFAULT`.
///
/// # Errors
/// `ENOSYS` in a kernel without such policies.
pub fn forget_memory_policy() -> nix::Result<()> {
    let (default, no_nodes): (c_int, *const c_void) = (0, ptr::null());
    // SAFETY: without nodes nothing is read.
    nix::Error::result(unsafe { libc::syscall(libc::SYS_set_mempolicy, default, no_nodes, 0usize) }).map(drop)
}

/// Pages are no longer merged with others of the same content: `PR_SET_MEMORY_MERGE`.
///
/// # Errors
/// `EINVAL` in a kernel before 6.4.
pub fn stop_merging_memory() -> nix::Result<()> {
    const PR_SET_MEMORY_MERGE: c_int = 67;
    let none: c_ulong = 0;
    // SAFETY: numbers only.
    nix::Error::result(unsafe { libc::prctl(PR_SET_MEMORY_MERGE, none, none, none, none) }).map(drop)
}

/// Gives every signal its default effect, as a fresh process has it. A command inherits what is ignored: SIGPIPE by Rust's
/// runtime, SIGHUP by nohup(1). To be called by a shim that has blocked what must not end it.
pub fn stop_ignoring_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // The kernel's `sigaction`: handler, flags, restorer, mask. Not libc's function, which refuses its own two signals,
        // though its posix_spawn(3) leaves them ignored.
        let (mut now, default) = ([0usize; 4], [0usize; 4]);
        // SAFETY: both are as long as the kernel's structure, with a mask of `SIGSET_BYTES`; SIG_DFL needs no handler.
        unsafe {
            let no_new = ptr::null::<usize>();
            libc::syscall(libc::SYS_rt_sigaction, signal, no_new, now.as_mut_ptr(), SIGSET_BYTES);
            if now[0] == libc::SIG_IGN {
                let no_old = ptr::null_mut::<usize>();
                libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), no_old, SIGSET_BYTES);
            }
        }
    }
}

/// The child's half: pointers into an [`Image`] and descriptors, nothing that allocates.
struct Exec<'a> {
    image: &'a Image,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    groups: Vec<libc::gid_t>,
    stdio: [RawFd; 3],
    /// What the child could not do, and the errno.
    failed: Option<(Step, c_int)>,
}

impl<'a> Exec<'a> {
    fn new(image: &'a Image, stdio: &Stdio<'_>) -> Self {
        Self {
            image,
            argv: pointers(&image.argv),
            env: pointers(&image.env),
            groups: image.user.iter().flat_map(|user| &user.groups).map(|gid| gid.as_raw()).collect(),
            stdio: [stdio.stdin.as_raw_fd(), stdio.stdout.as_raw_fd(), stdio.stderr.as_raw_fd()],
            failed: None,
        }
    }

    /// Returns only where something fails, and what.
    ///
    /// # Safety
    /// Only in the child of [`clone_into`].
    unsafe fn execute(&self) -> (Step, c_int) {
        // SAFETY: the caller's promise; these functions make system calls on memory prepared before the clone.
        unsafe {
            if let Err(failed) = self.set_up().and_then(|()| self.apply_settings()) {
                return failed;
            }
            if let Err(errno) = self.become_user() {
                return (Step::User, errno);
            }
            if libc::chdir(self.image.workdir.as_ptr()) != 0 {
                return (Step::Workdir, errno());
            }
            (Step::Exec, self.try_programs())
        }
    }

    /// Own session, streams, no other descriptor, no signal blocked.
    ///
    /// # Safety
    /// Only in the child of [`clone_into`].
    unsafe fn set_up(&self) -> Result<(), (Step, c_int)> {
        let in_step = |step| move |errno| (step, errno);
        // SAFETY: system calls on descriptors that this process owns and on values on its stack.
        unsafe {
            check(libc::setsid()).map_err(in_step(Step::Session))?;
            for (from, to) in self.stdio.into_iter().zip(0..) {
                check(libc::dup2(from, to)).map_err(in_step(Step::Streams))?;
            }
            let from_3: c_uint = 3;
            let flags = libc::CLOSE_RANGE_CLOEXEC;
            check_long(libc::syscall(libc::SYS_close_range, from_3, c_uint::MAX, flags))
                .map_err(in_step(Step::Descriptors))?;
            libc::umask(0o022);
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()))
                .map_err(in_step(Step::Signals))
        }
    }

    /// While it may still do what its user may not. By system calls alone, on what the image holds.
    fn apply_settings(&self) -> Result<(), (Step, c_int)> {
        let changes_user = self.image.user.is_some();
        for (place, setting) in self.image.settings.iter().enumerate() {
            match settings::apply(setting) {
                Err(errno) if !setting.may_fail(errno, changes_user) => {
                    return Err((Step::Setting(place), errno as c_int));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// # Safety
    /// Only in the child of [`clone_into`].
    unsafe fn become_user(&self) -> Result<(), c_int> {
        // SAFETY: raw system calls, because libc's wrappers synchronise threads; `groups` was prepared before.
        unsafe {
            if let Some(user) = &self.image.user {
                let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
                check_long(libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()))?;
                check_long(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
                check_long(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
            }
            if self.image.die_with_parent {
                // After the change of user, which would clear it.
                check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            }
        }
        Ok(())
    }

    /// Tries each path, as execvp(3) does: one that may not be executed is remembered, and told if none can.
    ///
    /// # Safety
    /// Only in the child of [`clone_into`].
    unsafe fn try_programs(&self) -> c_int {
        let mut refused = None;
        for program in &self.image.programs {
            // SAFETY: `argv` and `env` are null-terminated arrays of pointers into the image.
            unsafe { libc::execve(program.as_ptr(), self.argv.as_ptr(), self.env.as_ptr()) };
            match errno() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => refused = Some(libc::EACCES),
                other => return other,
            }
        }
        refused.unwrap_or(libc::ENOENT)
    }
}

/// The child.
///
/// # Safety
/// Only as [`clone_into`]'s entry, with an [`Exec`] that nobody else touches meanwhile.
unsafe extern "C" fn run(exec: *mut c_void) -> ! {
    // SAFETY: the caller's promise.
    unsafe {
        let exec = exec.cast::<Exec<'_>>();
        let failed = (*exec).execute();
        ptr::write_volatile(&raw mut (*exec).failed, Some(failed));
        libc::_exit(127)
    }
}

/// What a [`try_out`] is about.
struct Trial<'a> {
    settings: &'a [Setting],
    failed: Vec<Option<nix::Error>>,
}

/// The child of a [`try_out`].
///
/// # Safety
/// Only as [`clone_into`]'s entry, with a [`Trial`] that nobody else touches meanwhile.
unsafe extern "C" fn attempt(trial: *mut c_void) -> ! {
    // SAFETY: the caller's promise.
    unsafe {
        let trial = &mut *trial.cast::<Trial<'_>>();
        for (setting, failed) in trial.settings.iter().zip(&mut trial.failed) {
            *failed = settings::apply(setting).err();
        }
        libc::_exit(0)
    }
}

/// A null-terminated array of pointers to `strings`.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| CStr::as_ptr(s)).chain([ptr::null()]).collect()
}

fn check(result: c_int) -> Result<(), c_int> {
    if result < 0 { Err(errno()) } else { Ok(()) }
}

fn check_long(result: c_long) -> Result<(), c_int> {
    if result < 0 { Err(errno()) } else { Ok(()) }
}

fn errno() -> c_int {
    // SAFETY: errno's address is valid for the thread's life.
    unsafe { *libc::__errno_location() }
}

impl From<BirthError> for io::Error {
    fn from(error: BirthError) -> Self {
        error.errno.into()
    }
}
