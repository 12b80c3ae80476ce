//! How many calls that may last for ever a client has open: a cap per client, over all its connections.

use super::status::CallError;
use crate::tally::{Share, Tally};

/// The option that sets the cap.
const CAP: &str = "max-followers";

/// The open calls by the client's name.
#[derive(Clone, Debug)]
pub(super) struct Followers(Tally);

/// One open call; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct Seat(#[expect(dead_code, reason = "held, never read")] Share);

impl Followers {
    pub(super) fn new(max: usize) -> Self {
        Self(Tally::new(max))
    }

    /// # Errors
    /// When the client has as many as it may.
    pub(super) fn enter(&self, name: &str) -> Result<Seat, CallError> {
        let refused = || CallError::Cap { name: name.to_owned(), cap: CAP, max: self.0.max() };
        self.0.take(name, 1).map(Seat).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_as_many_as_it_may_is_told() {
        let followers = Followers::new(2);
        let seats = [followers.enter("alice").unwrap(), followers.enter("alice").unwrap()];
        let refused = followers.enter("alice").unwrap_err().to_string();
        assert_eq!(refused, "alice has 2 streams and waits open already (max-followers of the worker)");
        followers.enter("bob").unwrap();
        drop(seats);
        followers.enter("alice").unwrap();
    }
}
