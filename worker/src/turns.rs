//! Turns at what only some may do at a time: clients take turns, each with one of its calls, so who has very many waiting
//! keeps nobody else waiting.
//!
//! ```text
//!  alice: a1 a2 a3 a4 …  ─┐
//!  bob:   b1              ├──▶ a1 b1 c1 a2 c2 a3 a4 …
//!  carol: c1 c2          ─┘
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Gives turns. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<Mutex<Waiting>>);

/// One turn, over when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Turns);

#[derive(Debug)]
struct Waiting {
    /// Turns that nobody has, and so nobody waits for.
    free: usize,
    /// Those who wait, in the order of their next turns.
    clients: VecDeque<String>,
    /// Their calls, in the order in which they came; none is empty.
    calls: HashMap<String, VecDeque<oneshot::Sender<Turn>>>,
}

impl Turns {
    pub(crate) fn new(at_a_time: usize) -> Self {
        Self(Arc::new(Mutex::new(Waiting {
            free: at_a_time,
            clients: VecDeque::new(),
            calls: HashMap::new(),
        })))
    }

    /// Waits for a turn of a client.
    pub(crate) async fn take(&self, client: &str) -> Turn {
        loop {
            let waiting = {
                let mut waiting = self.waiting();
                if waiting.free > 0 {
                    waiting.free -= 1;
                    return Turn(self.clone());
                }
                waiting.enter(client)
            };
            // An error can't come: a sender is dropped only where nobody waits.
            if let Ok(turn) = waiting.await {
                return turn;
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn enter(&mut self, client: &str) -> oneshot::Receiver<Turn> {
        let (give, given) = oneshot::channel();
        match self.calls.get_mut(client) {
            Some(calls) => calls.push_back(give),
            None => {
                self.clients.push_back(client.to_owned());
                self.calls.insert(client.to_owned(), VecDeque::from([give]));
            }
        }
        given
    }

    /// The call whose turn it is; one that was given up has none.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(client) = self.clients.pop_front() {
            let Some(mut calls) = self.calls.remove(&client) else { continue };
            let next = std::iter::from_fn(|| calls.pop_front()).find(|call| !call.is_closed());
            if !calls.is_empty() {
                self.calls.insert(client.clone(), calls);
                self.clients.push_back(client);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        let next = waiting.next();
        if next.is_none() {
            waiting.free += 1;
        }
        drop(waiting);
        if let Some(next) = next {
            // Given up in this very moment: the turn that comes back is dropped, and goes to the next.
            drop(next.send(Self(self.0.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn clients_take_turns_whoever_has_more_waiting() {
        let turns = Turns::new(1);
        let mut turn = Some(turns.take("alice").await);
        let names = ["alice", "alice", "alice", "alice", "bob", "carol", "carol"];
        let mut waiting: Vec<_> = names.iter().map(|name| (*name, Box::pin(turns.take(name)))).collect();
        for (_, waits) in &mut waiting {
            assert!(waits.now_or_never().is_none());
        }
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(turn.take());
            let (at, given) = waiting
                .iter_mut()
                .enumerate()
                .find_map(|(at, (_, waits))| Some((at, waits.now_or_never()?)))
                .expect("somebody has a turn");
            order.push(waiting.remove(at).0);
            turn = Some(given);
        }
        assert_eq!(order, ["alice", "bob", "carol", "alice", "carol", "alice", "alice"]);
        drop(turn);
        assert!(turns.take("bob").now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_turn_that_nobody_wants_any_more_goes_to_the_next() {
        let turns = Turns::new(1);
        let turn = turns.take("alice").await;
        let (mut given_up, mut waits) = (Box::pin(turns.take("bob")), Box::pin(turns.take("carol")));
        assert!((&mut given_up).now_or_never().is_none() && (&mut waits).now_or_never().is_none());
        drop(given_up);
        drop(turn);
        drop((&mut waits).now_or_never().expect("carol's turn"));
        // Given, and not taken.
        let turn = turns.take("alice").await;
        let mut given = Box::pin(turns.take("bob"));
        assert!((&mut given).now_or_never().is_none());
        drop(turn);
        drop(given);
        assert!(turns.take("carol").now_or_never().is_some());
    }

    #[tokio::test]
    async fn so_many_have_a_turn_at_a_time() {
        let turns = Turns::new(2);
        let first = turns.take("alice").await;
        let _second = turns.take("alice").await;
        assert!(turns.take("bob").now_or_never().is_none());
        drop(first);
        assert!(turns.take("bob").now_or_never().is_some());
    }
}
