//! How many calls that may last for ever a client has open: a cap per client, over all its connections.

use super::status::CallError;
use crate::metrics::{Following, Metrics, Open};
use crate::tally::{Share, Tally};

/// The option that sets the cap.
const CAP: &str = "max-followers";

/// The open calls by the client's name.
#[derive(Clone, Debug)]
pub(super) struct Followers {
    held: Tally,
    metrics: Metrics,
}

/// One open call; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    _share: Share,
    _open: Open,
}

impl Followers {
    pub(super) fn new(max: usize, metrics: Metrics) -> Self {
        Self { held: Tally::new(max), metrics }
    }

    /// # Errors
    /// When the client has as many as it may.
    pub(super) fn enter(&self, name: &str, following: Following) -> Result<Seat, CallError> {
        let refused = || CallError::Cap { name: name.to_owned(), cap: CAP, max: self.held.max() };
        let share = self.held.take(name, 1).ok_or_else(refused)?;
        Ok(Seat { _share: share, _open: self.metrics.follower(following) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_as_many_as_it_may_is_told() {
        let followers = Followers::new(2, Metrics::default());
        let seats = [
            followers.enter("alice", Following::Wait).unwrap(),
            followers.enter("alice", Following::Wait).unwrap(),
        ];
        let refused = followers.enter("alice", Following::Wait).unwrap_err().to_string();
        assert_eq!(refused, "alice has 2 streams and waits open already (max-followers of the worker)");
        followers.enter("bob", Following::Wait).unwrap();
        drop(seats);
        followers.enter("alice", Following::Wait).unwrap();
    }
}
