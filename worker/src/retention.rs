//! Retention: which ended jobs go by themselves, and when.
//!
//! ```text
//!  jobs/*/state.json ──(once each)──▶ what is known of ended jobs ──▶ the rule ──▶ the spawner removes, one at a time
//!                                     [`ended`]                       [`rule`]
//! ```
//!
//! One task owns it all: it sweeps when the worker starts, then each minute, or as often as `--keep-ended-for` is short.
//! Nothing is kept on a disk, so a new worker looks at every job again, once. Without a setting there is no task.
//!
//! A job's age is counted by the clock of day, because it goes on while no worker runs and across restarts of the host:
//! a clock that is set back makes jobs younger, one that is set forward makes them older.

mod ended;
pub mod rule;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::ended::EndedJobs;
pub use self::rule::{Keep, KeepBytes, KeepFor};
use self::rule::{Removal, removals};
use crate::audit;
use crate::job::JobId;
use crate::job::census::Census;
use crate::job::engine::blocking;
use crate::job::folder::JobsDir;
use crate::shim::clock;
use crate::spawner::client::{SpawnerClient, SpawnerError};
use crate::spawner::protocol::RemoveReply;
use crate::tasks::Tasks;

/// The longest time between two sweeps.
const INTERVAL: Duration = Duration::from_secs(60);

/// The shortest: `--keep-ended-for 1ns` must not keep a processor busy.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// What sweeps.
pub struct Retention {
    jobs: JobsDir,
    spawner: Arc<SpawnerClient>,
    keep: Keep,
    ended: EndedJobs,
    census: Census,
}

impl Retention {
    /// Begins to sweep, until `shutdown`; in a task of its own, within a tokio runtime. Nothing is done when everything
    /// is to be kept.
    pub fn start(
        jobs: JobsDir,
        spawner: Arc<SpawnerClient>,
        keep: Keep,
        shutdown: CancellationToken,
        census: Census,
        tasks: &Tasks,
    ) {
        if keep.is_everything() {
            return;
        }
        tracing::info!(%keep, "ended jobs are removed by retention");
        let retention = Self { jobs, spawner, keep, ended: EndedJobs::default(), census };
        tasks.spawn(
            "retention",
            async move { shutdown.run_until_cancelled(retention.run()).await.unwrap_or(()) },
        );
    }

    async fn run(mut self) {
        let interval = interval(&self.keep);
        loop {
            self.sweep().await;
            tokio::time::sleep(interval).await;
        }
    }

    async fn sweep(&mut self) {
        let (mut ended, jobs) = (std::mem::take(&mut self.ended), self.jobs.clone());
        self.ended = blocking(move || {
            ended.look(&jobs);
            ended
        })
        .await;
        let removals = removals(self.ended.iter(), clock::unix_usec(), &self.keep);
        tracing::debug!(
            ended = self.ended.len(),
            too_many = removals.len(),
            "retention has looked at all jobs"
        );
        for Removal { job, rule } in removals {
            // The rest comes up again in the next sweep.
            if let Err(error) = self.remove(job, rule).await {
                tracing::warn!(%error, "retention can't ask the spawner; the next attempt follows");
                return;
            }
        }
    }

    async fn remove(&mut self, job: JobId, rule: rule::Rule) -> Result<(), SpawnerError> {
        let (folder, known) = (self.jobs.folder(job), self.ended.finished_unix_usec(job));
        // A job of the same id may have been started and have ended since the last look.
        let census = self.census.clone();
        let look = move || {
            census.look(job);
            ended::finished_unix_usec(&folder)
        };
        if blocking(look).await != known {
            self.ended.forget(job);
            return Ok(());
        }
        let rule = rule.to_string();
        audit::retention(job, &rule);
        match self.spawner.remove(job).await? {
            RemoveReply::Removed => {
                tracing::info!(%job, rule, "retention has removed an ended job");
                self.ended.forget(job);
            }
            // Somebody else was faster.
            RemoveReply::NoSuchJob | RemoveReply::NotEnded => self.ended.forget(job),
            RemoveReply::Failed(reason) => {
                tracing::error!(%job, rule, reason, "retention can't remove a job, and leaves it");
                self.ended.leave(job);
            }
        }
        Ok(())
    }
}

fn interval(keep: &Keep) -> Duration {
    let age = keep.ended_for.map_or(INTERVAL, KeepFor::get);
    age.clamp(SHORTEST_INTERVAL, INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_are_as_frequent_as_the_age_asks_and_at_least_each_minute() {
        let interval = |age: Option<&str>| {
            interval(&Keep { ended_for: age.map(|age| age.parse().unwrap()), ended_bytes: None })
        };
        assert_eq!(interval(None), Duration::from_secs(60));
        assert_eq!(interval(Some("7d")), Duration::from_secs(60));
        assert_eq!(interval(Some("2s")), Duration::from_secs(2));
        assert_eq!(interval(Some("1ns")), Duration::from_millis(100));
    }
}
