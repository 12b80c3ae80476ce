//! A spare: a shim that was forked before its job was asked for, so that nobody has to wait for the fork, the folder and
//! the files.
//!
//! ```text
//!  spawner ──fork──▶ spare: folder `.new.shim.<pid>`, pipes ──▶ waits ── connection and request ──▶ shim
//!                                                                 │ the spawner's end closes, SIGTERM
//!                                                                 └──▶ folder removed, ends
//! ```

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::ready::Ready;
use super::{NAME, Remains, answer, run_ready};
use crate::spawner::call_oneself;
use crate::spawner::handover::{Order, Receiver};
use crate::spawner::host::Host;

/// Waits for a job and runs it, from request to outcome. What can't be prepared now is prepared, or refused in words,
/// when a job is asked for: by a shim that is forked then.
///
/// # Errors
/// As [`super::run`].
pub fn wait(orders: &Receiver, host: &Host) -> Result<(), Remains> {
    call_oneself(c"jobworker-spare");
    let Ok(ready) = Ready::make(host) else { return Ok(()) };
    let Some(Order { mut connection, spec }) = next(orders, &ready) else {
        return if ready.discard() { Ok(()) } else { Err(Remains) };
    };
    call_oneself(NAME);
    // Somebody may have cleared up in the state folder meanwhile.
    if ready.folder.is_in_place().unwrap_or(false) {
        return run_ready(ready, connection, &spec, host);
    }
    drop(ready);
    match Ready::make(host) {
        Ok(ready) => run_ready(ready, connection, &spec, host),
        Err(reply) => {
            answer(&mut connection, &reply);
            Ok(())
        }
    }
}

/// `None` when none will come.
fn next(orders: &Receiver, ready: &Ready) -> Option<Order> {
    loop {
        let mut fds = [orders.as_fd(), ready.signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // An interrupted poll has found nothing, and is asked again.
        let _ = poll(&mut fds, PollTimeout::NONE);
        let [ordered, signalled] = fds.map(|fd| fd.any().unwrap_or(false));
        if ordered {
            // A SIGTERM that came beside an order is the job's.
            return orders
                .receive()
                .inspect_err(|error| tracing::warn!(%error, "lost a job's request"))
                .ok()?;
        }
        if signalled
            && let Ok(Some(signal)) = ready.signals.read_signal()
            && signal.ssi_signo == Signal::SIGTERM as u32
        {
            return None;
        }
    }
}
