//! What a process inherits over fork(2) and execve(2): shown, and set oddly.
//!
//! [`show`] is what a job under test prints, a line each; [`make_odd`] is what a spawner under test is started with.

use std::ffi::{CStr, c_int, c_long, c_ulong};
use std::fs;
use std::io;
use std::ptr;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::stat::{Mode, umask};

/// Every resource of setrlimit(2), by its name and number, with odd limits.
const RLIMITS: [(&str, libc::__rlimit_resource_t, u64, u64); 16] = [
    ("AS", libc::RLIMIT_AS, 64 << 30, 65 << 30),
    ("CORE", libc::RLIMIT_CORE, 1, 2),
    ("CPU", libc::RLIMIT_CPU, 1000, 2000),
    ("DATA", libc::RLIMIT_DATA, 8 << 30, 9 << 30),
    ("FSIZE", libc::RLIMIT_FSIZE, 1 << 30, 2 << 30),
    ("LOCKS", libc::RLIMIT_LOCKS, 10, 20),
    ("MEMLOCK", libc::RLIMIT_MEMLOCK, 1 << 20, 2 << 20),
    ("MSGQUEUE", libc::RLIMIT_MSGQUEUE, 1000, 2000),
    ("NICE", libc::RLIMIT_NICE, 5, 6),
    ("NOFILE", libc::RLIMIT_NOFILE, 4000, 5000),
    ("NPROC", libc::RLIMIT_NPROC, 5000, 6000),
    ("RSS", libc::RLIMIT_RSS, 8 << 30, 9 << 30),
    ("RTPRIO", libc::RLIMIT_RTPRIO, 7, 8),
    ("RTTIME", libc::RLIMIT_RTTIME, 1_000_000_000, 2_000_000_000),
    ("SIGPENDING", libc::RLIMIT_SIGPENDING, 100, 200),
    ("STACK", libc::RLIMIT_STACK, 16 << 20, 32 << 20),
];

const IOPRIO_WHO_PROCESS: c_int = 1;
const IOPRIO_CLASS_IDLE: c_int = 3;
const IOPRIO_CLASS_SHIFT: c_int = 13;
const PR_SET_IO_FLUSHER: c_int = 57;
const PR_GET_IO_FLUSHER: c_int = 58;
const PR_SET_MEMORY_MERGE: c_int = 67;
const PR_GET_MEMORY_MERGE: c_int = 68;
const MPOL_INTERLEAVE: c_int = 3;
/// `SECBIT_NO_CAP_AMBIENT_RAISE`, not locked.
const SECBITS: c_ulong = 1 << 6;
const CAP_NET_BIND_SERVICE: u32 = 10;
const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
const KEYCTL_DESCRIBE: c_int = 6;
const KEYCTL_SEARCH: c_int = 10;
const KEY_SPEC_SESSION_KEYRING: c_int = -3;

/// The key in the session keyring of an odd process.
pub const ODD_KEY: &CStr = c"odd";

/// What this process was given, as lines `NAME VALUE`.
///
/// # Errors
/// When it can't be told.
pub fn show() -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut say = |name: &str, value: String| lines.push(format!("{name} {value}"));
    let scheduling = scheduling()?;
    say("policy", scheduling.sched_policy.to_string());
    say("nice", scheduling.sched_nice.to_string());
    say("priority", scheduling.sched_priority.to_string());
    say("reset-on-fork", (scheduling.sched_flags & 1).to_string());
    say("io-priority", call(libc::SYS_ioprio_get, [IOPRIO_WHO_PROCESS.into(), 0, 0, 0])?.to_string());
    say("timer-slack", prctl(libc::PR_GET_TIMERSLACK, 0)?.to_string());
    say("personality", format!("{:x}", call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0])?));
    say("securebits", prctl(libc::PR_GET_SECUREBITS, 0)?.to_string());
    say("no-huge-pages", prctl(libc::PR_GET_THP_DISABLE, 0)?.to_string());
    say("machine-check", prctl(libc::PR_MCE_KILL_GET, 0)?.to_string());
    // Only CAP_SYS_RESOURCE may ask, and older kernels know no merging.
    say("io-flusher", prctl(PR_GET_IO_FLUSHER, 0).unwrap_or(0).to_string());
    say("memory-merge", prctl(PR_GET_MEMORY_MERGE, 0).unwrap_or(0).to_string());
    say("memory-policy", memory_policy().to_string());
    for file in ["oom_score_adj", "coredump_filter"] {
        say(file, fs::read_to_string(format!("/proc/self/{file}"))?.trim().to_owned());
    }
    let status = fs::read_to_string("/proc/self/status")?;
    for name in ["Umask", "Cpus_allowed_list", "SigBlk", "SigIgn", "CapInh", "CapAmb", "NoNewPrivs"] {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        say(name, line.unwrap_or("unknown").to_owned());
    }
    say("odd-key", if finds_key(ODD_KEY) { "found" } else { "none" }.to_owned());
    for (name, resource, ..) in RLIMITS {
        say(name, rlimit(resource)?);
    }
    Ok(lines)
}

/// Gives this process an odd value of everything; what takes a privilege, only with `privileged`.
///
/// # Errors
/// What could not be set.
pub fn make_odd(privileged: bool) -> io::Result<()> {
    join_session_keyring()?;
    add_key(ODD_KEY, b"secret")?;
    prctl(libc::PR_SET_TIMERSLACK, 10_000_000)?;
    prctl(libc::PR_SET_THP_DISABLE, 1)?;
    // Early, for this process.
    mce_kill_early()?;
    call(libc::SYS_personality, [libc::ADDR_NO_RANDOMIZE.into(), 0, 0, 0])?;
    let node_0: c_ulong = 1;
    // A kernel without NUMA knows none.
    let _ = call(libc::SYS_set_mempolicy, [MPOL_INTERLEAVE.into(), (&raw const node_0) as c_long, 64, 0]);
    let _ = prctl(PR_SET_MEMORY_MERGE, 1);
    let idle = IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT;
    call(libc::SYS_ioprio_set, [IOPRIO_WHO_PROCESS.into(), 0, idle.into(), 0])?;
    fs::write("/proc/self/coredump_filter", "0x7f")?;
    fs::write("/proc/self/oom_score_adj", if privileged { "-900" } else { "100" })?;
    one_cpu()?;
    umask(Mode::from_bits_truncate(0o077));
    ignore_and_block()?;
    if privileged {
        ambient(CAP_NET_BIND_SERVICE)?;
        prctl(PR_SET_IO_FLUSHER, 1)?;
        prctl(libc::PR_SET_SECUREBITS, SECBITS)?;
    }
    for (name, resource, soft, hard) in RLIMITS {
        // The hard limits of an ordinary user are 0 here, and can't be odd.
        if privileged || !matches!(name, "NICE" | "RTPRIO") {
            set_rlimit(resource, soft, hard)?;
        }
    }
    let policy = if privileged { libc::SCHED_RR } else { libc::SCHED_BATCH };
    set_scheduling(policy.unsigned_abs(), 7, u32::from(privileged) * 5)
}

/// Puts a key into the session keyring.
///
/// # Errors
/// As add_key(2).
pub fn add_key(name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: two C strings and a slice with its length.
    let done = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            name.as_ptr(),
            value.as_ptr(),
            value.len(),
            KEY_SPEC_SESSION_KEYRING,
        )
    };
    checked(done).map(drop)
}

/// Whether the session keyring holds such a key.
pub fn finds_key(name: &CStr) -> bool {
    // SAFETY: two C strings; keyctl(2) copies them.
    let found = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_SEARCH,
            KEY_SPEC_SESSION_KEYRING,
            c"user".as_ptr(),
            name.as_ptr(),
            0,
        )
    };
    found >= 0
}

/// The session keyring: its type, owner, group, permissions and name.
///
/// # Errors
/// As keyctl(2).
pub fn session_keyring() -> io::Result<String> {
    let mut text = [0u8; 256];
    // SAFETY: a buffer with its length.
    let length = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_DESCRIBE,
            KEY_SPEC_SESSION_KEYRING,
            text.as_mut_ptr(),
            text.len(),
            0,
        )
    };
    let length = usize::try_from(checked(length)?).unwrap_or(0).clamp(1, text.len());
    Ok(String::from_utf8_lossy(&text[..length - 1]).into_owned())
}

fn join_session_keyring() -> io::Result<()> {
    call(libc::SYS_keyctl, [KEYCTL_JOIN_SESSION_KEYRING.into(), 0, 0, 0]).map(drop)
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A system call on numbers, or on what its caller lets it point to.
fn call(number: c_long, [a, b, c, d]: [c_long; 4]) -> io::Result<c_long> {
    // SAFETY: the callers hand over numbers, and pointers to their own variables as the call wants them.
    checked(unsafe { libc::syscall(number, a, b, c, d) })
}

fn prctl(option: c_int, value: c_ulong) -> io::Result<c_int> {
    // SAFETY: an option that takes a number, and no further arguments.
    let result = unsafe { libc::prctl(option, value, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn mce_kill_early() -> io::Result<()> {
    let (set, early): (c_ulong, c_ulong) = (1, 1);
    // SAFETY: numbers only.
    let done = unsafe { libc::prctl(libc::PR_MCE_KILL, set, early, 0 as c_ulong, 0 as c_ulong) };
    checked(done.into()).map(drop)
}

fn memory_policy() -> c_int {
    let mut mode: c_int = 0;
    // A kernel without NUMA knows none.
    let _ = call(libc::SYS_get_mempolicy, [(&raw mut mode) as c_long, 0, 0, 0]);
    mode
}

fn scheduling() -> io::Result<libc::sched_attr> {
    // SAFETY: plain numbers, all of which may be 0; the kernel fills what its length says.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    call(libc::SYS_sched_getattr, [0, (&raw mut attr) as c_long, size_of_val(&attr) as c_long, 0])?;
    Ok(attr)
}

fn set_scheduling(policy: u32, nice: i32, priority: u32) -> io::Result<()> {
    // Of a real-time process, nice is what it has once it is none.
    nix_nice(nice)?;
    let mut attr = scheduling()?;
    (attr.sched_policy, attr.sched_nice, attr.sched_priority) = (policy, nice, priority);
    call(libc::SYS_sched_setattr, [0, (&raw const attr) as c_long, 0, 0]).map(drop)
}

fn nix_nice(nice: i32) -> io::Result<()> {
    // SAFETY: numbers only.
    checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }.into()).map(drop)
}

fn one_cpu() -> io::Result<()> {
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(0)?;
    Ok(nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus)?)
}

fn ignore_and_block() -> io::Result<()> {
    for which in [Signal::SIGUSR1, Signal::SIGHUP, Signal::SIGPIPE] {
        // SAFETY: no handler.
        unsafe { signal(which, SigHandler::SigIgn) }?;
    }
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGUSR2);
    Ok(blocked.thread_block()?)
}

/// Puts a capability that this process has into what a command keeps.
fn ambient(capability: u32) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    // Effective, permitted, inheritable: of capabilities below 32, then of the others.
    let mut sets = [[0u32; 3]; 2];
    call(libc::SYS_capget, [header.as_ptr() as c_long, sets.as_mut_ptr() as c_long, 0, 0])?;
    sets[0][2] |= 1 << capability;
    call(libc::SYS_capset, [header.as_ptr() as c_long, sets.as_ptr() as c_long, 0, 0])?;
    let raise = libc::PR_CAP_AMBIENT_RAISE as c_ulong;
    // SAFETY: numbers only.
    let done = unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, raise, c_ulong::from(capability), 0 as c_ulong, 0 as c_ulong)
    };
    checked(done.into()).map(drop)
}

fn rlimit(resource: libc::__rlimit_resource_t) -> io::Result<String> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a structure of ours.
    checked(unsafe { libc::prlimit64(0, resource, ptr::null(), &raw mut limit) }.into())?;
    let [soft, hard] = [limit.rlim_cur, limit.rlim_max]
        .map(|value| if value == libc::RLIM64_INFINITY { "unlimited".to_owned() } else { value.to_string() });
    Ok(format!("{soft}:{hard}"))
}

fn set_rlimit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: a structure of ours.
    let done = unsafe { libc::prlimit64(0, resource, &raw const limit, ptr::null_mut()) };
    checked(done.into()).map(drop)
}
