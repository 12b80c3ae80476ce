//! What a spawner was started with and hands on to all that it forks, though it is worth nothing to itself: set to what a
//! fresh process of a fresh kernel has, once, in the spawner. What it wants for itself is set in each job instead
//! ([`super::attributes`]).

use std::fs;
use std::io;
use std::num::NonZeroU64;

use nix::sys::personality::{self, Persona};
use rustix::process::{
    configure_io_flusher_behavior, is_io_flusher, set_machine_check_memory_corruption_kill_policy,
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, capabilities, capabilities_secure_bits,
    clear_ambient_capability_set, disable_transparent_huge_pages, set_capabilities,
    set_capabilities_secure_bits, set_current_timer_slack,
};

use super::birth::{forget_memory_policy, stop_merging_memory};

/// How much later than asked for a process may be woken: the kernel's default, `INIT_TASK`.
pub(in crate::shim) const TIMER_SLACK_NSEC: NonZeroU64 = NonZeroU64::new(50_000).expect("more than 0");

/// What a core dump holds by default: core(5).
const COREDUMP_FILTER: &str = "0x33";

type Reset = fn() -> io::Result<()>;

const RESETS: [(&str, Reset); 10] = [
    ("the inheritable and ambient capabilities", drop_capabilities),
    ("the securebits", reset_securebits),
    ("the timer slack", || Ok(set_current_timer_slack(Some(TIMER_SLACK_NSEC))?)),
    ("the use of huge pages", || Ok(disable_transparent_huge_pages(false)?)),
    ("the policy for machine checks", || Ok(set_machine_check_memory_corruption_kill_policy(None)?)),
    ("the state of an IO flusher", stop_flushing),
    ("the merging of memory", || Ok(stop_merging_memory()?)),
    ("the memory policy", || Ok(forget_memory_policy()?)),
    ("the personality", || Ok(personality::set(Persona::empty()).map(drop)?)),
    ("the filter of core dumps", || fs::write("/proc/self/coredump_filter", COREDUMP_FILTER)),
];

/// Sets all of it in this process. What the kernel does not have can't have been inherited.
pub fn reset() {
    for (what, reset) in RESETS {
        match reset() {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
                tracing::warn!(%error, "jobs inherit {what} that the spawner was started with: can't reset it");
            }
            _ => {}
        }
    }
}

/// Both would give a job of the spawner's own user capabilities. The spawner's own stay: they are others.
fn drop_capabilities() -> io::Result<()> {
    let sets = capabilities(None)?;
    if !sets.inheritable.is_empty() {
        let sets = rustix::thread::CapabilitySets { inheritable: CapabilitySet::empty(), ..sets };
        set_capabilities(None, sets)?;
    }
    Ok(clear_ambient_capability_set()?)
}

/// Those that are locked stay, as whoever locked them wanted.
fn reset_securebits() -> io::Result<()> {
    let (bits, mut kept) = (capabilities_secure_bits()?, CapabilitiesSecureBits::empty());
    for (bit, lock) in [
        (CapabilitiesSecureBits::NO_ROOT, CapabilitiesSecureBits::NO_ROOT_LOCKED),
        (CapabilitiesSecureBits::NO_SETUID_FIXUP, CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED),
        (CapabilitiesSecureBits::KEEP_CAPS, CapabilitiesSecureBits::KEEP_CAPS_LOCKED),
        (CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE, CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED),
    ] {
        if bits.contains(lock) {
            kept |= bits & (bit | lock);
        }
    }
    if kept == bits { Ok(()) } else { Ok(set_capabilities_secure_bits(kept)?) }
}

/// Only CAP_SYS_RESOURCE makes one, and only it may ask.
fn stop_flushing() -> io::Result<()> {
    if is_io_flusher().unwrap_or(false) { Ok(configure_io_flusher_behavior(false)?) } else { Ok(()) }
}
