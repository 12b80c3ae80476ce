//! The spawner's loop: connections, requests, children. It never waits for any one of them.

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
use nix::unistd::{ForkResult, Uid, chown};

use super::children::Children;
use super::fork::fork;
use super::handover::{Receiver, pair};
use super::host::Host;
use super::lock::lock;
use super::pending::Pending;
use super::protocol::{Attached, Request};
use super::recover::{Found, Loss};
use crate::job::spec::FORMAT_VERSION;
use crate::job::{JobId, Spec};

/// How long a request may take to arrive, and a first worker to attach.
const PATIENCE: Duration = Duration::from_secs(30);

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
    pending: Vec<Pending>,
    attached: Vec<UnixStream>,
    children: Children,
    idle_since: Option<Instant>,
    exit_when_idle: bool,
    /// A job is likely to be asked for, and nobody is ready for it.
    wants_spare: bool,
}

impl Server {
    pub(super) fn bind(path: &Path, host: &Host, exit_when_idle: bool) -> io::Result<Self> {
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
            chown(path, Some(uid), Some(gid))?;
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
            pending: Vec::new(),
            attached: Vec::new(),
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
        let fds = [self.listener.as_fd(), self.signals.as_fd()];
        let connections = self.pending.iter().map(|p| &p.connection).chain(&self.attached);
        let all = fds.into_iter().chain(connections.map(AsFd::as_fd)).chain(self.children.fds());
        let mut fds: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let requests = self.pending.iter().map(|p| p.until);
        let until = requests.chain(self.idle_until()).chain(self.children.due_at()).min();
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
        while let Ok((connection, _)) = self.listener.accept() {
            let peer = getsockopt(&connection, PeerCredentials).map(|peer| Uid::from_raw(peer.uid()));
            match peer {
                Ok(uid) if host.admits(uid) && connection.set_nonblocking(true).is_ok() => {
                    self.pending.push(Pending::new(connection, Instant::now() + PATIENCE));
                }
                peer => tracing::warn!(?peer, "refused a connection: not the worker"),
            }
        }
    }

    /// A worker says nothing after it has attached: whatever can be read is its end.
    fn forget_gone_workers(&mut self) {
        let before = self.attached.len();
        self.attached.retain_mut(|worker| {
            let read = worker.read(&mut [0; 64]);
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
        for mut pending in std::mem::take(&mut self.pending) {
            match pending.read() {
                Ok(None) => self.pending.push(pending),
                Ok(Some(Request::Attach)) => self.attach(pending.connection, host),
                Ok(Some(Request::Start(spec))) => {
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
                Ok(Some(Request::Remove(job))) => {
                    if let Ok(ForkResult::Child) = fork_or_tell() {
                        return Some(Fate::Remover { connection: pending.connection, job });
                    }
                }
                Err(error) => {
                    // It may quote what was sent, which has no end.
                    let error: String = error.to_string().chars().take(200).collect();
                    tracing::warn!(error, "dropped a connection");
                }
            }
        }
        None
    }

    fn attach(&mut self, mut connection: UnixStream, host: &Host) {
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
                self.attached.push(connection);
            }
            Err(error) => tracing::warn!(%error, "can't answer the worker"),
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
