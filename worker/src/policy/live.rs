//! The policy in force, and its file: read again on SIGHUP and when it changes.
//!
//! A new policy takes the old one's place at once and whole: who holds the old one decides by it, the next call by the
//! new one. A file that can't be read or is not right changes nothing, and one line of the log says why.
//!
//! How a change shows is `crate::watched`'s.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::{Policy, PolicyError, text_of};
use crate::job::engine::blocking;
use crate::metrics::{Metrics, Reloaded};
use crate::tasks::Tasks;
use crate::watched::{SETTLE, Watched};

/// The policy in force, for those who decide by it. Clones are the same one, and each is told of the next.
#[derive(Clone, Debug)]
pub struct InForce(watch::Receiver<Arc<Policy>>);

impl InForce {
    /// A policy that never changes.
    pub fn fixed(policy: Policy) -> Self {
        Self(watch::channel(Arc::new(policy)).1)
    }

    /// The policy as of now. Later ones are news to [`Self::next`].
    pub fn now(&mut self) -> Arc<Policy> {
        Arc::clone(&self.0.borrow_and_update())
    }

    /// The next policy, when it comes into force.
    pub async fn next(&mut self) -> Arc<Policy> {
        if self.0.changed().await.is_err() {
            // Nobody is left who could change it.
            std::future::pending::<()>().await;
        }
        self.now()
    }
}

/// Brings a policy into force, and keeps to its file. Within a tokio runtime only.
///
/// # Errors
/// When the file can't be read or is not right; or its folder or SIGHUP can't be listened for.
pub fn load(path: Option<&Path>, metrics: Metrics, tasks: &Tasks) -> anyhow::Result<InForce> {
    let mut hangups = signal(SignalKind::hangup()).context("can't listen for SIGHUP")?;
    let Some(path) = path else {
        tasks.spawn("reload of the policy", async move {
            while hangups.recv().await.is_some() {
                tracing::info!("SIGHUP: there is no --policy to read again; the built-in one stays in force");
            }
        });
        return Ok(InForce::fixed(Policy::built_in()));
    };
    // Watched before it is read: what comes in between is not missed.
    let watched = Watched::new("the policy", vec![path.to_owned()])?;
    let text = text_of(path)?;
    let policy = Policy::parse(&path.display().to_string(), &text)?;
    tracing::info!(policy = %path.display(), "policy read");
    warn_of(&policy, path);
    let (sender, receiver) = watch::channel(Arc::new(policy));
    let keeper = Keeper { path: path.to_owned(), sender, text, complaint: None, metrics };
    tasks.spawn("reload of the policy", keep(keeper, watched, hangups));
    Ok(InForce(receiver))
}

fn warn_of(policy: &Policy, path: &Path) {
    for warning in policy.warnings_of_file(path) {
        tracing::warn!("policy: {warning}");
    }
}

struct Keeper {
    path: PathBuf,
    sender: watch::Sender<Arc<Policy>>,
    /// As it was when it was read last.
    text: String,
    /// What was wrong with it then.
    complaint: Option<String>,
    metrics: Metrics,
}

async fn keep(mut keeper: Keeper, watched: Watched, mut hangups: Signal) {
    loop {
        let asked = tokio::select! {
            () = watched.changed() => false,
            hangup = hangups.recv() => hangup.is_some(),
        };
        if !asked {
            tokio::time::sleep(SETTLE).await;
        }
        watched.look_again();
        keeper = blocking(move || keeper.read_again(asked)).await;
    }
}

impl Keeper {
    /// `asked`: somebody waits for a line of the log.
    fn read_again(mut self, asked: bool) -> Self {
        match text_of(&self.path) {
            Ok(text) if text == self.text && self.complaint.is_none() && !asked => return self,
            Ok(text) => match Policy::parse(&self.path.display().to_string(), &text) {
                Ok(policy) => {
                    let policy = Arc::new(policy);
                    self.sender.send_replace(Arc::clone(&policy));
                    (self.text, self.complaint) = (text, None);
                    self.metrics.reloaded(Reloaded::Policy, true);
                    // Not before it is true.
                    tracing::info!(policy = %self.path.display(), "policy read again; it is in force now");
                    warn_of(&policy, &self.path);
                }
                Err(error) => self.complain(error, asked),
            },
            Err(error) => self.complain(error, asked),
        }
        self
    }

    /// Once, however often the file is touched.
    fn complain(&mut self, error: PolicyError, asked: bool) {
        let complaint = format!("{:#}", anyhow::Error::from(error));
        if asked || self.complaint.as_ref() != Some(&complaint) {
            tracing::error!("{complaint}; the policy that was read before stays in force");
        }
        self.metrics.reloaded(Reloaded::Policy, false);
        self.complaint = Some(complaint);
    }
}
