//! stdout and stderr as they are: every byte arrives, also where the descriptor does not wait (`O_NONBLOCK` belongs to
//! the open file, and whoever shares the pipe or the terminal may have set it).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits until it can be written to, where the file itself does not wait.
pub(crate) struct Patient<F>(F);

impl<F: Write + AsFd> Write for Patient<F> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(data) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room(self.0.as_fd())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Returns when there is room, or nobody reads any more: the next write tells.
fn wait_for_room(fd: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            polled => return Ok(polled.map(drop)?),
        }
    }
}

/// The process's own stdout, without the standard library's line buffer.
///
/// # Errors
/// There are no descriptors left.
pub(crate) fn stdout() -> io::Result<Patient<File>> {
    Ok(Patient(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
}

/// The process's own stderr.
///
/// # Errors
/// There are no descriptors left.
pub(crate) fn stderr() -> io::Result<Patient<File>> {
    Ok(Patient(File::from(io::stderr().as_fd().try_clone_to_owned()?)))
}

/// True if a write failed because nobody reads any more, as behind `| head`.
pub(crate) fn reader_is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    #[test]
    fn every_byte_arrives_though_the_pipe_does_not_wait() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        fcntl(writer.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("O_NONBLOCK");
        let data: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let expected = data.clone();
        let writing = thread::spawn(move || Patient(writer).write_all(&data));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("readable");
        writing.join().expect("no panic").expect("all is written");
        assert!(read == expected, "{} bytes", read.len());
    }

    #[test]
    fn a_reader_that_leaves_ends_the_wait() {
        let (reader, writer) = io::pipe().expect("a pipe");
        fcntl(writer.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("O_NONBLOCK");
        let writing = thread::spawn(move || Patient(writer).write_all(&[0; 300_000]));
        drop(reader);
        let error = writing.join().expect("no panic").expect_err("nobody reads");
        assert!(reader_is_gone(&error), "{error}");
    }
}
