//! `fork`, kept apart for its `unsafe`.

use std::fs;

use nix::errno::Errno;
use nix::unistd::ForkResult;

/// Splits this process in two. The child may do whatever the parent may, because there is no other thread whose
/// locks it could inherit: with one, this refuses.
///
/// # Errors
/// `EDEADLK` in a process with more than one thread; else what fork(2) says.
pub(super) fn fork() -> nix::Result<ForkResult> {
    if threads() != Some(1) {
        return Err(Errno::EDEADLK);
    }
    // SAFETY: this process has one thread, which is here.
    unsafe { nix::unistd::fork() }
}

fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}
