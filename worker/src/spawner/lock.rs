//! One spawner per socket.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

/// How long one that nobody can reach any more may take to end.
const ENDING: Duration = Duration::from_secs(5);

/// Between two attempts: no call waits for a lock with a timeout.
const PAUSE: Duration = Duration::from_millis(10);

/// Takes the place of the spawner on `socket`, for as long as the file is open. One that is ending is waited for: it gives
/// up its socket first. A record lock (F_SETLK, fcntl(2)), because a fork does not inherit it: a shim must not keep the next
/// spawner out.
///
/// # Errors
/// When another spawner listens there, or the file can't be had.
pub(super) fn lock(socket: &Path) -> io::Result<File> {
    let path = socket.with_extension("lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path)?;
    let deadline = Instant::now() + ENDING;
    loop {
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::ACCESS | Errno::AGAIN) => {
                if UnixStream::connect(socket).is_ok() || Instant::now() > deadline {
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, "another spawner has it"));
                }
                thread::sleep(PAUSE);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}
