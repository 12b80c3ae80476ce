//! How many jobs there are of each kind.

use crate::job::Outcome;

/// The kinds of outcomes, without their particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutcomeKind {
    /// [`Outcome::Exited`].
    Exited,
    /// [`Outcome::Signaled`].
    Signaled,
    /// [`Outcome::Stopped`].
    Stopped,
    /// [`Outcome::TimedOut`].
    TimedOut,
    /// [`Outcome::OutOfMemory`].
    OutOfMemory,
    /// [`Outcome::Lost`].
    Lost,
}

/// Jobs by phase and outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those with a folder whose command has not been executed.
    pub starting: usize,
    /// Those that run.
    pub running: usize,
    /// Those that were asked to end and have not.
    pub stopping: usize,
    /// Those whose state can't be read.
    pub unreadable: usize,
    pub(super) ended: [usize; OutcomeKind::ALL.len()],
}

impl OutcomeKind {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Exited, Self::Signaled, Self::Stopped, Self::TimedOut, Self::OutOfMemory, Self::Lost];

    /// As in the API and in `state.json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signaled => "signaled",
            Self::Stopped => "stopped",
            Self::TimedOut => "timed_out",
            Self::OutOfMemory => "out_of_memory",
            Self::Lost => "lost",
        }
    }
}

impl Counts {
    /// All that are there.
    pub fn all(&self) -> usize {
        self.starting + self.running + self.stopping + self.unreadable + self.all_ended()
    }

    /// Those that ended so.
    pub fn ended(&self, kind: OutcomeKind) -> usize {
        self.ended[kind as usize]
    }

    /// Those that ended, however.
    pub fn all_ended(&self) -> usize {
        self.ended.iter().sum()
    }
}

impl Outcome {
    /// Which kind it is of.
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Self::Exited { .. } => OutcomeKind::Exited,
            Self::Signaled { .. } => OutcomeKind::Signaled,
            Self::Stopped { .. } => OutcomeKind::Stopped,
            Self::TimedOut { .. } => OutcomeKind::TimedOut,
            Self::OutOfMemory { .. } => OutcomeKind::OutOfMemory,
            Self::Lost { .. } => OutcomeKind::Lost,
        }
    }
}
