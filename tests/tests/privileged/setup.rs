//! A worker with a subtree of its own, and whose turn it is.

use std::sync::Arc;

use jobworker_tests::{Pki, Subtree, Worker};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Held shared by every test; whole by those that measure time, which nothing may run beside.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// A test's place on the machine.
pub(crate) enum Turn {
    /// Beside others.
    Shared(#[expect(dead_code, reason = "held, never read")] RwLockReadGuard<'static, ()>),
    /// With nothing beside it.
    Alone(#[expect(dead_code, reason = "held, never read")] RwLockWriteGuard<'static, ()>),
}

impl Turn {
    pub(crate) async fn shared() -> Self {
        Self::Shared(MACHINE.read().await)
    }

    pub(crate) async fn alone() -> Self {
        Self::Alone(MACHINE.write().await)
    }
}

/// A worker that runs as root and starts its own spawner. Dropped in this order.
pub(crate) struct Setup {
    pub(crate) worker: Worker,
    pub(crate) subtree: Subtree,
    _turn: Turn,
}

impl Setup {
    /// With everything at its default.
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With more flags for the worker.
    pub(crate) async fn with(args: &[&str]) -> Self {
        Self::build(Turn::shared().await, Subtree::new(), args)
    }

    /// With certificates made before.
    pub(crate) async fn with_pki(pki: &Arc<Pki>, args: &[&str]) -> Self {
        let (turn, subtree) = (Turn::shared().await, Subtree::new());
        let worker = Worker::builder().pki(pki).cgroup(&subtree.path()).args(args).start();
        Self { worker, subtree, _turn: turn }
    }

    /// With a worker, and with it a spawner, that another command becomes.
    pub(crate) async fn behind(command: &[&str], args: &[&str]) -> Self {
        let (turn, subtree) = (Turn::shared().await, Subtree::new());
        let worker = Worker::builder().behind(command).cgroup(&subtree.path()).args(args).start();
        Self { worker, subtree, _turn: turn }
    }

    /// For a measurement.
    pub(crate) async fn alone() -> Self {
        Self::build(Turn::alone().await, Subtree::new(), &[])
    }

    /// In a subtree that is not as it should be.
    pub(crate) async fn in_subtree(subtree: Subtree) -> Self {
        Self::build(Turn::shared().await, subtree, &[])
    }

    fn build(turn: Turn, subtree: Subtree, args: &[&str]) -> Self {
        let worker = Worker::builder().cgroup(&subtree.path()).args(args).start();
        Self { worker, subtree, _turn: turn }
    }

    /// Puts another worker in the place of the one that ran, which is killed if it still does.
    pub(crate) fn replace_worker(&mut self) {
        let (state, pki) = (Arc::clone(self.worker.state()), Arc::clone(&self.worker.pki));
        self.worker = Worker::builder().pki(&pki).state(&state).cgroup(&self.subtree.path()).start();
    }
}
