//! Whom the spawner watches over: the shims that it forked, those that an earlier spawner left, and the recoverers that
//! clear up after either.
//!
//! ```text
//!  shim ────── ended badly ──▶ loss ──fork──▶ recoverer ── ended well ──▶ forgotten
//!  orphan ──── ended ───────▶   ▲                │
//!  scan ───── not done ─────▶   └──── killed ────┘       a fork that fails, and a recoverer that is killed:
//!                                                        again after RETRY
//! ```

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{ForkResult, Pid};
use rustix::process::{WaitOptions, WaitStatus};

use super::handover::Sender;
use super::pending::Pending;
use super::recover::{Found, Loss, Orphan, RETRY};
use crate::job::JobId;

/// How long a spare may take to end, in milliseconds. It has a handful of empty files to remove.
const PATIENCE_MSEC: u16 = 1000;

/// How many recoverers run at a time. Most need milliseconds; those that can't get on wait for the same disk.
const MAX_RECOVERERS: usize = 64;

/// A shim that waits for its job.
struct Spare {
    pid: Pid,
    orders: Sender,
}

/// The spawner's own, and those left to it.
#[derive(Default)]
pub(super) struct Children {
    shims: HashMap<i32, JobId>,
    spare: Option<Spare>,
    /// Not our children, so no SIGCHLD tells of their end.
    orphans: Vec<Orphan>,
    recoverers: HashMap<i32, Loss>,
    /// What no recoverer is at work on, and when to start one.
    losses: Vec<(Instant, Loss)>,
}

impl Children {
    /// Takes over what a scan has found.
    pub(super) fn adopt(&mut self, found: Found) {
        self.orphans.extend(found.orphans);
        let now = Instant::now();
        self.losses.extend(found.losses.into_iter().map(|loss| (now, loss)));
    }

    /// A shim that has just been forked.
    pub(super) fn watch(&mut self, shim: Pid, job: JobId) {
        self.shims.insert(shim.as_raw(), job);
    }

    /// A spare that has just been forked.
    pub(super) fn keep_spare(&mut self, pid: Pid, orders: Sender) {
        self.spare = Some(Spare { pid, orders });
    }

    pub(super) fn has_spare(&self) -> bool {
        self.spare.is_some()
    }

    /// Makes the spare this job's shim. False where there is none, or it can't take the request.
    pub(super) fn hand_over(&mut self, pending: &Pending, job: JobId) -> bool {
        let Some(spare) = &self.spare else { return false };
        if let Err(error) = spare.orders.send(&pending.connection, pending.line()) {
            tracing::debug!(%error, %job, "a shim is forked for a job: the spare can't take it");
            return false;
        }
        let pid = spare.pid;
        self.spare = None;
        self.watch(pid, job);
        true
    }

    /// Ends the spare, and waits a moment for that: it clears up after itself.
    pub(super) fn dismiss_spare(&mut self) {
        let Some(Spare { pid, orders }) = self.spare.take() else { return };
        let pidfd = rustix::process::Pid::from_raw(pid.as_raw())
            .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
        drop(orders);
        if let Some(pidfd) = pidfd {
            // However that went, the spawner ends now.
            let _ =
                poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE_MSEC));
        }
    }

    /// Whether nobody is left to watch over, and nothing to be done. A spare needs nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.shims.is_empty()
            && self.orphans.is_empty()
            && self.recoverers.is_empty()
            && self.losses.is_empty()
    }

    /// What becomes readable when somebody ends; SIGCHLD tells of the others.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.orphans.iter().map(|orphan| orphan.pidfd.as_fd())
    }

    /// When the next recoverer is to be started. None waits for the end of another.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let has_room = self.recoverers.len() < MAX_RECOVERERS;
        self.losses.iter().map(|(at, _)| *at).min().filter(|_| has_room)
    }

    /// Finds out who has ended.
    pub(super) fn collect(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let is_well = status.exit_status() == Some(0);
            if let Some(job) = self.shims.remove(&pid.as_raw_pid()) {
                if !is_well {
                    self.lose(job, pid.as_raw_pid(), status);
                }
            } else if self.spare.as_ref().is_some_and(|spare| spare.pid.as_raw() == pid.as_raw_pid()) {
                self.spare = None;
                if !is_well {
                    tracing::warn!(spare = pid.as_raw_pid(), "a spare shim {}", how(status));
                    self.losses.push((Instant::now(), Loss::of_unborn(pid.as_raw_pid())));
                }
            } else if let Some(loss) = self.recoverers.remove(&pid.as_raw_pid())
                && !is_well
            {
                tracing::warn!(recoverer = pid.as_raw_pid(), "a recoverer {}; another follows", how(status));
                self.losses.push((Instant::now() + RETRY, loss));
            }
        }
        let ended: Vec<Orphan> =
            self.orphans.extract_if(.., |orphan| is_readable(orphan.pidfd.as_fd())).collect();
        for Orphan { job, .. } in ended {
            // Whether the job ended well is seen by its recoverer, which finds the outcome then.
            let reason = "its shim, left by an earlier spawner, was killed".to_owned();
            self.losses.push((Instant::now(), Loss::of(job, reason)));
        }
    }

    fn lose(&mut self, job: JobId, shim: i32, status: WaitStatus) {
        let how = how(status);
        tracing::error!(%job, shim, "the job's shim {how}");
        let now = Instant::now();
        self.losses.push((now, Loss::of(job, format!("its shim (pid {shim}) {how}"))));
        // It may not have got as far as the job's own folder.
        self.losses.push((now, Loss::of_unborn(shim)));
    }

    /// Forks recoverers for the losses that are due. Returns what to clear up in each of them, and in the spawner
    /// `None`.
    pub(super) fn fork_recoverers(
        &mut self,
        mut fork: impl FnMut() -> nix::Result<ForkResult>,
    ) -> Option<Loss> {
        let now = Instant::now();
        while self.recoverers.len() < MAX_RECOVERERS
            && let Some(next) = self.losses.iter().position(|(at, _)| *at <= now)
        {
            let (_, loss) = self.losses.swap_remove(next);
            match fork() {
                Ok(ForkResult::Child) => return Some(loss),
                Ok(ForkResult::Parent { child }) => {
                    self.recoverers.insert(child.as_raw(), loss);
                }
                Err(_told) => self.losses.push((now + RETRY, loss)),
            }
        }
        None
    }
}

fn how(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    /// A pid that no process has: beyond the kernel's largest, 4194304.
    const CHILD: ForkResult = ForkResult::Parent { child: Pid::from_raw(5_000_000) };

    fn with_a_loss() -> Children {
        let mut children = Children::default();
        let losses = vec![Loss::of(JobId::random(), "its shim died".to_owned())];
        children.adopt(Found { losses, ..Found::default() });
        children
    }

    #[test]
    fn a_loss_is_given_to_one_recoverer() {
        let mut children = with_a_loss();
        assert!(children.due_at().unwrap() <= Instant::now());
        let mut forks = 0;
        let mut fork = || {
            forks += 1;
            Ok(CHILD)
        };
        assert!(children.fork_recoverers(&mut fork).is_none());
        assert!(children.fork_recoverers(&mut fork).is_none());
        assert_eq!(forks, 1);
        assert!(!children.is_empty() && children.due_at().is_none());
    }

    #[test]
    fn a_fork_that_fails_is_tried_again_with_a_deadline() {
        let mut children = with_a_loss();
        assert!(children.fork_recoverers(|| Err(Errno::EAGAIN)).is_none());
        let at = children.due_at().expect("it is not forgotten");
        assert!(at > Instant::now() && at <= Instant::now() + RETRY);
        assert!(children.fork_recoverers(|| unreachable!("it is not due")).is_none());
        children.losses[0].0 = Instant::now();
        assert!(children.fork_recoverers(|| Ok(ForkResult::Child)).is_some());
    }

    #[test]
    fn not_more_recoverers_run_than_the_host_can_bear() {
        let mut children = Children::default();
        let loss = || Loss::of(JobId::random(), "its shim died".to_owned());
        let losses = (0..MAX_RECOVERERS + 1).map(|_| loss()).collect();
        children.adopt(Found { losses, ..Found::default() });
        let mut pid = 5_000_000;
        let fork = || {
            pid += 1;
            Ok(ForkResult::Parent { child: Pid::from_raw(pid) })
        };
        assert!(children.fork_recoverers(fork).is_none());
        assert_eq!((children.recoverers.len(), children.losses.len()), (MAX_RECOVERERS, 1));
        assert_eq!(children.due_at(), None, "the spawner sleeps until one of them ends");
    }
}
