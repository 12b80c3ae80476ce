//! `clone3` with the parent's memory and a stack of the child's own: what vfork(2) does, and into a group.
//!
//! A few instructions in assembly, because a child that returned from the call would do so on the parent's stack, and no
//! libc offers it: glibc's clone(3) knows no group, and its `pidfd_spawn` (2.39) none of the rest.

use std::arch::asm;
use std::ffi::{c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// `linux/sched.h`; libc's constant of this name overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `linux/sched.h`; likewise. The child has no handler of this process.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// The child's stack, in bytes: it makes system calls, some ten frames deep, also in a debug build.
const STACK_BYTES: usize = 64 << 10;

/// What lies below it, in bytes: a multiple of every page size, as the stack is.
const GUARD_BYTES: usize = 64 << 10;

/// A stack over pages that nobody may touch: a child that needs more than it is given ends, and writes to nothing of its
/// parent's.
struct Stack(*mut c_void);

impl Stack {
    fn new() -> nix::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        let bytes = GUARD_BYTES + STACK_BYTES;
        // SAFETY: a mapping where there is none.
        let guard = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        if guard == libc::MAP_FAILED {
            return Err(nix::Error::last());
        }
        let stack = Self(guard);
        // SAFETY: pages of that mapping.
        let opened =
            unsafe { libc::mprotect(stack.lowest(), STACK_BYTES, libc::PROT_READ | libc::PROT_WRITE) };
        nix::Error::result(opened).map(|_| stack)
    }

    fn lowest(&self) -> *mut c_void {
        self.0.wrapping_byte_add(GUARD_BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which this owns.
        unsafe { libc::munmap(self.0, GUARD_BYTES + STACK_BYTES) };
    }
}

/// Starts a child in `group` at `entry(argument)`, and sleeps until it has executed a program or ended. Returns its pid.
///
/// # Safety
/// Up to there the child shares this process's memory, descriptors excepted. `entry` may call async-signal-safe functions
/// only, must not return, and must not write to what others use meanwhile. All signals have to be blocked.
pub(super) unsafe fn clone_into(
    group: Option<BorrowedFd<'_>>,
    entry: unsafe extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> nix::Result<i32> {
    let stack = Stack::new()?;
    // SAFETY: `clone_args` is plain numbers, all of which may be 0.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_VM | libc::CLONE_VFORK) as u64 | CLONE_CLEAR_SIGHAND;
    args.exit_signal = libc::SIGCHLD as u64;
    args.stack = stack.lowest() as u64;
    args.stack_size = STACK_BYTES as u64;
    if let Some(group) = group {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `args` is valid for its size, and its stack is nobody else's and lives until this call returns, which
    // CLONE_VFORK puts off until the child needs it no more; the rest is the caller's promise.
    let pid = unsafe { clone3(&raw const args, entry, argument) };
    if pid < 0 {
        return Err(nix::Error::from_raw(i32::try_from(-pid).expect("an errno fits in 32 bits")));
    }
    Ok(i32::try_from(pid).expect("a pid fits in 32 bits"))
}

/// # Safety
/// As [`clone_into`], with a stack in `args`. Returns as the kernel does: a negative errno, or the pid.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(
    args: *const libc::clone_args,
    entry: unsafe extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> c_long {
    let result: c_long;
    // SAFETY: the child begins behind `syscall` with all registers but rax and the stack pointer as they are here, and
    // leaves by `entry`; in the parent nothing but rax, rcx and r11 has changed (syscall(2)).
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            // No frame is further out.
            "xor ebp, ebp",
            "mov rdi, {argument}",
            "call {entry}",
            "ud2",
            "2:",
            argument = in(reg) argument,
            entry = in(reg) entry,
            inout("rax") libc::SYS_clone3 => result,
            in("rdi") args,
            in("rsi") size_of::<libc::clone_args>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// # Safety
/// As [`clone_into`], with a stack in `args`. Returns as the kernel does: a negative errno, or the pid.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(
    args: *const libc::clone_args,
    entry: unsafe extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> c_long {
    let result: c_long;
    // SAFETY: the child begins behind `svc` with all registers but x0 and the stack pointer as they are here, and leaves by
    // `entry`; in the parent nothing but x0 has changed (syscall(2)).
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            // No frame is further out.
            "mov x29, xzr",
            "mov x0, {argument}",
            "blr {entry}",
            "brk 1",
            "2:",
            argument = in(reg) argument,
            entry = in(reg) entry,
            inout("x0") args => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
        );
    }
    result
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("clone3 with a stack of its own is written for x86_64 and aarch64 only");

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;

    use super::*;

    fn ended(entry: unsafe extern "C" fn(*mut c_void) -> !, argument: *mut c_void) -> WaitStatus {
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before)).unwrap();
        // SAFETY: the entries below end by themselves, and touch their stack and argument only.
        let pid = unsafe { clone_into(None, entry, argument) };
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None).unwrap();
        waitpid(Pid::from_raw(pid.unwrap()), None).unwrap()
    }

    /// Deeper and deeper, to the bytes given; each step takes a page or more.
    #[inline(never)]
    fn deeper(left: usize) -> u8 {
        let room = black_box([1u8; 4096]);
        let below = if left > room.len() { deeper(left - room.len()) } else { 0 };
        black_box(room)[0].wrapping_add(below)
    }

    unsafe extern "C" fn go_down(bytes: *mut c_void) -> ! {
        deeper(bytes as usize);
        // SAFETY: the end of this process.
        unsafe { libc::_exit(3) }
    }

    #[test]
    fn a_child_that_needs_more_stack_than_there_is_ends_by_it_alone() {
        assert!(matches!(ended(go_down, (8 << 10) as *mut c_void), WaitStatus::Exited(_, 3)));
        let ended = ended(go_down, (256 << 10) as *mut c_void);
        assert!(matches!(ended, WaitStatus::Signaled(_, Signal::SIGSEGV, _)), "{ended:?}");
    }

    /// The handlers that the child has, as `/proc/self/status` shows them: none.
    unsafe extern "C" fn copy_status(to: *mut c_void) -> ! {
        // SAFETY: system calls on the parent's buffer of that length.
        unsafe {
            let file = libc::open(c"/proc/self/status".as_ptr(), libc::O_RDONLY);
            libc::read(file, to, STATUS_BYTES);
            libc::_exit(0)
        }
    }

    const STATUS_BYTES: usize = 4096;

    #[test]
    fn no_handler_of_the_parent_is_left_in_the_child() {
        let mut status = vec![0u8; STATUS_BYTES];
        assert!(matches!(ended(copy_status, status.as_mut_ptr().cast()), WaitStatus::Exited(_, 0)));
        let status = String::from_utf8_lossy(&status);
        assert!(status.contains("SigCgt:\t0000000000000000\n"), "{status}");
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(!own.contains("SigCgt:\t0000000000000000\n"), "Rust handles SIGSEGV here: {own}");
    }
}
