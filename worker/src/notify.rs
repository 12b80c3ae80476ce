//! What the service manager is told, where one has started us (`sd_notify(3)`): ready, alive, about to end.
//!
//! Without a service manager, or under one that does not ask, nothing is sent.

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::tasks::Tasks;

/// Requests are answered from now on. Called on the runtime: from here on it has to tell that it is alive.
pub fn ready(tasks: &Tasks) {
    tell(NotifyState::Ready);
    let Some(timeout) = sd_notify::watchdog_enabled() else { return };
    tasks.spawn("watchdog's answer", async move {
        // Half the time that we have, as sd_watchdog_enabled(3) recommends. A runtime that is stuck does not get here.
        let mut ticks = interval(timeout / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            tell(NotifyState::Watchdog);
        }
    });
}

/// The same, of a process without a runtime; it is not watched.
pub fn ready_unwatched() {
    tell(NotifyState::Ready);
}

/// What is under way is being finished, then this process ends.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    let what = state.to_string();
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, what, "can't tell the service manager");
    }
}
