//! Carrying out a [`Setting`] in the process that it is for, by system calls alone: the child of a birth may do nothing
//! else. Some of them no crate offers.

use std::ffi::{c_int, c_long};

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::write;
use rustix::process::setrlimit;
use rustix::thread::set_current_timer_slack;

use crate::shim::attributes::Setting;
use crate::shim::inherited::TIMER_SLACK_NSEC;

/// `linux/ioprio.h`.
const IOPRIO_WHO_PROCESS: c_int = 1;
/// `linux/keyctl.h`.
const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
/// A bit for each CPU that a kernel can be built for. It leaves out what is not there, and what the group does not allow.
static ALL_CPUS: [u64; 8192 / 64] = [u64::MAX; 8192 / 64];

/// Sets it in the calling process. Where the kernel does not allow that, what comes next to it, and returns the error all
/// the same.
pub(super) fn apply(setting: &Setting) -> Result<(), Errno> {
    match setting {
        Setting::OomScoreAdj { text, .. } => {
            let file = open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            file.and_then(|file| write(&file, text.as_bytes())).map(drop).map_err(errno)
        }
        Setting::IoPriority => call(libc::SYS_ioprio_set, [IOPRIO_WHO_PROCESS.into(), 0, 0]),
        Setting::Affinity => {
            let bytes = c_long::try_from(size_of_val(&ALL_CPUS)).expect("a kilobyte");
            call(libc::SYS_sched_setaffinity, [0, bytes, ALL_CPUS.as_ptr() as c_long])
        }
        Setting::Keyring => call(libc::SYS_keyctl, [KEYCTL_JOIN_SESSION_KEYRING.into(), 0, 0]),
        Setting::Scheduling { kept_nice } => schedule(0).inspect_err(|_| {
            // What the other says is of no use to anybody.
            let _ = schedule(*kept_nice);
        }),
        Setting::TimerSlack => set_current_timer_slack(Some(TIMER_SLACK_NSEC)).map_err(errno),
        Setting::Rlimit { resource, wanted, otherwise, .. } => {
            setrlimit(*resource, *wanted).map_err(errno).inspect_err(|_| {
                if let Some(otherwise) = otherwise {
                    let _ = setrlimit(*resource, *otherwise);
                }
            })
        }
    }
}

/// The IO priority of this process as it was set, class and value; 0: none was.
pub fn io_priority() -> c_long {
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) }
}

/// `SCHED_OTHER` with this nice value, and no reset on fork.
fn schedule(nice: i32) -> Result<(), Errno> {
    // SAFETY: `sched_attr` is plain numbers, all of which may be 0.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    attr.size = u32::try_from(size_of_val(&attr)).expect("a few bytes");
    attr.sched_policy = libc::SCHED_OTHER.unsigned_abs();
    attr.sched_nice = nice;
    call(libc::SYS_sched_setattr, [0, (&raw const attr) as c_long, 0])
}

/// A system call on numbers, and on pointers to what outlives it.
fn call(number: c_long, [a, b, c]: [c_long; 3]) -> Result<(), Errno> {
    // SAFETY: the calls above read at most what they are pointed to, and change nothing of this process's memory.
    Errno::result(unsafe { libc::syscall(number, a, b, c) }).map(drop)
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
