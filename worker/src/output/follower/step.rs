//! What a follower does next, as a pure state machine: no files, no clock, no waiting.
//!
//! ```text
//!            nothing left            output changed
//!   read ───────────────────▶ wait ─────────────────▶ read
//!                             │  ▲
//!               state changed │  │ not finished
//!                             ▼  │
//!                             look
//!                              │ finished
//!                              ▼        nothing left
//!                          read rest ─────────────────▶ end
//! ```
//!
//! The shim writes bytes, then their record, and when both are complete the state `finished`. So whoever sees that the
//! job is finished and reads *afterwards* has all of it; whoever sees it after a read may have missed the last bytes.

use super::Change;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Deliver what is there; more may come.
    Read,
    /// Deliver what is there, for the last time.
    ReadRest {
        /// Whether that is all that the job wrote.
        finished: bool,
    },
    /// Wait until the folder changes.
    Wait,
    /// Look whether the job is finished.
    Look,
    /// All was delivered.
    End {
        /// Whether that was all that the job wrote.
        finished: bool,
    },
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A read found nothing more.
    NothingLeft,
    /// A wait was over.
    Changed(Change),
    /// The state was looked at.
    Finished(bool),
}

impl Step {
    /// The first one. The folder was watched before it was looked at, if it is to be followed.
    pub(super) fn first(follow: bool, finished: bool) -> Self {
        if follow && !finished { Self::Read } else { Self::ReadRest { finished } }
    }

    /// The one that follows.
    pub(super) fn after(self, seen: Seen) -> Self {
        match (self, seen) {
            (Self::Read, Seen::NothingLeft) => Self::Wait,
            (Self::ReadRest { finished }, Seen::NothingLeft) => Self::End { finished },
            (Self::Wait, Seen::Changed(Change::Output)) => Self::Read,
            (Self::Wait, Seen::Changed(Change::State)) => Self::Look,
            (Self::Look, Seen::Finished(true)) => Self::ReadRest { finished: true },
            // What came meanwhile has been told of, and ends the wait at once.
            (Self::Look, Seen::Finished(false)) => Self::Wait,
            (step, _) => step,
        }
    }
}

#[cfg(test)]
mod model;
