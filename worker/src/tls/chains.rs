//! The certificate chains of all connections, each once however many connections it has, with what is needed to verify it
//! again; and the set of files that they are verified by. What becomes of a chain is `cut`'s to say.
//!
//! A connection may be registered after another set has come into force than its handshake was done under: both are
//! compared under the one lock, so either the set's change finds the connection, or the connection the change.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::SystemTime;

use jobworker_certs::{ChainFault, Fault};
use rustls::Error;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::clock::unix_sec;
use super::cut::{CutOff, second_of};
use super::set::Set;
use crate::identity::certificate_not_after;

type Hash = [u8; 32];

/// A client's verified chain, in use on connections. Clones are the same one.
#[derive(Clone)]
pub struct Chain(Arc<Shared>);

struct Shared {
    hash: Hash,
    /// The leaf, then whatever the client has sent with it.
    certificates: Vec<CertificateDer<'static>>,
    /// Whose.
    name: String,
    /// When its first handshake was.
    verified_at: UnixTime,
    cut: OnceLock<CutOff>,
    /// Cancelled behind `cut`.
    told: CancellationToken,
    home: Weak<Chains>,
}

/// All of them, and the set in force.
pub(super) struct Chains {
    table: Mutex<Table>,
    /// The first moment to verify something again has become an earlier one.
    pub(super) sooner: Notify,
}

struct Table {
    set: Arc<Set>,
    chains: HashMap<Hash, Held>,
    /// When to verify which again, in seconds since the Unix epoch: the next end of a certificate in it.
    due: BTreeSet<(i64, Hash)>,
}

struct Held {
    chain: Weak<Shared>,
    due: Option<i64>,
}

impl Chain {
    /// Why its connections are cut off, if they are.
    pub(crate) fn cut(&self) -> Option<&CutOff> {
        self.0.cut.get()
    }

    /// Returns when its connections are cut off.
    pub(crate) async fn lost(&self) -> CutOff {
        loop {
            self.0.told.cancelled().await;
            if let Some(cut) = self.0.cut.get() {
                return cut.clone();
            }
        }
    }

    /// Ready when its connections are cut off.
    pub(super) fn told(&self) -> WaitForCancellationFutureOwned {
        self.0.told.clone().cancelled_owned()
    }

    /// Verifies it again; whether it is cut off by that.
    fn is_cut_by(&self, set: &Set, now: SystemTime) -> bool {
        let shared = &self.0;
        let cut = CutOff::of(&shared.name, &shared.verified_by(set, second_of(now)));
        // The first reason stays.
        let is_new = cut.is_some_and(|cut| shared.cut.set(cut).is_ok());
        if is_new {
            shared.told.cancel();
        }
        is_new
    }

    /// The first end of a certificate in it behind `after`.
    fn due(&self, after: i64) -> Option<i64> {
        let ends = self.0.certificates.iter().filter_map(|der| certificate_not_after(der));
        ends.filter(|end| *end > after).min()
    }

    /// One of a test's, never cut off.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let (certificates, name) = (Vec::new(), String::new());
        let verified_at = UnixTime::now();
        let (cut, told) = (OnceLock::new(), CancellationToken::new());
        Self(Arc::new(Shared {
            hash: [0; 32],
            certificates,
            name,
            verified_at,
            cut,
            told,
            home: Weak::new(),
        }))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("name", &self.0.name).field("cut", &self.0.cut).finish_non_exhaustive()
    }
}

impl Shared {
    fn verified_by(&self, set: &Set, at: UnixTime) -> Result<(), ChainFault> {
        let verify = |at| {
            let verified = match self.certificates.split_first() {
                Some((leaf, above)) => set.verifier.verify_client_cert(leaf, above, at).map(drop),
                None => Err(Error::NoCertificatesPresented),
            };
            verified.map_err(|error| ChainFault::of(&error, &self.certificates, &set.cas))
        };
        match verify(at) {
            // The clock was set back. That it was valid is known; what else there is to say, must be said.
            Err(ChainFault { fault: Fault::NotYetValid(_), .. }) => verify(self.verified_at),
            verified => verified,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.table().forget(self);
        }
    }
}

impl Chains {
    pub(super) fn new(set: Arc<Set>) -> Arc<Self> {
        let table = Table { set, chains: HashMap::new(), due: BTreeSet::new() };
        Arc::new(Self { table: Mutex::new(table), sooner: Notify::new() })
    }

    /// The set in force.
    pub(super) fn set(&self) -> Arc<Set> {
        Arc::clone(&self.table().set)
    }

    /// The chain of a new connection, which `verified_by` has let in, by a handshake that began in that second of the
    /// Unix epoch. It may be cut off already.
    pub(super) fn enter(
        self: &Arc<Self>,
        certificates: &[CertificateDer<'_>],
        name: &str,
        verified_by: &Arc<Set>,
        began: i64,
    ) -> Chain {
        let fresh = Chain(Arc::new(Shared {
            hash: hash_of(certificates),
            certificates: certificates.iter().map(|der| der.clone().into_owned()).collect(),
            name: name.to_owned(),
            verified_at: UnixTime::now(),
            cut: OnceLock::new(),
            told: CancellationToken::new(),
            home: Arc::downgrade(self),
        }));
        let now = SystemTime::now();
        let mut table = self.table();
        let known = table.chains.get(&fresh.0.hash).and_then(|held| held.chain.upgrade()).map(Chain);
        let set = Arc::clone(&table.set);
        let is_known = known.as_ref().is_some_and(|chain| chain.cut().is_none());
        let is_sooner = !is_known && table.keep(&fresh, unix_sec(now) - 1);
        // Whichever is not used is dropped without the lock, because that takes it.
        drop(table);
        let chain = known.filter(|_| is_known).unwrap_or(fresh);
        // Nobody looked at this chain when that ended; and for the handshake its last second counts in full.
        let has_ended = |end: i64| (began..=unix_sec(now)).contains(&end);
        let is_over = chain.due(began - 1).is_some_and(has_ended) || set.list_ends().any(has_ended);
        if is_over || !Arc::ptr_eq(&set, verified_by) {
            chain.is_cut_by(&set, now);
        }
        if is_sooner {
            self.sooner.notify_one();
        }
        chain
    }

    /// Brings a set into force, and tells whom to verify by it.
    pub(super) fn bring_into_force(&self, set: Arc<Set>) -> Vec<Chain> {
        let mut table = self.table();
        table.set = set;
        table.all()
    }

    /// All that there are.
    pub(super) fn all(&self) -> Vec<Chain> {
        self.table().all()
    }

    /// Those with a certificate whose end has come. They are due again at the next such end.
    pub(super) fn take_due(&self, now: i64) -> Vec<Chain> {
        let mut table = self.table();
        let mut due = Vec::new();
        while let Some((at, hash)) = table.due.first().copied().filter(|(at, _)| *at <= now) {
            table.due.remove(&(at, hash));
            if let Some(chain) = table.chains.get(&hash).and_then(|held| held.chain.upgrade()).map(Chain) {
                table.keep(&chain, now);
                due.push(chain);
            }
        }
        due
    }

    /// The first moment at which one of them is due.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.table().due.first().map(|(at, _)| *at)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Verifies chains by a set; those that are cut off by that. Takes its time: some 0.1 ms each.
pub(super) fn verify_again(chains: Vec<Chain>, set: &Set) -> Vec<CutOff> {
    let cut = chains.into_iter().filter(|chain| chain.is_cut_by(set, SystemTime::now()));
    cut.filter_map(|chain| chain.cut().cloned()).collect()
}

impl Table {
    fn all(&self) -> Vec<Chain> {
        self.chains.values().filter_map(|held| held.chain.upgrade()).map(Chain).collect()
    }

    /// Holds a chain from now on, with its first moment behind `after`; whether that is the first of all.
    fn keep(&mut self, chain: &Chain, after: i64) -> bool {
        let (hash, due) = (chain.0.hash, chain.due(after));
        let held = Held { chain: Arc::downgrade(&chain.0), due };
        if let Some(Held { due: Some(before), .. }) = self.chains.insert(hash, held) {
            self.due.remove(&(before, hash));
        }
        let Some(due) = due else { return false };
        self.due.insert((due, hash));
        self.due.first() == Some(&(due, hash))
    }

    /// Unless another one has its place by now.
    fn forget(&mut self, chain: &Shared) {
        let is_it = |held: &Held| std::ptr::eq(held.chain.as_ptr(), chain);
        if self.chains.get(&chain.hash).is_some_and(is_it)
            && let Some(Held { due: Some(due), .. }) = self.chains.remove(&chain.hash)
        {
            self.due.remove(&(due, chain.hash));
        }
    }
}

fn hash_of(certificates: &[CertificateDer<'_>]) -> Hash {
    let each = certificates.iter().map(Sha256::digest);
    each.fold(Sha256::new(), Sha256::chain_update).finalize().into()
}

#[cfg(test)]
mod tests;
