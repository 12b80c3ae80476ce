//! How a job ended, as a type that can't contradict itself.

use std::fmt;

use anyhow::{Context, bail};
use jobworker_proto::v1::{Cause, Job, outcome};

/// The verdict on a finished job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// By itself: an exit, or a signal that jobworker did not send.
    Exited(End),
    Stopped {
        by: String,
        end: End,
    },
    TimedOut,
    OutOfMemory {
        /// The job's own limit, not one further up.
        own_limit: bool,
    },
    Lost {
        reason: String,
    },
}

/// How the main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Code(u8),
    Signal(Signal),
}

impl Outcome {
    /// The outcome of `job`; `None` while it is not finished.
    ///
    /// # Errors
    /// The worker sent an outcome that this jobctl does not understand (a newer worker).
    pub(crate) fn of(job: &Job) -> anyhow::Result<Option<Self>> {
        let Some(outcome) = &job.outcome else { return Ok(None) };
        let end =
            || outcome.ended.context("the worker did not say how the process ended").and_then(End::try_from);
        let parsed = match outcome.cause() {
            Cause::Exited | Cause::Signaled => Self::Exited(end()?),
            Cause::Stopped => Self::Stopped { by: outcome.stopped_by.clone(), end: end()? },
            Cause::TimedOut => Self::TimedOut,
            Cause::OutOfMemory => Self::OutOfMemory { own_limit: outcome.own_memory_limit },
            Cause::Lost => Self::Lost { reason: outcome.reason.clone() },
            Cause::Unspecified => bail!(
                "job {} ended in a way that this jobctl does not know (cause {})",
                job.id,
                outcome.cause
            ),
        };
        Ok(Some(parsed))
    }

    /// The outcome of a job that the worker calls finished.
    ///
    /// # Errors
    /// It has none, or one that this jobctl does not understand.
    pub(crate) fn of_finished(job: &Job) -> anyhow::Result<Self> {
        Self::of(job)?.with_context(|| format!("the worker sent job {} without its outcome", job.id))
    }
}

impl TryFrom<outcome::Ended> for End {
    type Error = anyhow::Error;

    fn try_from(ended: outcome::Ended) -> anyhow::Result<Self> {
        match ended {
            outcome::Ended::ExitCode(code) => {
                u8::try_from(code).map(Self::Code).with_context(|| format!("{code} is no exit code"))
            }
            outcome::Ended::Signal(number) => Signal::try_from(number).map(Self::Signal),
        }
    }
}

/// A signal's number on the worker's host, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal(u8);

impl Signal {
    pub(crate) fn number(self) -> u8 {
        self.0
    }
}

impl TryFrom<i32> for Signal {
    type Error = anyhow::Error;

    fn try_from(number: i32) -> anyhow::Result<Self> {
        match u8::try_from(number) {
            Ok(number @ 1..=64) => Ok(Self(number)),
            _ => bail!("{number} is no signal"),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNAL_NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(f, "signal {} (SIG{name})", self.0),
            None => match (self.0.checked_sub(RT_MIN), RT_MAX - self.0) {
                // The C library's own.
                (None, _) => write!(f, "signal {}", self.0),
                (Some(0), _) => write!(f, "signal {} (SIGRTMIN)", self.0),
                (_, 0) => write!(f, "signal {} (SIGRTMAX)", self.0),
                (Some(above), below) if above <= below => write!(f, "signal {} (SIGRTMIN+{above})", self.0),
                (_, below) => write!(f, "signal {} (SIGRTMAX-{below})", self.0),
            },
        }
    }
}

/// Real-time signals, as kill(1) counts them.
const RT_MIN: u8 = 34;
const RT_MAX: u8 = 64;

/// Linux' signals from 1 on, the same on every architecture that jobworker is built for (signal(7)).
const SIGNAL_NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

#[cfg(test)]
mod tests {
    use super::*;
    use jobworker_proto::v1;

    fn job(cause: Cause, ended: Option<outcome::Ended>) -> Job {
        Job {
            outcome: Some(v1::Outcome { cause: cause.into(), ended, ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn an_exit_code_and_a_signal_are_never_mixed_up() {
        let exited = job(Cause::Exited, Some(outcome::Ended::ExitCode(137)));
        assert_eq!(Outcome::of_finished(&exited).expect("valid"), Outcome::Exited(End::Code(137)));
        let killed = job(Cause::Signaled, Some(outcome::Ended::Signal(9)));
        assert_eq!(Outcome::of_finished(&killed).expect("valid"), Outcome::Exited(End::Signal(Signal(9))));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert!(Outcome::of_finished(&Job::default()).is_err(), "finished without an outcome");
        assert!(Outcome::of(&job(Cause::Unspecified, None)).is_err(), "a cause unknown to this jobctl");
        assert!(Outcome::of(&job(Cause::Exited, None)).is_err(), "exited without a code");
        assert!(Outcome::of(&job(Cause::Exited, Some(outcome::Ended::ExitCode(256)))).is_err());
        assert!(Outcome::of(&job(Cause::Signaled, Some(outcome::Ended::Signal(0)))).is_err());
    }

    #[test]
    fn signals_have_their_names() {
        let shown = |number| Signal::try_from(number).expect("a signal").to_string();
        assert_eq!(shown(9), "signal 9 (SIGKILL)");
        assert_eq!(shown(31), "signal 31 (SIGSYS)");
        assert_eq!(shown(32), "signal 32");
        assert_eq!(shown(34), "signal 34 (SIGRTMIN)");
        assert_eq!(shown(37), "signal 37 (SIGRTMIN+3)");
        assert_eq!(shown(63), "signal 63 (SIGRTMAX-1)");
        assert_eq!(shown(64), "signal 64 (SIGRTMAX)");
    }
}
