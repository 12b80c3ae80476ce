//! The tasks and threads that the worker needs for as long as it runs: one that ends before the worker goes down, or
//! panics, ends the worker with an error. A worker without its reloads, its expiry or its index would go on as if nothing
//! were missing; the service manager starts a whole one, and jobs live on meanwhile.

use std::io;
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// Begins tasks and threads. Clones are the same owner's; by default nobody is told of their ends.
#[derive(Clone, Debug)]
pub struct Tasks {
    ends: UnboundedSender<TaskLost>,
}

/// The ends of them.
#[derive(Debug)]
pub struct Ends(UnboundedReceiver<TaskLost>);

/// A task or thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {name} {}; the worker can't go on without it", if *.has_panicked { "has panicked" } else { "has ended" })]
pub struct TaskLost {
    /// What it was for.
    pub name: &'static str,
    /// Whether it was by a panic, which the log tells of.
    pub has_panicked: bool,
}

/// Tells of the end of what it lives in, however that comes.
struct Watched {
    name: &'static str,
    ends: UnboundedSender<TaskLost>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // An error: nobody wants to know any more.
        let _ = self.ends.send(TaskLost { name: self.name, has_panicked: thread::panicking() });
    }
}

impl Tasks {
    /// For an owner, who has the ends.
    pub fn new() -> (Self, Ends) {
        let (ends, ended) = unbounded_channel();
        (Self { ends }, Ends(ended))
    }

    /// Begins a task, within a tokio runtime only.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let watched = self.watched(name);
        let task = async move {
            let _watched = watched;
            task.await;
        };
        tokio::spawn(task).abort_handle()
    }

    /// Begins a thread.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn thread(&self, name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let watched = self.watched(name);
        let work = move || {
            let _watched = watched;
            work();
        };
        thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
    }

    fn watched(&self, name: &'static str) -> Watched {
        Watched { name, ends: self.ends.clone() }
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new().0
    }
}

impl Ends {
    /// Returns the first end that comes before `shutdown`; never, if none does.
    pub async fn before(mut self, shutdown: &CancellationToken) -> TaskLost {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            Some(lost) = self.0.recv() => return lost,
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    async fn lost(begin: impl FnOnce(&Tasks)) -> TaskLost {
        let (tasks, ends) = Tasks::new();
        tasks.spawn("other", pending());
        begin(&tasks);
        timeout(PATIENCE, ends.before(&CancellationToken::new())).await.expect("it is told")
    }

    #[tokio::test]
    async fn what_ends_or_panics_is_named() {
        let ended = lost(|tasks| drop(tasks.spawn("reloader", async {}))).await;
        assert_eq!(ended, TaskLost { name: "reloader", has_panicked: false });
        assert_eq!(ended.to_string(), "the reloader has ended; the worker can't go on without it");
        let panicked = lost(|tasks| drop(tasks.spawn("reloader", async { panic!("for the test") }))).await;
        assert_eq!(panicked.to_string(), "the reloader has panicked; the worker can't go on without it");
        let thread = lost(|tasks| tasks.thread("index", || panic!("for the test")).unwrap()).await;
        assert_eq!(thread, TaskLost { name: "index", has_panicked: true });
        let aborted = lost(|tasks| tasks.spawn("reloader", pending()).abort()).await;
        assert!(!aborted.has_panicked);
    }

    #[tokio::test]
    async fn once_the_worker_goes_down_ends_are_as_they_should_be() {
        let ((tasks, ends), shutdown) = (Tasks::new(), CancellationToken::new());
        let until = shutdown.clone();
        tasks.spawn("reloader", async move { until.cancelled().await });
        shutdown.cancel();
        assert!(timeout(Duration::from_millis(50), ends.before(&shutdown)).await.is_err());
    }
}
