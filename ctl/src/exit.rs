//! Exit codes. `run` and `wait` answer with the job's, so jobctl's own failures are put where shells and `env(1)`,
//! `timeout(1)` and `nohup(1)` put theirs: 124 to 127. Every other command: 0 done, 1 failed, 2 wrong usage.

use jobworker_proto::v1::ErrorReason;

use crate::call_error::CallError;
use crate::outcome::{End, Outcome};

pub(crate) const SUCCESS: u8 = 0;
pub(crate) const FAILED: u8 = 1;
const USAGE: u8 = 2;
const TIMED_OUT: u8 = 124;
const JOBCTL_FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// A shell adds this to the number of the signal that ended a command.
const SIGNAL_BASE: u8 = 128;
const SIGKILL: u8 = 9;
/// A second Ctrl-C or SIGTERM left the job while it was being stopped.
pub(crate) const INTERRUPTED: u8 = SIGNAL_BASE + 2;
/// Nobody reads `run`'s output any more: as a local command that SIGPIPE ends.
pub(crate) const READER_GONE: u8 = SIGNAL_BASE + 13;

/// Whose exit code a command answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// The job's (`run`, `wait`).
    JobsCode,
    /// Its own.
    Plain,
}

/// The exit code of `run` and `wait` for a job that ended so.
pub(crate) fn of_outcome(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Exited(end) | Outcome::Stopped { end, .. } => of_end(*end),
        Outcome::TimedOut => TIMED_OUT,
        Outcome::OutOfMemory { .. } => SIGNAL_BASE + SIGKILL,
        Outcome::Lost { .. } => JOBCTL_FAILED,
    }
}

fn of_end(end: End) -> u8 {
    match end {
        End::Code(code) => code,
        End::Signal(signal) => SIGNAL_BASE + signal.number(),
    }
}

/// The exit code of a command that left because of a signal, as a shell has it for one that the signal ended.
pub(crate) fn of_signal(signal: nix::sys::signal::Signal) -> u8 {
    u8::try_from(signal as i32).map_or(JOBCTL_FAILED, |number| SIGNAL_BASE.saturating_add(number))
}

/// The exit code after a failure of jobctl, of the connection or of the worker.
pub(crate) fn of_failure(verb: Verb, error: &anyhow::Error) -> u8 {
    let reason = error.downcast_ref::<CallError>().and_then(CallError::reason);
    match (verb, reason) {
        (Verb::Plain, _) => FAILED,
        (Verb::JobsCode, Some(ErrorReason::CommandNotFound)) => NOT_FOUND,
        (Verb::JobsCode, Some(ErrorReason::CommandNotExecutable)) => NOT_EXECUTABLE,
        (Verb::JobsCode, _) => JOBCTL_FAILED,
    }
}

/// The exit code after a command line that makes no sense.
pub(crate) fn of_usage(verb: Verb) -> u8 {
    match verb {
        Verb::Plain => USAGE,
        Verb::JobsCode => JOBCTL_FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Signal;

    fn signal(number: i32) -> End {
        End::Signal(Signal::try_from(number).expect("a signal"))
    }

    fn stopped(end: End) -> Outcome {
        Outcome::Stopped { by: "alice".into(), end }
    }

    #[test]
    fn every_way_to_end_has_its_code() {
        let table = [
            (Outcome::Exited(End::Code(0)), 0),
            (Outcome::Exited(End::Code(137)), 137),
            (Outcome::Exited(End::Code(255)), 255),
            (Outcome::Exited(signal(9)), 137),
            (Outcome::Exited(signal(15)), 143),
            (Outcome::Exited(signal(64)), 192),
            (stopped(End::Code(7)), 7),
            (stopped(signal(15)), 143),
            (Outcome::TimedOut, 124),
            (Outcome::OutOfMemory { own_limit: true }, 137),
            (Outcome::OutOfMemory { own_limit: false }, 137),
            (Outcome::Lost { reason: "the host restarted".into() }, 125),
        ];
        for (outcome, code) in table {
            assert_eq!(of_outcome(&outcome), code, "{outcome:?}");
        }
    }

    #[test]
    fn failures_of_jobctl_are_125_where_the_code_is_the_jobs() {
        let error = anyhow::anyhow!("connection refused");
        assert_eq!(of_failure(Verb::JobsCode, &error), 125);
        assert_eq!(of_failure(Verb::Plain, &error), 1);
        assert_eq!(of_usage(Verb::JobsCode), 125);
        assert_eq!(of_usage(Verb::Plain), 2);
    }
}
