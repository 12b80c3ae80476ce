//! How much of something each client holds, by its name: a cap per client, over all its connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is held by whom. Clones are the same tally; clients that hold nothing take no place in it.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    held: Arc<Mutex<HashMap<String, usize>>>,
    max: usize,
}

/// One client's hold on some of it, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    tally: Tally,
    name: String,
    amount: usize,
}

impl Tally {
    pub(crate) fn new(max: usize) -> Self {
        Self { held: Arc::default(), max }
    }

    /// How much one client may hold.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// So much for a client; none if that were more than it may hold.
    pub(crate) fn take(&self, name: &str, amount: usize) -> Option<Share> {
        let mut share = Share { tally: self.clone(), name: name.to_owned(), amount: 0 };
        share.grow(amount).then_some(share)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Whose it is.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Takes so much more. Whether it may; if not, it holds what it held.
    pub(crate) fn grow(&mut self, amount: usize) -> bool {
        let mut held = self.tally.held();
        let now = held.get(&self.name).copied().unwrap_or_default();
        let Some(then) = now.checked_add(amount).filter(|then| *then <= self.tally.max) else { return false };
        if then > 0 {
            held.insert(self.name.clone(), then);
        }
        self.amount += amount;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.tally.held();
        let left = held.get(&self.name).map_or(0, |now| now - self.amount);
        match left {
            0 => drop(held.remove(&self.name)),
            left => drop(held.insert(self.name.clone(), left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_a_cap_of_its_own_and_gives_back_what_it_held() {
        let tally = Tally::new(10);
        let mut first = tally.take("alice", 0).unwrap();
        let second = tally.take("alice", 3).unwrap();
        assert!(first.grow(7) && !first.grow(1), "ten in all");
        assert!(tally.take("alice", 1).is_none());
        let other = tally.take("bob", 10).unwrap();
        drop(second);
        assert!(first.grow(3) && !first.grow(usize::MAX));
        assert_eq!(first.name(), "alice");
        drop((first, other));
        assert!(tally.held().is_empty(), "nothing is kept of clients that hold nothing");
    }
}
