//! The birth of a job's main process: `clone3` straight into its group, then `execve`. The one file of the shim with
//! `unsafe` in it.
//!
//! The process is never moved: writing `cgroup.procs` would take a system-wide lock and let the job run outside its
//! limits for a moment. As with vfork(2) the child shares the shim's memory, and the shim sleeps until the child has
//! executed the command or ended: no page table is copied (a fork took 40 % of a start's time in the shim). The child runs
//! on a stack of its own, calls nothing but async-signal-safe functions on memory that [`Image`] prepared before, and
//! writes to nothing but that stack and the place for what failed.
//!
//! clone3(2), `CLONE_INTO_CGROUP`: Linux 5.7; `close_range(2)` with `CLOSE_RANGE_CLOEXEC`: Linux 5.11.

mod clone;

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid};

use self::clone::clone_into;

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
    /// Not even born.
    Clone,
    /// `setsid`, `dup2`, signals, `close_range`.
    Setup,
    /// `setgroups`, `setresgid`, `setresuid`.
    User,
    /// `chdir`.
    Workdir,
    /// `execve`.
    Exec,
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
    // No handler may run in the child, on the shim's memory. It unblocks them when it has none left.
    let mut before = SigSet::empty();
    let failed = |errno| BirthError { step: Step::Clone, errno };
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before)).map_err(failed)?;
    // SAFETY: `run` takes an `Exec`, calls async-signal-safe functions only and does not return; `exec` lives until the
    // child has done with it, because this thread sleeps that long, and it is the process's only one.
    let born = unsafe { clone_into(group, run, (&raw mut exec).cast()) };
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None).map_err(failed)?;
    let pid = Pid::from_raw(born.map_err(failed)?);
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
            if let Err(errno) = self.set_up() {
                return (Step::Setup, errno);
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
    unsafe fn set_up(&self) -> Result<(), c_int> {
        // SAFETY: system calls on descriptors that this process owns and on values on its stack.
        unsafe {
            check(libc::setsid())?;
            for (from, to) in self.stdio.into_iter().zip(0..) {
                check(libc::dup2(from, to))?;
            }
            let from_3: c_uint = 3;
            let flags = libc::CLOSE_RANGE_CLOEXEC;
            check_long(libc::syscall(libc::SYS_close_range, from_3, c_uint::MAX, flags))?;
            libc::umask(0o022);
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()))
        }
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
