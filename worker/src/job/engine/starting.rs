//! The starts that are under way: a call that comes right behind a job's start, before there is such a job, waits for it.
//! And those that were refused just now: such a call has nothing to wait for, and the refusal has been told.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::job::JobId;

/// How long a start that was announced may take to be looked at.
const ANNOUNCED: Duration = Duration::from_secs(1);

/// How long a refusal is remembered, and how many at most: for the call that came along with the start.
const REMEMBERED: Duration = Duration::from_secs(5);
const MOST_REMEMBERED: usize = 256;

/// Which jobs are being started. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Starting {
    jobs: Arc<Mutex<HashMap<JobId, watch::Receiver<()>>>>,
    refused: Arc<Mutex<VecDeque<Refused>>>,
    one_more: Arc<Notify>,
}

/// A start that was refused.
#[derive(Debug)]
struct Refused {
    at: Instant,
    job: JobId,
    client: String,
}

/// A start that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    starting: Starting,
    job: JobId,
    _ends: watch::Sender<()>,
}

impl Starting {
    /// `None` where this very job is being started already: that start counts.
    pub(super) fn begin(&self, job: JobId) -> Option<UnderWay> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.contains_key(&job) {
            return None;
        }
        let (ends, ended) = watch::channel(());
        jobs.insert(job, ended);
        drop(jobs);
        self.one_more.notify_waiters();
        Some(UnderWay { starting: self.clone(), job, _ends: ends })
    }

    /// The start of the job that `text` is the id of, if one is under way.
    pub(super) fn under_way(&self, text: &str) -> Option<Start> {
        self.find(text.parse().ok()?).map(Start)
    }
}

impl Starting {
    /// Remembers that a client's start was refused.
    pub(super) fn refuse(&self, job: JobId, client: &str) {
        let mut refused = self.refused();
        let at = Instant::now();
        refused.retain(|refused| at.duration_since(refused.at) < REMEMBERED);
        refused.truncate(MOST_REMEMBERED - 1);
        refused.push_front(Refused { at, job, client: client.to_owned() });
        drop(refused);
        self.one_more.notify_waiters();
    }

    /// True if this client's start of the job was refused just now.
    pub(super) fn was_refused(&self, job: JobId, client: &str) -> bool {
        let is_it = |refused: &Refused| {
            refused.job == job && refused.client == client && refused.at.elapsed() < REMEMBERED
        };
        self.refused().iter().any(is_it)
    }

    fn refused(&self) -> MutexGuard<'_, VecDeque<Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A start that was under way.
#[derive(Debug)]
pub(super) struct Start(watch::Receiver<()>);

impl Start {
    /// Waits until it is not any more.
    pub(super) async fn ended(mut self) {
        // An error: its sender is gone. Nothing is ever sent.
        let _ = self.0.changed().await;
    }
}

impl Starting {
    /// Waits until a start of this job is under way, was refused to this client, or does not come. One that begins after this call is not missed,
    /// whenever it is polled.
    pub(super) fn begun(&self, job: JobId, client: &str) -> impl Future<Output = ()> + Send + use<> {
        let (starting, client) = (self.clone(), client.to_owned());
        let mut next = Box::pin(Arc::clone(&self.one_more).notified_owned());
        let begun = async move {
            while starting.find(job).is_none() && !starting.was_refused(job, &client) {
                next.await;
                next = Box::pin(Arc::clone(&starting.one_more).notified_owned());
            }
        };
        async {
            // A start that does not come leaves it to the look.
            let _ = timeout(ANNOUNCED, begun).await;
        }
    }

    fn find(&self, job: JobId) -> Option<watch::Receiver<()>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get(&job).cloned()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.starting.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.job);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const A: &str = "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f";
    const B: &str = "a0000000-0000-4000-8000-000000000000";

    #[tokio::test]
    async fn who_asks_for_a_job_waits_until_its_start_has_ended() {
        let starting = Starting::default();
        let under_way = starting.begin(A.parse().unwrap()).expect("the first");
        let start = starting.under_way(A).expect("it is under way");
        let mut waits = Box::pin(start.ended());
        assert!((&mut waits).now_or_never().is_none());
        for other in [B, "3f2b", "nonsense"] {
            assert!(starting.under_way(other).is_none(), "{other} is not being started");
        }
        drop(under_way);
        waits.await;
        assert!(starting.under_way(A).is_none(), "forgotten");
    }

    #[tokio::test]
    async fn a_repeated_start_does_not_end_the_first() {
        let starting = Starting::default();
        let first = starting.begin(A.parse().unwrap());
        drop(starting.begin(A.parse().unwrap()));
        assert!(starting.under_way(A).is_some(), "the first is");
        drop(first);
        assert!(starting.under_way(A).is_none());
    }

    #[tokio::test]
    async fn a_start_that_was_announced_is_waited_for_and_not_for_ever() {
        let starting = Starting::default();
        let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
        let mut waits = Box::pin(starting.begun(a, "alice"));
        // Begun before it is looked at, and beside another.
        let (_other, first) = (starting.begin(b), starting.begin(a));
        assert!((&mut waits).now_or_never().is_some());
        let mut waits = Box::pin(starting.begun(a, "alice"));
        assert!((&mut waits).now_or_never().is_some(), "it is under way");
        drop(first);
        let mut waits = Box::pin(starting.begun(a, "alice"));
        assert!((&mut waits).now_or_never().is_none());
        let again = starting.begin(a);
        assert!((&mut waits).now_or_never().is_some());
        drop(again);
        // It was refused, to one client.
        let (mut alice, mut bob) = (Box::pin(starting.begun(a, "alice")), Box::pin(starting.begun(a, "bob")));
        assert!((&mut alice).now_or_never().is_none() && (&mut bob).now_or_never().is_none());
        starting.refuse(a, "alice");
        assert!((&mut alice).now_or_never().is_some() && (&mut bob).now_or_never().is_none());
        assert!(starting.was_refused(a, "alice") && !starting.was_refused(a, "bob"));
        assert!(!starting.was_refused(b, "alice"));
        for _ in 0..1000 {
            starting.refuse(b, "alice");
        }
        assert_eq!(starting.refused().len(), MOST_REMEMBERED);
        // None comes.
        starting.begun(a, "alice").await;
    }
}
