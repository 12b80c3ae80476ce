//! The certificates, keys and lists in force, and their files: read again on SIGHUP and when one changes.
//!
//! A new set takes the old one's place at once and whole: handshakes go on by whichever they began with, and everybody who
//! is connected is verified by the new one. Files that can't be used change nothing, and one line of the log says why;
//! not at once, because a certificate and its key are two files, which change one after the other.
//!
//! The same task has the clock: it verifies again whoever has come to the end of a certificate, all when a list has, and
//! says in the log what of the worker's own ends soon.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::Files;
use super::chains::{Chain, Chains, verify_again};
use super::clock::{Clock, unix_sec};
use super::expiry::{Expiry, Urgency};
use super::set::Set;
use crate::job::engine::blocking;
use crate::metrics::{Metrics, Reloaded};
use crate::tasks::Tasks;
use crate::watched::{SETTLE, Watched};

/// How long files may fail to fit together until that is told as an error.
const PATIENCE: Duration = Duration::from_secs(1);

/// The set in force, for those who shake hands by it. Clones are the same one.
#[derive(Clone)]
pub struct InForce {
    chains: Arc<Chains>,
    others: Arc<[Expiry]>,
}

/// What a handshake goes by, from its beginning to its end.
pub(super) struct Handshake {
    chains: Arc<Chains>,
    set: Arc<Set>,
    /// In which second of the Unix epoch it began.
    began: i64,
}

impl std::fmt::Debug for InForce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("InForce").field(&self.expiries()).finish()
    }
}

impl InForce {
    /// What of the files in force, and of the others that the log tells of, ends when.
    pub fn expiries(&self) -> Vec<Expiry> {
        self.chains.set().expiries.iter().chain(&*self.others).cloned().collect()
    }

    /// For one handshake.
    pub(super) fn handshake(&self) -> Handshake {
        let began = unix_sec(SystemTime::now());
        Handshake { chains: Arc::clone(&self.chains), set: self.chains.set(), began }
    }
}

impl Handshake {
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.set.config)
    }

    /// It has gone well: from now on the client's chain is kept an eye on. It may be cut off already, by a set that has
    /// come into force meanwhile.
    pub(super) fn enter(&self, certificates: &[CertificateDer<'_>], name: &str) -> Chain {
        self.chains.enter(certificates, name, &self.set, self.began)
    }
}

/// Brings the files into force, and keeps to them. The log tells of the ends of `others`, too, which stay what they are.
/// Within a tokio runtime only.
///
/// # Errors
/// When a file can't be used; or the files' folders, SIGHUP or the clock can't be listened for.
pub fn load(files: &Files, others: Vec<Expiry>, metrics: Metrics, tasks: &Tasks) -> anyhow::Result<InForce> {
    let mut hangups = signal(SignalKind::hangup()).context("can't listen for SIGHUP")?;
    let clock = Clock::new().context("can't have a timer for the ends of certificates")?;
    // Watched before they are read: what comes in between is not missed.
    let paths = [&files.ca, &files.cert, &files.key].into_iter().chain(&files.crl);
    let watched = Watched::new("certificates, key and lists", paths.cloned().collect())?;
    let set = Arc::new(Set::read(files)?);
    let chains = Chains::new(Arc::clone(&set));
    let in_force = InForce { chains: Arc::clone(&chains), others: others.into() };
    let others = Arc::clone(&in_force.others);
    let mut keeper = Keeper::new(files.clone(), chains, set, others, metrics);
    keeper.tell_of_set();
    tasks.spawn("reload of certificates", async move {
        loop {
            let (moment, retry) = (keeper.next_moment(), keeper.reading.retry);
            let retried = async {
                match retry {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = watched.changed() => {
                    sleep(SETTLE).await;
                    watched.look_again();
                    keeper.read_again(false).await;
                }
                hangup = hangups.recv() => {
                    watched.look_again();
                    keeper.read_again(hangup.is_some()).await;
                }
                () = retried => keeper.read_again(false).await,
                reached = clock.reaches(moment) => keeper.look_at_clock(reached).await,
                () = keeper.chains.sooner.notified() => {}
            }
        }
    });
    Ok(in_force)
}

struct Keeper {
    files: Files,
    chains: Arc<Chains>,
    set: Arc<Set>,
    /// What ends and is not of the set.
    others: Arc<[Expiry]>,
    metrics: Metrics,
    reading: Reading,
    /// How urgent the ends of the set and of the others were when the log was told of them last; in their order.
    told: Vec<Urgency>,
    /// Up to when the clock was looked at, in seconds since the Unix epoch.
    looked_at: i64,
}

/// How reading the files goes.
#[derive(Default)]
struct Reading {
    /// Somebody waits for a line of the log.
    is_asked: bool,
    /// When to read them again though nothing changes: they did not fit together.
    retry: Option<Instant>,
    /// What the log says is wrong with them.
    complaint: Option<String>,
}

impl Keeper {
    fn new(
        files: Files,
        chains: Arc<Chains>,
        set: Arc<Set>,
        others: Arc<[Expiry]>,
        metrics: Metrics,
    ) -> Self {
        let looked_at = unix_sec(SystemTime::now());
        Self { files, chains, set, others, metrics, reading: Reading::default(), told: Vec::new(), looked_at }
    }

    fn expiries(&self) -> impl Iterator<Item = &Expiry> {
        self.set.expiries.iter().chain(&*self.others)
    }

    async fn read_again(&mut self, is_asked: bool) {
        self.reading.is_asked |= is_asked;
        let (files, before) = (self.files.clone(), Arc::clone(&self.set));
        match blocking(move || before.read_again(&files)).await {
            Ok(set) if set.digest == self.set.digest && !self.reading.is_asked => {
                if std::mem::take(&mut self.reading).complaint.is_some() {
                    tracing::info!("the files of certificates, key and lists are as they were");
                    self.metrics.reloaded(Reloaded::Certificates, true);
                }
            }
            Ok(set) => {
                self.reading = Reading::default();
                self.bring_into_force(set).await;
            }
            Err(error) => {
                let complaint = error.to_string();
                let has_to_tell = self.reading.has_to_tell(&complaint, Instant::now());
                if self.reading.complaint.is_some() {
                    self.metrics.reloaded(Reloaded::Certificates, false);
                }
                if has_to_tell {
                    tracing::error!(
                        "{complaint}; the certificates, key and lists that were read before stay in force"
                    );
                }
            }
        }
    }

    async fn bring_into_force(&mut self, set: Set) {
        self.set = Arc::new(set);
        // What comes to its end while all are verified is the clock's.
        self.looked_at = unix_sec(SystemTime::now());
        let chains = self.chains.bring_into_force(Arc::clone(&self.set));
        self.verify(chains).await;
        // Not before it is true, of those who are connected, too.
        tracing::info!("certificates, key and lists read again; they are in force now");
        self.metrics.reloaded(Reloaded::Certificates, true);
        self.tell_of_set();
    }

    async fn verify(&self, chains: Vec<Chain>) {
        if chains.is_empty() {
            return;
        }
        let set = Arc::clone(&self.set);
        for cut in blocking(move || verify_again(chains, &set)).await {
            tracing::warn!(client = cut.name, "cut off: {cut}");
        }
    }

    async fn look_at_clock(&mut self, reached: io::Result<()>) {
        if let Err(error) = reached {
            tracing::error!(%error, "the timer for the ends of certificates failed");
            sleep(PATIENCE).await;
        }
        let now = unix_sec(SystemTime::now());
        let has_list_ended = self.set.list_ends().any(|end| (self.looked_at + 1..=now).contains(&end));
        self.looked_at = now;
        let due = self.chains.take_due(now);
        self.verify(if has_list_ended { self.chains.all() } else { due }).await;
        self.tell_of_ends(now);
    }

    /// When to look at the clock: a client's certificate, a list or one of the worker's own comes to an end, or near it.
    fn next_moment(&self) -> Option<i64> {
        let ends = self.expiries().map(|expiry| expiry.not_after_unix_sec);
        let own = ends.filter_map(|end| Urgency::next(end, self.looked_at));
        own.chain(self.chains.next_due()).min()
    }

    /// What there is to say of files that were read just now.
    fn tell_of_set(&mut self) {
        for warning in self.set.warnings.iter().chain(&self.set.open_key) {
            tracing::warn!("{warning}");
        }
        self.told = vec![Urgency::None; self.expiries().count()];
        self.tell_of_ends(self.looked_at);
    }

    fn tell_of_ends(&mut self, now: i64) {
        for (expiry, told) in self.set.expiries.iter().chain(&*self.others).zip(&mut self.told) {
            let urgency = Urgency::of(expiry.not_after_unix_sec, now);
            if urgency > *told {
                tracing::warn!("{}", expiry.words(now));
                *told = urgency;
            }
        }
    }
}

impl Reading {
    /// They can't be used at `now`: whether the log is to say so. It is if that does not pass, and once, however often they
    /// are touched.
    fn has_to_tell(&mut self, complaint: &str, now: Instant) -> bool {
        let retry = *self.retry.get_or_insert(now + PATIENCE);
        if now < retry {
            return false;
        }
        let is_news = self.is_asked || self.complaint.as_deref() != Some(complaint);
        *self = Self { complaint: Some(complaint.to_owned()), ..Self::default() };
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_if_it_does_not_pass_and_once() {
        let (mut reading, began) = (Reading::default(), Instant::now());
        let at = |msec| began + Duration::from_millis(msec);
        assert!(!reading.has_to_tell("key", at(0)), "the other file may be on its way");
        assert!(!reading.has_to_tell("key", at(999)));
        assert_eq!(reading.retry, Some(at(1000)));
        assert!(reading.has_to_tell("key", at(1000)));
        assert_eq!(reading.retry, None, "until it changes");
        assert!(!reading.has_to_tell("key", at(5000)), "touched");
        assert!(!reading.has_to_tell("key", at(6000)), "the same is no news");
        assert!(!reading.has_to_tell("list", at(7000)));
        assert!(reading.has_to_tell("list", at(8000)), "another thing is");
        reading.is_asked = true;
        assert!(!reading.has_to_tell("list", at(9000)));
        assert!(reading.has_to_tell("list", at(10_000)), "somebody waits for a line");
        assert!(!reading.is_asked, "and has it");
    }
}
