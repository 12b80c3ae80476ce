//! How the spawner hands a request to a spare: the request's line and the worker's connection, in one message.
//!
//! `SOCK_SEQPACKET` (unix(7)): a message arrives whole or not at all, and the end of either side is seen by the other.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::protocol::Request;
use crate::job::Spec;

/// The longest line that is handed over, in bytes. A socket's buffer takes some 200 KiB, and the spawner must not wait.
const MAX_ORDER_BYTES: usize = 16 << 10;

/// The spawner's end.
pub(super) struct Sender(OwnedFd);

/// The spare's end.
pub struct Receiver(OwnedFd);

/// What a spare is told.
pub struct Order {
    /// Whoever waits for the answer.
    pub connection: UnixStream,
    /// The job.
    pub spec: Box<Spec>,
}

/// Both ends.
pub(super) fn pair() -> io::Result<(Sender, Receiver)> {
    let flags = SocketFlags::CLOEXEC;
    let (sender, receiver) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok((Sender(sender), Receiver(receiver)))
}

impl Sender {
    /// Hands a request over, without waiting.
    ///
    /// # Errors
    /// When the spare is gone, or the line is too long. Whoever asks has no answer then.
    pub(super) fn send(&self, connection: &UnixStream, line: &[u8]) -> io::Result<()> {
        if line.len() > MAX_ORDER_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let rights = [connection.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&rights)), "there is space for one");
        sendmsg(&self.0, &[IoSlice::new(line)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Receiver {
    /// The request; `None` when the spawner's end is closed.
    ///
    /// # Errors
    /// When what has come is no request to start a job.
    pub fn receive(&self) -> io::Result<Option<Order>> {
        let mut line = vec![0; MAX_ORDER_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut line)];
        let length = recvmsg(&self.0, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
        let connection = control.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let Some(connection) = connection else { return Ok(None) };
        let connection = UnixStream::from(connection);
        connection.set_nonblocking(false)?;
        match serde_json::from_slice(&line[..length])? {
            Request::Start(spec) => Ok(Some(Order { connection, spec })),
            Request::Attach | Request::Remove(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::job::{JobId, fake};

    fn line(spec: &Spec) -> Vec<u8> {
        serde_json::to_vec(&Request::Start(Box::new(spec.clone()))).unwrap()
    }

    #[test]
    fn a_request_arrives_with_its_connection() {
        let (sender, receiver) = pair().unwrap();
        let (mut worker, connection) = UnixStream::pair().unwrap();
        let spec = fake::spec(JobId::random(), "alice");
        connection.set_nonblocking(true).unwrap();
        sender.send(&connection, &line(&spec)).unwrap();
        drop((sender, connection));
        let mut order = receiver.receive().unwrap().expect("an order");
        assert_eq!(*order.spec, spec);
        order.connection.write_all(b"started\n").unwrap();
        drop(order);
        let mut answer = String::new();
        worker.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "started\n");
        assert!(receiver.receive().unwrap().is_none(), "the spawner's end is closed");
    }

    #[test]
    fn what_can_not_be_handed_over_is_told_to_the_spawner() {
        let (sender, receiver) = pair().unwrap();
        let (_worker, connection) = UnixStream::pair().unwrap();
        let error = sender.send(&connection, &[b' '; MAX_ORDER_BYTES + 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        sender.send(&connection, &[b' '; MAX_ORDER_BYTES]).expect("this long it fits");
        assert!(receiver.receive().is_err(), "it is no request");
        drop(receiver);
        let error = sender.send(&connection, b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
