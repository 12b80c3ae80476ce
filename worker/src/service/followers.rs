//! How many calls that may last for ever a client has open: a cap per client, over all its connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::status::CallError;

/// The option that sets the cap.
const CAP: &str = "max-followers";

/// The open calls by the client's name.
#[derive(Clone, Debug)]
pub(super) struct Followers {
    open: Arc<Mutex<HashMap<String, usize>>>,
    max: usize,
}

/// One open call; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    followers: Followers,
    name: String,
}

impl Followers {
    pub(super) fn new(max: usize) -> Self {
        Self { open: Arc::default(), max }
    }

    /// # Errors
    /// When the client has as many as it may.
    pub(super) fn enter(&self, name: &str) -> Result<Seat, CallError> {
        let mut open = self.open();
        let count = open.entry(name.to_owned()).or_default();
        if *count >= self.max {
            return Err(CallError::Cap { name: name.to_owned(), cap: CAP, max: self.max });
        }
        *count += 1;
        Ok(Seat { followers: self.clone(), name: name.to_owned() })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Whose it is.
    pub(super) fn client(&self) -> &str {
        &self.name
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.followers.open();
        if let Some(count) = open.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_a_cap_of_its_own_and_gets_seats_back() {
        let followers = Followers::new(2);
        let seats = [followers.enter("alice").unwrap(), followers.enter("alice").unwrap()];
        let refused = followers.enter("alice").unwrap_err().to_string();
        assert_eq!(refused, "alice has 2 streams and waits open already (max-followers of the worker)");
        followers.enter("bob").unwrap();
        drop(seats);
        followers.enter("alice").unwrap();
        assert!(followers.open().is_empty(), "nothing is kept of clients without open calls");
    }
}
