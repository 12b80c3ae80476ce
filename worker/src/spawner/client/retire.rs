//! A spawner of the worker's own that an older build has started gives way: its shims would not do what this build
//! promises. It ends, its jobs go on under their shims, and its successor finds them.

use std::io;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::UnixStream;

use crate::job::engine::blocking;

/// How long it may take to end, in milliseconds. It only has to leave its loop.
const PATIENCE_MSEC: u16 = 30_000;

/// Ends the spawner at the other end of a connection. Returns once it has ended, and its lock and socket are free.
///
/// # Errors
/// When it can't be told to end, or does not.
pub(super) async fn retire(connection: &UnixStream) -> io::Result<()> {
    let peer = connection.peer_cred()?.pid();
    let pid =
        peer.and_then(Pid::from_raw).ok_or_else(|| io::Error::other("the kernel does not tell its pid"))?;
    // It is attached to us, so its number is its own still.
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    kill(nix::unistd::Pid::from_raw(pid.as_raw_pid()), Signal::SIGTERM)?;
    blocking(move || {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(PATIENCE_MSEC))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    })
    .await
}
