//! What a job is to do, drawn from its seed: how fast it writes, and how it has to end.

use std::path::Path;

use super::random::Random;
use crate::api::outcome::Ended;
use crate::api::{Cause, JobSpec, Limits, Outcome};

/// A job to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it writes.
    pub seed: u64,
    /// Lines before it ends by itself; none: it writes until it is ended.
    pub lines: Option<u64>,
    /// Lines that it writes at a time.
    pub burst: u64,
    /// Its pause between them.
    pub pause_usec: u64,
    /// How it has to end.
    pub ending: Ending,
    /// What it was drawn from, for those who deal with it.
    pub(super) random: Random,
}

/// How a job has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with a code.
    Exit(i32),
    /// It sends itself a signal.
    Signal(i32),
    /// It takes more memory than its limit.
    OutOfMemory,
    /// It has a timeout.
    Timeout {
        /// How long it may run.
        after_msec: u64,
    },
    /// It is stopped.
    Stop {
        /// When.
        after_msec: u64,
        /// Whether it ignores SIGTERM, so that it has to be killed.
        deaf: bool,
    },
}

/// The limit of a job that is to run out of it.
const MEMORY: &str = "48MiB";

impl Plan {
    /// The plan of a slot's next job.
    pub(super) fn draw(mut random: Random, controllers: bool) -> Self {
        let seed = random.next();
        let burst = random.pick(&[1, 1, 8, 64, 256]);
        let pause_usec = random.pick(&[2_000, 20_000, 100_000]).max(burst * 100);
        let lasting_msec = random.between(500, 9_000);
        let ending = match random.between(0, if controllers { 6 } else { 5 }) {
            0 => Ending::Exit(random.pick(&[0, 0, 1, 7, 137])),
            1 => Ending::Signal(random.pick(&[libc::SIGHUP, libc::SIGKILL, libc::SIGUSR1, libc::SIGTERM])),
            2 => Ending::Timeout { after_msec: lasting_msec },
            3 => Ending::Stop { after_msec: lasting_msec, deaf: false },
            4 => Ending::Stop { after_msec: lasting_msec, deaf: true },
            _ => Ending::OutOfMemory,
        };
        let by_itself = matches!(ending, Ending::Exit(_) | Ending::Signal(_) | Ending::OutOfMemory);
        let lines = by_itself.then(|| (lasting_msec * 1000 / pause_usec + 1) * burst);
        Self { seed, lines, burst, pause_usec, ending, random }
    }

    /// What the worker is asked for. `actor` is the program that writes, `ledger` the file where it keeps count.
    ///
    /// # Panics
    /// When a path is not UTF-8.
    pub fn spec(&self, actor: &Path, ledger: &Path) -> JobSpec {
        let ending = match self.ending {
            Ending::Exit(code) => format!("exit:{code}"),
            Ending::Signal(signal) => format!("signal:{signal}"),
            Ending::OutOfMemory => "oom".to_owned(),
            Ending::Timeout { .. } | Ending::Stop { deaf: false, .. } => "endless".to_owned(),
            Ending::Stop { deaf: true, .. } => "deaf".to_owned(),
        };
        let numbers = [self.seed, self.lines.unwrap_or(u64::MAX), self.burst, self.pause_usec];
        let mut args = vec!["job".to_owned()];
        args.extend(numbers.map(|number| number.to_string()));
        args.extend([ending, ledger.to_str().expect("a UTF-8 path").to_owned()]);
        let timeout_msec = match self.ending {
            Ending::Timeout { after_msec } => Some(after_msec),
            _ => None,
        };
        let limits = (self.ending == Ending::OutOfMemory)
            .then(|| Limits { memory: MEMORY.to_owned(), ..Limits::default() });
        JobSpec {
            command: actor.to_str().expect("a UTF-8 path").as_bytes().to_vec(),
            args: args.into_iter().map(String::into_bytes).collect(),
            limits,
            timeout_msec,
            ..JobSpec::default()
        }
    }

    /// Whether this is the verdict on it.
    pub fn fits(&self, outcome: &Outcome) -> bool {
        let (cause, ended) = match self.ending {
            Ending::Exit(code) => (Cause::Exited, Ended::ExitCode(code)),
            Ending::Signal(signal) => (Cause::Signaled, Ended::Signal(signal)),
            Ending::OutOfMemory => (Cause::OutOfMemory, Ended::Signal(libc::SIGKILL)),
            Ending::Timeout { .. } => (Cause::TimedOut, Ended::Signal(libc::SIGTERM)),
            Ending::Stop { deaf: false, .. } => (Cause::Stopped, Ended::Signal(libc::SIGTERM)),
            Ending::Stop { deaf: true, .. } => (Cause::Stopped, Ended::Signal(libc::SIGKILL)),
        };
        let by = if cause == Cause::Stopped { "alice" } else { "" };
        outcome.cause() == cause && outcome.ended == Some(ended) && outcome.stopped_by == by
    }
}
