//! The floor under every start: what the kernel takes for a birth, an exec and a wait, and nothing besides. The one file of
//! the benchmark with `unsafe` in it, because std's `Command` and posix_spawn(3) do more than that.
//!
//! clone(2) with `CLONE_VM|CLONE_VFORK|CLONE_PIDFD`: no page table is copied, the parent sleeps until the exec, and the
//! child is waited for by a descriptor. The same for the peers' processes, so that all are born alike.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::ptr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{ForkResult, alarm, fork, pause};

/// Enough for four system calls.
const STACK_BYTES: usize = 64 << 10;

/// A program that is started over and over by one thread.
pub(super) struct Birthplace {
    program: Program,
    /// At the priority that jobs have, whatever this process has: as fast as they are is the question then.
    is_ordinary: bool,
    stdout: Option<OwnedFd>,
    /// Of the highest alignment that a stack needs, 16 bytes.
    stack: Vec<u128>,
}

/// What to execute.
pub(super) struct Program {
    words: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    pub(super) fn new<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> Self {
        let words = words.into_iter().map(|word| CString::new(word.as_bytes()).expect("no NUL")).collect();
        let home = std::env::var("HOME").unwrap_or_else(|_| "/".to_owned());
        let env = [format!("HOME={home}"), "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".to_owned()];
        Self { words, env: env.map(|text| CString::new(text).expect("no NUL")).into() }
    }

    /// The same program, arguments and additions to the environment.
    pub(super) fn of(command: &Command) -> Self {
        let mut program = Self::new([command.get_program()].into_iter().chain(command.get_args()));
        for (key, value) in command.get_envs().filter_map(|(key, value)| Some((key, value?))) {
            let text = [key.as_bytes(), b"=", value.as_bytes()].concat();
            program.env.push(CString::new(text).expect("no NUL"));
        }
        program
    }
}

/// What the child needs, and where it says why it failed.
struct Exec {
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    is_ordinary: bool,
    stdout: RawFd,
    errno: c_int,
}

impl Birthplace {
    /// `/bin/true`.
    pub(super) fn of_true() -> Self {
        Self { is_ordinary: true, ..Self::new(Program::new([OsStr::new("/bin/true")])) }
    }

    pub(super) fn new(program: Program) -> Self {
        Self { program, is_ordinary: false, stdout: None, stack: vec![0; STACK_BYTES / size_of::<u128>()] }
    }

    /// What it writes to stdout goes there.
    pub(super) fn stdout(mut self, to: OwnedFd) -> Self {
        self.stdout = Some(to);
        self
    }

    /// From before the birth to after the end.
    pub(super) fn run(&mut self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let status =
            self.birth().and_then(|pidfd| Ok(waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED)?));
        let took = started.elapsed();
        let words = &self.program.words;
        match status.with_context(|| format!("execute {words:?}"))? {
            WaitStatus::Exited(_, 0) => Ok(took),
            status => bail!("{words:?} ended otherwise than it should: {status:?}"),
        }
    }

    fn birth(&mut self) -> io::Result<OwnedFd> {
        let mut exec = Exec {
            argv: pointers(&self.program.words),
            env: pointers(&self.program.env),
            is_ordinary: self.is_ordinary,
            stdout: self.stdout.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            errno: 0,
        };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        let mut pidfd: RawFd = -1;
        // SAFETY: the child runs on a stack of its own, which lives longer than it needs that: the parent goes on only
        // after the child's exec or end. It touches nothing but `exec`, which the parent does not touch meanwhile. This
        // process handles no signal, so none of its handlers can run in the child.
        let pid = unsafe {
            let top = self.stack.as_mut_ptr_range().end.cast::<c_void>();
            let argument = (&raw mut exec).cast::<c_void>();
            libc::clone(execute, top, flags, argument, &raw mut pidfd)
        };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has made it for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        // SAFETY: a plain read; the compiler must not think that nobody else wrote to it.
        match unsafe { ptr::read_volatile(&raw const exec.errno) } {
            0 => Ok(pidfd),
            errno => {
                waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED)?;
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }
}

/// The child: system calls only, on memory that was prepared before.
extern "C" fn execute(argument: *mut c_void) -> c_int {
    // SAFETY: `birth` hands over an `Exec` that it does not touch before this has ended.
    unsafe {
        let exec = &mut *argument.cast::<Exec>();
        if exec.is_ordinary {
            // No privilege is needed, and whatever fails leaves it as it is.
            libc::sched_setscheduler(0, libc::SCHED_OTHER, &libc::sched_param { sched_priority: 0 });
        }
        if exec.stdout >= 0 {
            libc::dup2(exec.stdout, libc::STDOUT_FILENO);
        }
        libc::execve(exec.argv[0], exec.argv.as_ptr(), exec.env.as_ptr());
        ptr::write_volatile(&raw mut exec.errno, *libc::__errno_location());
    }
    127
}

/// A null-terminated array of pointers to `strings`.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| CStr::as_ptr(string)).chain([ptr::null()]).collect()
}

/// Makes so many children that do nothing, for `lifetime_sec` seconds at most. Only in a process with one thread.
pub(super) fn fork_sleepers(count: usize, lifetime_sec: u32) -> io::Result<()> {
    for _ in 0..count {
        // SAFETY: this process has one thread, so the child may do whatever the parent may.
        if let ForkResult::Child = unsafe { fork() }? {
            alarm::set(lifetime_sec);
            loop {
                pause();
            }
        }
    }
    Ok(())
}

/// Forks, as every copy does, until the deadline. Only in a process with one thread.
pub(super) fn fork_bomb(deadline: Instant) {
    while Instant::now() < deadline {
        // SAFETY: as above; the copies have one thread, too.
        let _ = unsafe { fork() };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_program_is_executed_and_waited_for() {
        Birthplace::of_true().run().expect("/bin/true");
        let (mut read, write) = io::pipe().expect("a pipe");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $A $0", "x"]).env("A", "b");
        let mut birthplace = Birthplace::new(Program::of(&command)).stdout(write.into());
        birthplace.run().expect("a shell");
        drop(birthplace);
        let mut text = String::new();
        read.read_to_string(&mut text).expect("what it wrote");
        assert_eq!(text, "b x\n");
    }

    #[test]
    fn what_fails_is_told() {
        let failure = |words: &[&str]| {
            let program = Program::new(words.iter().map(OsStr::new));
            format!("{:#}", Birthplace::new(program).run().expect_err("it fails"))
        };
        assert!(failure(&["/bin/false"]).contains("Exited"));
        assert!(failure(&["/no/such/program"]).contains("No such file"));
    }
}
