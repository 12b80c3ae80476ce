//! The spawner's loop: connections, requests, children. It never waits for any one of them.
//!
//! Nor does one that asks too much keep it busy: connections and what they hold have caps ([`super::pending`]), and a
//! listener that can't be accepted from is left alone for a while.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Uid};
use rustix::fs::{AtFlags, CWD, chownat};

use super::children::Children;
use super::fork::fork;
use super::handover::{Receiver, pair};
use super::host::Host;
use super::lock::lock;
use super::pending::{AllPending, PATIENCE, Pending};
use super::protocol::{Attached, Request};
use super::quota::{Complaints, first_to_go};
use super::recover::{Found, Loss};
use crate::job::spec::FORMAT_VERSION;
use crate::job::trusted_dir::expect_firm;
use crate::job::{JobId, Spec};

/// Workers that are attached, at most: one, and at its restart another; and who looks around (`jobworker doctor`).
const MAX_ATTACHED: usize = 32;

/// Connections that are accepted at a time: the queue of a listener (listen(2), std's 128).
const MAX_ACCEPTED: usize = 128;

/// How long nobody is accepted after that has failed: out of descriptors or memory, poll(2) would return at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What becomes of this process.
pub(super) enum Fate {
    /// It is no longer needed.
    End,
    /// It is a child now, to be the shim of whichever job comes next.
    Spare { orders: Receiver },
    /// It is a child now, to be the shim of this job.
    Shim { connection: UnixStream, spec: Box<Spec> },
    /// It is a child now, to clear up after a shim that died.
    Recoverer { loss: Box<Loss> },
    /// It is a child now, to remove this job.
    Remover { connection: UnixStream, job: JobId },
}

/// What the spawner holds open.
pub(super) struct Server {
    path: PathBuf,
    /// Locked for as long as this process lives: the socket is its own, to make and to remove.
    _lock: File,
    listener: UnixListener,
    signals: SignalFd,
    /// When to accept again, after that has failed.
    accept_at: Option<Instant>,
    pending: AllPending,
    attached: Vec<Attachment>,
    complaints: Complaints,
    children: Children,
    idle_since: Option<Instant>,
    exit_when_idle: bool,
    /// A job is likely to be asked for, and nobody is ready for it.
    wants_spare: bool,
}

/// A worker that is attached.
struct Attachment {
    connection: UnixStream,
    /// Its process.
    peer: i32,
}

impl Server {
    pub(super) fn bind(path: &Path, host: &Host, exit_when_idle: bool) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        expect_firm(folder, host.worker)?;
        let lock = lock(path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener?;
        listener.set_nonblocking(true)?;
        if let Some((uid, gid)) = host.worker {
            let (uid, gid) =
                (rustix::fs::Uid::from_raw(uid.as_raw()), rustix::fs::Gid::from_raw(gid.as_raw()));
            chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let mut told = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
            told.add(signal);
        }
        told.thread_block()?;
        let signals = SignalFd::with_flags(&told, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            listener,
            signals,
            accept_at: None,
            pending: AllPending::default(),
            attached: Vec::new(),
            complaints: Complaints::default(),
            children: Children::default(),
            idle_since: Some(Instant::now()),
            exit_when_idle,
            wants_spare: false,
        })
    }

    pub(super) fn remove_socket(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "can't remove the socket");
        }
    }

    /// Takes over what an earlier spawner left.
    pub(super) fn adopt(&mut self, found: Found) {
        self.children.adopt(found);
    }

    /// Until there is another fate for this process.
    pub(super) fn serve(&mut self, host: &Host) -> io::Result<Fate> {
        loop {
            self.wait();
            if self.is_asked_to_end()? {
                tracing::info!("asked to end; jobs go on under their shims");
                return Ok(Fate::End);
            }
            self.children.collect();
            if let Some(loss) = self.children.fork_recoverers(fork_or_tell) {
                return Ok(Fate::Recoverer { loss: Box::new(loss) });
            }
            self.accept(host);
            self.forget_gone_workers();
            if let Some(fate) = self.read_requests(host) {
                return Ok(fate);
            }
            if let Some(orders) = self.fork_spare() {
                return Ok(Fate::Spare { orders });
            }
            if self.exit_when_idle && self.is_idle() {
                tracing::info!("no worker is attached and no job runs: the spawner ends");
                return Ok(Fate::End);
            }
        }
    }

    fn wait(&self) {
        let listener = self.accept_at.is_none().then(|| self.listener.as_fd());
        let fds = [self.signals.as_fd()].into_iter().chain(listener);
        let attached = self.attached.iter().map(|attached| &attached.connection);
        let connections = self.pending.connections().chain(attached);
        let all = fds.chain(connections.map(AsFd::as_fd)).chain(self.children.fds());
        let mut fds: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let moments = [self.pending.until(), self.idle_until(), self.children.due_at(), self.accept_at];
        let until = moments.into_iter().flatten().min();
        let timeout = until.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        // Whoever is ready is found by asking each; an interrupted poll has found nobody.
        let _ = poll(&mut fds, timeout);
    }

    /// A worker that starts its own spawner attaches at once; one that never does is gone.
    fn idle_until(&self) -> Option<Instant> {
        let waiting = self.exit_when_idle && self.attached.is_empty() && self.children.is_empty();
        self.idle_since.filter(|_| waiting).map(|since| since + PATIENCE)
    }

    fn is_idle(&self) -> bool {
        let nobody = self.attached.is_empty() && self.children.is_empty() && self.pending.is_empty();
        nobody && self.idle_since.is_none_or(|since| since.elapsed() >= PATIENCE)
    }

    /// Takes note of all signals. Who has ended is found by asking.
    fn is_asked_to_end(&mut self) -> io::Result<bool> {
        let mut asked = false;
        while let Some(signal) = self.signals.read_signal()? {
            asked |= signal.ssi_signo != Signal::SIGCHLD as u32;
        }
        Ok(asked)
    }

    fn accept(&mut self, host: &Host) {
        if self.accept_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.accept_at = None;
        // As many as the listener's queue holds: who connects without end does not keep the loop from its other work.
        for _ in 0..MAX_ACCEPTED {
            let connection = match self.listener.accept() {
                Ok((connection, _)) => connection,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Whoever it was has gone again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    self.complaints.tell(&format!("can't accept a connection, and wait a moment: {error}"));
                    self.accept_at = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            };
            match getsockopt(&connection, PeerCredentials) {
                Ok(peer)
                    if host.admits(Uid::from_raw(peer.uid())) && connection.set_nonblocking(true).is_ok() =>
                {
                    self.pending.add(connection, peer.pid());
                }
                Ok(peer) => {
                    let what = "refused a connection of uid";
                    self.complaints.tell(&format!("{what} {}, which is not the worker's", peer.uid()));
                }
                Err(errno) => self.complaints.tell(&format!("can't tell whose a connection is: {errno}")),
            }
        }
    }

    /// A worker says nothing after it has attached: whatever can be read is its end.
    fn forget_gone_workers(&mut self) {
        let before = self.attached.len();
        self.attached.retain_mut(|worker| {
            let read = worker.connection.read(&mut [0; 64]);
            read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        });
        if self.attached.len() < before {
            tracing::info!(left = self.attached.len(), "a worker is gone");
        }
    }

    /// Tried once for each request that took one, so that spares that die are not forked for ever. Returns what a child
    /// waits for, and in the spawner `None`.
    fn fork_spare(&mut self) -> Option<Receiver> {
        if !std::mem::take(&mut self.wants_spare) || self.children.has_spare() {
            return None;
        }
        let (sender, receiver) =
            pair().inspect_err(|error| tracing::warn!(%error, "can't make a socket")).ok()?;
        match fork_or_tell().ok()? {
            ForkResult::Child => Some(receiver),
            ForkResult::Parent { child } => {
                self.children.keep_spare(child, sender);
                None
            }
        }
    }

    /// Returns when the spare has cleared up, or takes too long for that.
    pub(super) fn dismiss_spare(&mut self) {
        self.children.dismiss_spare();
    }

    /// Answers or forks for each request that has arrived.
    fn read_requests(&mut self, host: &Host) -> Option<Fate> {
        for (pending, request) in self.pending.read() {
            match request {
                Request::Attach => self.attach(pending, host),
                Request::Start(spec) => {
                    let job = spec.id;
                    self.wants_spare = true;
                    if self.children.hand_over(&pending, job) {
                        continue;
                    }
                    match fork_or_tell() {
                        Ok(ForkResult::Child) => return shim(pending.connection, spec),
                        Ok(ForkResult::Parent { child }) => self.children.watch(child, job),
                        // The worker sees the connection close.
                        Err(_) => {}
                    }
                }
                Request::Remove(job) => {
                    if let Ok(ForkResult::Child) = fork_or_tell() {
                        return Some(Fate::Remover { connection: pending.connection, job });
                    }
                }
            }
        }
        None
    }

    fn attach(&mut self, Pending { mut connection, peer, .. }: Pending, host: &Host) {
        let attached = Attached {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            format: FORMAT_VERSION,
            base: host.base.as_ref().map(|base| base.path().to_owned()),
            unavailable: host.base.as_ref().map(|base| base.unavailable().clone()).unwrap_or_default(),
        };
        let mut line = serde_json::to_vec(&attached).expect("plain data");
        line.push(b'\n');
        match connection.write_all(&line) {
            Ok(()) => {
                self.idle_since = None;
                self.wants_spare = true;
                self.attached.push(Attachment { connection, peer });
                self.stay_within_attached();
            }
            Err(error) => tracing::warn!(%error, "can't answer the worker"),
        }
    }
}

impl Server {
    /// One too many, and one goes: of the process that has most, the oldest. A worker that is still there attaches anew.
    fn stay_within_attached(&mut self) {
        if self.attached.len() > MAX_ATTACHED
            && let Some(place) = first_to_go(self.attached.iter().map(|attached| attached.peer))
        {
            let Attachment { peer, .. } = self.attached.remove(place);
            let what = "workers are attached, one too many: the oldest of process";
            self.complaints.tell(&format!("{} {what} {peer} goes", MAX_ATTACHED + 1));
        }
    }
}

fn fork_or_tell() -> nix::Result<ForkResult> {
    fork().inspect_err(|error| tracing::error!(%error, "can't fork"))
}

/// The shim's own connection; it may wait on it.
fn shim(connection: UnixStream, spec: Box<Spec>) -> Option<Fate> {
    match connection.set_nonblocking(false) {
        Ok(()) => Some(Fate::Shim { connection, spec }),
        Err(_) => Some(Fate::End),
    }
}
