//! The starts that are under way: a call that comes right behind a job's start, before there is such a job, waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::job::JobId;

/// Which jobs are being started. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Starting(Arc<Mutex<HashMap<JobId, watch::Receiver<()>>>>);

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
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.contains_key(&job) {
            return None;
        }
        let (ends, ended) = watch::channel(());
        jobs.insert(job, ended);
        Some(UnderWay { starting: self.clone(), job, _ends: ends })
    }

    /// Waits while a start of the job that `text` is the id of is under way; whether there was one.
    pub(super) async fn settled(&self, text: &str) -> bool {
        let Ok(job) = text.parse::<JobId>() else { return false };
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&job).cloned();
        let Some(mut ended) = ended else { return false };
        // An error: its sender is gone. Nothing is ever sent.
        let _ = ended.changed().await;
        true
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.starting.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.job);
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
        let mut waits = Box::pin(starting.settled(A));
        assert!((&mut waits).now_or_never().is_none(), "the start is under way");
        for other in [B, "3f2b", "nonsense"] {
            assert_eq!(starting.settled(other).now_or_never(), Some(false), "{other} is not being started");
        }
        drop(under_way);
        assert!(waits.await);
        assert_eq!(starting.settled(A).now_or_never(), Some(false), "forgotten");
    }

    #[tokio::test]
    async fn a_repeated_start_does_not_end_the_first() {
        let starting = Starting::default();
        let first = starting.begin(A.parse().unwrap());
        drop(starting.begin(A.parse().unwrap()));
        assert!(starting.settled(A).now_or_never().is_none(), "the first is under way");
        drop(first);
        assert!(starting.settled(A).now_or_never().is_some());
    }
}
