//! Connections to the spawner whose request has not arrived whole: how many there may be, and how much they may hold.
//!
//! A worker that was taken over may open as many as it likes and end no line. One connection, and one line, more than
//! there is room for drops another: of the process that holds most of them, the oldest. So an honest worker, whose requests
//! arrive whole and at once, is served beside it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::protocol::{MAX_LINE_BYTES, Refusal, RefusalKind, Request, StartReply};
use super::quota::{Complaints, first_to_go};

/// How long a request may take to arrive.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Connections whose request is on its way, at most.
const MAX_PENDING: usize = 256;

/// Memory for what has arrived of all of them, in bytes: four of the longest requests.
const MAX_PENDING_BYTES: usize = 4 * MAX_LINE_BYTES;

/// Read of one connection at a time, in bytes: then it is the others' turn.
const TURN_BYTES: usize = 256 << 10;

/// Read as it comes, without ever waiting.
pub(super) struct Pending {
    pub(super) connection: UnixStream,
    /// The process that has made the connection.
    pub(super) peer: i32,
    until: Instant,
    line: Vec<u8>,
}

/// All of them, the oldest first.
#[derive(Default)]
pub(super) struct AllPending {
    list: Vec<Pending>,
    complaints: Complaints,
}

impl Pending {
    /// Reads what is there. The request, once its line is whole.
    fn read(&mut self) -> io::Result<Option<Request>> {
        let mut buffer = [0; 16 << 10];
        let most = self.line.len() + TURN_BYTES;
        while self.line.len() < most {
            match self.connection.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.line.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.line.len() > MAX_LINE_BYTES {
                return Err(io::Error::other(format!("a request is longer than {MAX_LINE_BYTES} bytes")));
            }
            if self.line.ends_with(b"\n") {
                return Ok(Some(serde_json::from_slice(&self.line)?));
            }
        }
        if self.until <= Instant::now() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(None)
    }

    /// The request as it came.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Whoever still listens is told, in the form of an answer to a start.
    fn refuse(mut self, why: &str) {
        let refusal = Refusal { kind: RefusalKind::Host, field: None, message: why.to_owned() };
        if let Ok(mut line) = serde_json::to_vec(&StartReply::Refused(refusal)) {
            line.push(b'\n');
            // It is not waited for.
            let _ = self.connection.write_all(&line);
        }
    }
}

impl AllPending {
    /// A non-blocking connection of a process, which has [`PATIENCE`] to say what it wants.
    pub(super) fn add(&mut self, connection: UnixStream, peer: i32) {
        if self.list.len() >= MAX_PENDING {
            let peers = self.list.iter().map(|pending| pending.peer).chain([peer]);
            let why =
                format!("{MAX_PENDING} connections to the spawner wait with half a request: the oldest goes");
            match first_to_go(peers) {
                Some(place) if place < self.list.len() => self.drop_one(place, &why),
                _ => {}
            }
        }
        self.list.push(Pending { connection, peer, until: Instant::now() + PATIENCE, line: Vec::new() });
    }

    /// Reads of each in turn. What has arrived whole is no longer pending.
    pub(super) fn read(&mut self) -> Vec<(Pending, Request)> {
        let (mut whole, mut at) = (Vec::new(), 0);
        while at < self.list.len() {
            match self.list[at].read() {
                Ok(None) => at += 1,
                Ok(Some(request)) => whole.push((self.list.remove(at), request)),
                Err(error) => {
                    self.list.remove(at);
                    // It may quote what was sent, which has no end.
                    let error: String = error.to_string().chars().take(200).collect();
                    self.complaints.tell(&format!("dropped a connection: {error}"));
                }
            }
            while let Some(place) = self.over_budget() {
                let why = "half requests to the spawner take up all the memory that there is for them: the longest goes";
                self.drop_one(place, why);
                at -= usize::from(place < at);
            }
        }
        whole
    }

    /// The one that holds most, where all hold too much; of several the oldest.
    fn over_budget(&self) -> Option<usize> {
        let held = || self.list.iter().map(|pending| pending.line.capacity());
        if held().sum::<usize>() <= MAX_PENDING_BYTES {
            return None;
        }
        held().enumerate().rev().max_by_key(|(_, bytes)| *bytes).map(|(place, _)| place)
    }

    fn drop_one(&mut self, place: usize, why: &str) {
        self.list.remove(place).refuse(why);
        self.complaints.tell(why);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What to wait for.
    pub(super) fn connections(&self) -> impl Iterator<Item = &UnixStream> {
        self.list.iter().map(|pending| &pending.connection)
    }

    /// When the patience with one of them ends.
    pub(super) fn until(&self) -> Option<Instant> {
        self.list.iter().map(|pending| pending.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobId, fake};

    fn connect(all: &mut AllPending, peer: i32) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        all.add(ours, peer);
        theirs
    }

    /// Without end, as far as it is read.
    fn flood(connection: &mut UnixStream) {
        while connection.write(&[b'x'; 16 << 10]).is_ok_and(|written| written > 0) {}
    }

    fn is_closed(connection: &mut UnixStream) -> bool {
        let mut answer = Vec::new();
        // Reset, where it was closed over what was not read.
        !connection.read_to_end(&mut answer).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn thirty_lines_without_an_end_hold_no_more_than_the_budget_and_an_honest_one_arrives() {
        let mut all = AllPending::default();
        let mut floods: Vec<_> = (0..30).map(|_| connect(&mut all, 666)).collect();
        let spec = fake::spec(JobId::random(), "alice");
        let mut honest = connect(&mut all, 1);
        let line = serde_json::to_vec(&Request::Start(Box::new(spec.clone()))).unwrap();
        let (first, rest) = line.split_at(100);
        honest.write_all(first).unwrap();
        let mut most = 0;
        for _ in 0..100 {
            floods.iter_mut().for_each(flood);
            assert!(all.read().is_empty());
            most = most.max(all.list.iter().map(|pending| pending.line.capacity()).sum());
        }
        assert!((MAX_PENDING_BYTES / 2..=MAX_PENDING_BYTES).contains(&most), "{most}");
        assert!(floods.iter_mut().filter_map(|flood| is_closed(flood).then_some(())).count() >= 15);
        honest.write_all(&[rest, b"\n"].concat()).unwrap();
        let whole = all.read();
        assert!(matches!(&whole[..], [(_, Request::Start(read))] if **read == spec));
    }

    #[test]
    fn one_connection_too_many_drops_one_of_whoever_has_most() {
        let mut all = AllPending::default();
        let mut honest = connect(&mut all, 1);
        let mut idle: Vec<_> = (0..MAX_PENDING + 50).map(|_| connect(&mut all, 666)).collect();
        assert_eq!(all.list.len(), MAX_PENDING);
        assert!(idle[..50].iter_mut().all(is_closed) && !idle[60..].iter_mut().any(is_closed));
        assert!(!is_closed(&mut honest), "it is the oldest, and has one");
        honest.write_all(b"\"attach\"\n").unwrap();
        assert!(matches!(&all.read()[..], [(_, Request::Attach)]));
    }

    #[test]
    fn who_is_dropped_is_told_why() {
        let mut all = AllPending::default();
        let mut first = connect(&mut all, 7);
        for _ in 0..MAX_PENDING {
            std::mem::forget(connect(&mut all, 7));
        }
        let mut answer = String::new();
        first.read_to_string(&mut answer).unwrap();
        match serde_json::from_str(&answer).unwrap() {
            StartReply::Refused(refusal) => assert!(refusal.message.contains("256 connections"), "{refusal}"),
            other => panic!("{other:?}"),
        }
    }
}
