//! The birth of a job's main process: `clone3` straight into its group, then `execve`. The one file of the shim with
//! `unsafe` in it.
//!
//! The process is never moved: writing `cgroup.procs` would take a system-wide lock and let the job run outside its
//! limits for a moment. After the clone the child calls nothing but async-signal-safe functions, on memory that
//! [`Image`] prepared before. What fails there comes back over a close-on-exec pipe as step and errno.
//!
//! clone3(2), `CLONE_INTO_CGROUP`: Linux 5.7; `close_range(2)` with `CLOSE_RANGE_CLOEXEC`: Linux 5.11.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, pipe2};

/// `linux/sched.h`; libc's constant of this name overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

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
#[repr(u8)]
pub enum Step {
    /// Not even born.
    Clone = 0,
    /// `setsid`, `dup2`, signals, `close_range`.
    Setup = 1,
    /// `setgroups`, `setresgid`, `setresuid`.
    User = 2,
    /// `chdir`.
    Workdir = 3,
    /// `execve`.
    Exec = 4,
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
    let failed = |errno| BirthError { step: Step::Clone, errno };
    let (report_read, report_write) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let exec = Exec::new(image, stdio, report_write);
    // SAFETY: the shim is single-threaded, so the child's copy of memory is consistent; the child calls only
    // `Exec::run`, which is async-signal-safe and does not return.
    let pid = unsafe {
        match clone_into(group).map_err(failed)? {
            0 => exec.run(),
            pid => Pid::from_raw(pid),
        }
    };
    drop(exec);
    let mut report = Vec::with_capacity(8);
    let read = File::from(report_read).read_to_end(&mut report);
    match (read, report.as_slice()) {
        (Ok(_), []) => Ok(pid),
        (_, report) => {
            // The child has written its last words and exits; an error here means it is reaped already.
            let _ = waitpid(pid, None);
            Err(decode(report))
        }
    }
}

fn decode(report: &[u8]) -> BirthError {
    let step = match report.first() {
        Some(2) => Step::User,
        Some(3) => Step::Workdir,
        Some(4) => Step::Exec,
        _ => Step::Setup,
    };
    let errno =
        report.get(1..5).and_then(|bytes| bytes.try_into().ok()).map_or(libc::EIO, i32::from_le_bytes);
    BirthError { step, errno: nix::Error::from_raw(errno) }
}

/// `clone3`, as a fork whose child is born in `group`. Returns 0 in the child.
///
/// # Safety
/// As for `fork`: in the child of a process with threads only async-signal-safe functions may be called.
unsafe fn clone_into(group: Option<BorrowedFd<'_>>) -> nix::Result<i32> {
    // SAFETY: `clone_args` is plain numbers, all of which may be 0.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    if let Some(group) = group {
        args.flags = CLONE_INTO_CGROUP;
        args.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `args` is valid for its size, asks for no shared memory and no new stack.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    let pid: c_long = nix::Error::result(pid)?;
    Ok(i32::try_from(pid).expect("a pid fits in 32 bits"))
}

/// The child's half: pointers into an [`Image`] and descriptors, nothing that allocates.
struct Exec<'a> {
    image: &'a Image,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    groups: Vec<libc::gid_t>,
    stdio: [RawFd; 3],
    report: OwnedFd,
}

impl<'a> Exec<'a> {
    fn new(image: &'a Image, stdio: &Stdio<'_>, report: OwnedFd) -> Self {
        Self {
            image,
            argv: pointers(&image.argv),
            env: pointers(&image.env),
            groups: image.user.iter().flat_map(|user| &user.groups).map(|gid| gid.as_raw()).collect(),
            stdio: [stdio.stdin.as_raw_fd(), stdio.stdout.as_raw_fd(), stdio.stderr.as_raw_fd()],
            report,
        }
    }

    /// # Safety
    /// Only in the child of [`clone_into`].
    unsafe fn run(&self) -> ! {
        // SAFETY: the caller's promise; these functions make system calls on memory prepared before the clone.
        let (step, errno) = unsafe {
            'failed: {
                if let Err(errno) = self.set_up() {
                    break 'failed (Step::Setup, errno);
                }
                if let Err(errno) = self.become_user() {
                    break 'failed (Step::User, errno);
                }
                if libc::chdir(self.image.workdir.as_ptr()) != 0 {
                    break 'failed (Step::Workdir, errno());
                }
                (Step::Exec, self.execute())
            }
        };
        let mut report = [step as u8, 0, 0, 0, 0];
        report[1..].copy_from_slice(&errno.to_le_bytes());
        // SAFETY: a valid buffer and an open descriptor; then the end. Five bytes fit in any pipe.
        unsafe {
            libc::write(self.report.as_raw_fd(), report.as_ptr().cast(), report.len());
            libc::_exit(127)
        }
    }

    /// Own session, streams, no other descriptor, signals as a fresh process has them.
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
            // The report pipe among them: it closes when the command is executed.
            let from_3: c_uint = 3;
            let flags = libc::CLOSE_RANGE_CLOEXEC;
            check_long(libc::syscall(libc::SYS_close_range, from_3, c_uint::MAX, flags))?;
            libc::umask(0o022);
            // The kernel's `sigaction` (handler, flags, restorer, mask), all zero: SIG_DFL. Not libc's function, which
            // refuses its own two signals, though its posix_spawn(3) leaves them ignored. SIGKILL and SIGSTOP refuse.
            let default = [0usize; 4];
            for signal in 1..=libc::SIGRTMAX() {
                let no_old = ptr::null_mut::<usize>();
                libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), no_old, SIGSET_BYTES);
            }
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
    unsafe fn execute(&self) -> c_int {
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
