//! The main process of a job whose shim is gone, where it is not in the job's group: killed with what is below it. It is
//! known by its number and the time of its birth. What else has left the group is nobody's whom we could know.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use rustix::process::{Signal, pidfd_send_signal};

use crate::job::State;
use crate::shim::process_tree::{pin_below, pin_born_between};
use crate::spawner::host::Host;

/// Kills it if it lives, to be called when the group is empty. Returns whether it lived.
///
/// # Errors
/// Why it has to be tried again.
pub(super) fn end(host: &Host, state: &State, until: Instant) -> Result<bool, String> {
    let Some(birth) = state.birth.filter(|_| state.boot_id == host.boot_id) else { return Ok(false) };
    let main = Pid::from_raw(state.pid);
    let failed = |error: &dyn std::fmt::Display| {
        format!("can't end process {main}, the main process of a job whose shim is gone: {error}")
    };
    let pinned = pin_born_between(main, birth.began_boot_usec, birth.executed_boot_usec);
    let Some(pidfd) = pinned.map_err(|error| failed(&error))? else { return Ok(false) };
    // While it lives to show whose they are.
    let below = pin_below(main).map_err(|error| failed(&error))?;
    for process in std::iter::once(&pidfd).chain(&below) {
        match pidfd_send_signal(process, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(failed(&errno)),
        }
    }
    for process in std::iter::once(&pidfd).chain(&below) {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let patience = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], patience) == Ok(0) {
            return Err(failed(&"it, or a process that it has started, was killed and does not exit"));
        }
    }
    Ok(true)
}
