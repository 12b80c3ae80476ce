//! How much of what libraries warn of is logged: of each place in their code some lines in ten seconds, and then how many
//! more there were. A client that makes a library warn must not fill a disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Filter};

use super::tell_left_out;
use crate::audit;

/// Lines of one place in each window.
const LINES: u64 = 5;

/// A window's length.
const WINDOW: Duration = Duration::from_secs(10);

/// Passes on what `targets` let through, and of libraries so much.
#[derive(Debug)]
pub(crate) struct Limited {
    targets: Targets,
    places: Mutex<HashMap<Identifier, Window>>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    lines: u64,
}

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Log,
    /// Log it, and before it that so many were left out.
    LogAfter(u64),
    LeaveOut,
}

impl Limited {
    pub(crate) fn new(targets: Targets) -> Self {
        Self { targets, places: Mutex::default() }
    }
}

impl Window {
    /// The verdict on a line at `now`.
    fn admit(&mut self, now: Instant) -> Verdict {
        if now.saturating_duration_since(self.began) >= WINDOW {
            let left_out = self.lines.saturating_sub(LINES);
            *self = Self { began: now, lines: 1 };
            return if left_out > 0 { Verdict::LogAfter(left_out) } else { Verdict::Log };
        }
        self.lines += 1;
        if self.lines <= LINES { Verdict::Log } else { Verdict::LeaveOut }
    }
}

/// Whether a line is this program's own, or its audit log's.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    target.starts_with(env!("CARGO_CRATE_NAME")) || target == audit::TARGET
}

impl<S: Subscriber> Filter<S> for Limited {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        Filter::<S>::enabled(&self.targets, metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        Filter::<S>::callsite_enabled(&self.targets, metadata)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Filter::<S>::max_level_hint(&self.targets)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if is_ours(metadata) {
            return true;
        }
        let now = Instant::now();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let window = places.entry(metadata.callsite()).or_insert(Window { began: now, lines: 0 });
        let verdict = window.admit(now);
        drop(places);
        if let Verdict::LogAfter(left_out) = verdict {
            tell_left_out(metadata.target(), left_out);
        }
        verdict != Verdict::LeaveOut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_logged_and_the_others_counted() {
        let began = Instant::now();
        let mut window = Window { began, lines: 0 };
        let verdicts: Vec<_> = (0..8).map(|_| window.admit(began)).collect();
        assert_eq!(verdicts, [[Verdict::Log; 5].as_slice(), &[Verdict::LeaveOut; 3]].concat());
        assert_eq!(window.admit(began + WINDOW), Verdict::LogAfter(3));
        assert_eq!(window.admit(began + WINDOW * 2), Verdict::Log, "nothing was left out");
    }
}
