//! `clone3` with the parent's memory and a stack of the child's own: what vfork(2) does, and into a group.
//!
//! A few instructions in assembly, because a child that returned from the call would do so on the parent's stack, and no
//! libc offers it: glibc's clone(3) knows no group, and its `pidfd_spawn` (2.39) none of the rest.

use std::arch::asm;
use std::ffi::{c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `linux/sched.h`; libc's constant of this name overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The child's stack, in bytes: it makes system calls, some ten frames deep, also in a debug build.
const STACK_BYTES: usize = 64 << 10;

/// As both architectures want it at a call, in bytes.
#[repr(C, align(16))]
struct Stack([u8; STACK_BYTES]);

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
    // Not zeroed: of pages that nobody touches there are none.
    let mut stack = Box::<Stack>::new_uninit();
    // SAFETY: `clone_args` is plain numbers, all of which may be 0.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.stack = stack.as_mut_ptr() as u64;
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
