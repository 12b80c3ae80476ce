//! What the slots, the followers and the injector share: where the worker is, which jobs live, and the figures.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::Options;
use super::disk::Moments;
use super::figures::Figures;
use super::inject::running_shim;
use super::random::Random;
use super::victim::Victim;
use crate::api::ErrorReason;
use crate::client::{self, Client};
use crate::pki::Pki;

/// How long a call may be tried, and a job may take to end once it should have: emulated machines are slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

/// Between two attempts of a client.
const RETRY: Duration = Duration::from_millis(50);

pub(super) struct World {
    pub(super) options: Options,
    pub(super) until: Instant,
    pub(super) ledgers: PathBuf,
    pub(super) actor: PathBuf,
    jobs_dir: PathBuf,
    address: SocketAddr,
    pki: Arc<Pki>,
    disk_full: Moments,
    /// The last time.
    spawner_killed: Mutex<Option<Instant>>,
    /// Held open, so that its inode stays its own.
    older: Option<File>,
    figures: Mutex<Figures>,
    jobs: Mutex<Jobs>,
}

/// The jobs by their ids.
#[derive(Default)]
struct Jobs {
    /// Started and not known to have ended, by slot.
    alive: BTreeMap<usize, String>,
    /// Whose shim was killed.
    shim_killed: BTreeSet<String>,
    /// All.
    started: BTreeSet<String>,
}

impl World {
    pub(super) fn new(options: Options, until: Instant, address: SocketAddr, victim: &Victim) -> Self {
        Self {
            options,
            until,
            ledgers: victim.ledgers(),
            actor: victim.actor(),
            jobs_dir: victim.jobs_dir(),
            address,
            pki: victim.pki(),
            disk_full: victim.disk_full(),
            spawner_killed: Mutex::default(),
            older: victim.older(),
            figures: Mutex::new(Figures::default()),
            jobs: Mutex::default(),
        }
    }

    pub(super) fn random(&self, purpose: &[u64]) -> Random {
        Random::new(self.options.seed, purpose)
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    pub(super) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().expect("no holder panics")
    }

    pub(super) fn take_figures(&self) -> Figures {
        std::mem::take(&mut self.figures())
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().expect("no holder panics")
    }

    pub(super) fn started(&self, slot: usize, job: &str) {
        let mut jobs = self.jobs();
        jobs.alive.insert(slot, job.to_owned());
        jobs.started.insert(job.to_owned());
        self.figures().jobs += 1;
    }

    pub(super) fn ended(&self, slot: usize) {
        self.jobs().alive.remove(&slot);
    }

    pub(super) fn alive(&self) -> Vec<String> {
        self.jobs().alive.values().cloned().collect()
    }

    pub(super) fn all_started(&self) -> BTreeSet<String> {
        self.jobs().started.clone()
    }

    pub(super) fn shim_is_killed(&self, job: &str) {
        self.jobs().shim_killed.insert(job.to_owned());
    }

    pub(super) fn was_shim_killed(&self, job: &str) -> bool {
        self.jobs().shim_killed.contains(job)
    }

    /// Whether a call was about a job whose shim was killed.
    fn is_shim_killed_of(&self, what: &str) -> bool {
        self.jobs().shim_killed.iter().any(|job| what.contains(job))
    }

    /// A connection of the admin's.
    pub(super) async fn connect(&self) -> Result<Client, Status> {
        let (ca, identity) = (self.pki.ca(), self.pki.identity("alice"));
        client::connect(&self.address.to_string(), &ca, Some(&identity), rustls::ALL_VERSIONS)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))
    }

    /// A unary call, again and again until it is answered. None when it never is, which is told.
    pub(super) async fn persist<T, F>(&self, what: &str, call: impl Fn(Client) -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let started = Instant::now();
        loop {
            let asked = Instant::now();
            let answer = match self.connect().await {
                Ok(client) => call(client).await,
                Err(status) => Err(status),
            };
            match answer {
                Ok(answer) => return Some(answer),
                Err(status) if self.is_final(what, asked, &status) => return None,
                Err(status) if started.elapsed() > PATIENCE => {
                    self.wrong_answer(&format!("{what}: still after {PATIENCE:?}: {status}"));
                    return None;
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    pub(super) fn spawner_is_killed(&self) {
        *self.spawner_killed.lock().expect("no holder panics") = Some(Instant::now());
    }

    fn was_spawner_killed_since(&self, then: Instant) -> bool {
        self.spawner_killed.lock().expect("no holder panics").is_some_and(|killed| killed >= then)
    }

    pub(super) fn was_disk_full_since(&self, then: Instant) -> bool {
        self.disk_full.any_since(then)
    }

    /// Counts a job that was started, by the build of its shim.
    pub(super) fn count_build(&self, job: &str) {
        let Some(is_older) = self.is_of_older_build(job) else { return };
        let mut figures = self.figures();
        figures.jobs_by_build.get_or_insert_default()[usize::from(!is_older)] += 1;
    }

    /// Counts the jobs of the older build that live, and will be told of by the present one.
    pub(super) fn count_at_switch(&self) {
        let older = self.alive().iter().filter(|job| self.is_of_older_build(job) == Some(true)).count();
        self.figures().jobs_at_switch = Some(older as u64);
    }

    /// None where there is no older build, and when the shim is gone already.
    fn is_of_older_build(&self, job: &str) -> Option<bool> {
        let older = self.older.as_ref()?.metadata().ok()?;
        let shim = running_shim(&self.jobs_dir.join(job))?;
        let program = fs::metadata(format!("/proc/{shim}/exe")).ok()?;
        Some((program.dev(), program.ino()) == (older.dev(), older.ino()))
    }

    /// Whether there is no sense in asking again. Counts what no fault explains. `since`: when the call was made, at the
    /// earliest.
    pub(super) fn is_final(&self, what: &str, since: Instant, status: &Status) -> bool {
        let details = status.get_error_details();
        let Some(info) = details.error_info().filter(|info| info.domain == "jobworker") else {
            // Not the worker's words: the connection's.
            return false;
        };
        match ErrorReason::from_str_name(&info.reason) {
            Some(ErrorReason::ShuttingDown) => false,
            // Nobody has recorded that it is lost yet; until then nobody can be asked to end it.
            Some(ErrorReason::JobNotRunning) if self.is_shim_killed_of(what) => false,
            Some(ErrorReason::Internal) if self.is_for_want_of_space(since, status) => {
                self.figures().refused_starts += 1;
                false
            }
            // It was killed before it could answer.
            Some(ErrorReason::SpawnerUnavailable) if status.message().contains("gave no answer") => false,
            // The worker looks for another, but not for ever: it was killed again meanwhile.
            Some(ErrorReason::SpawnerUnavailable) if self.was_spawner_killed_since(since) => false,
            Some(ErrorReason::JobNotFound) => {
                self.figures().failures.lost_jobs += 1;
                self.figures().note(format!("{what}: {}", status.message()));
                true
            }
            _ => {
                self.wrong_answer(&format!("{what}: {status}"));
                status.code() != Code::Unavailable
            }
        }
    }

    /// The disk is named, and it was full.
    fn is_for_want_of_space(&self, since: Instant, status: &Status) -> bool {
        let words = status.message();
        status.code() == Code::ResourceExhausted
            && words.contains("state folder")
            && words.contains("No space left on device")
            && self.was_disk_full_since(since)
    }

    pub(super) fn wrong_answer(&self, words: &str) {
        let mut figures = self.figures();
        figures.failures.wrong_answers += 1;
        figures.note(words.to_owned());
    }
}
