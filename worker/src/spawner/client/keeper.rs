//! Stays attached: a spawner that goes is missed at once, not by the next who starts a job. Where it is the worker's
//! own, a new one is started, which finds what became of the jobs in between.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Shared;

/// Before the first attempt to be repeated, and the longest. Each pause is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// A spawner that goes sooner than this has not helped: the pauses go on growing.
const LASTING: Duration = Duration::from_secs(1);

/// How long to wait before the next attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pause(Duration);

impl Pause {
    /// None at first.
    fn next(self) -> Self {
        Self((self.0 * 2).clamp(FIRST_PAUSE, LAST_PAUSE))
    }
}

/// Attaches again whenever the attachment ends. Never returns.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut pause = Pause::default();
    loop {
        let attached_at = Instant::now();
        shared.gone().await;
        if attached_at.elapsed() >= LASTING {
            pause = Pause::default();
        }
        // Nothing is locked meanwhile: who starts a job need not wait for this.
        sleep(pause.0).await;
        pause = pause.next();
        while let Err(error) = shared.ensure_attached().await {
            let seconds = pause.0.as_secs();
            tracing::error!(%error, "no spawner, so no job can be started; the next attempt follows in {seconds} s");
            sleep(pause.0).await;
            pause = pause.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_second_to_a_minute() {
        let mut pause = Pause::default();
        let mut seconds = Vec::new();
        for _ in 0..9 {
            seconds.push(pause.0.as_secs());
            pause = pause.next();
        }
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
