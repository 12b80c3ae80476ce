//! Asking a job's shim, through the job's FIFO.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use super::EngineError;
use crate::job::folder::{CONTROL, Folder, FolderError};
use crate::job::{Ended, JobId, Outcome, State};
use crate::shim::control::Control;

/// Writes one line, whole. The shim of a job that has a state reads its FIFO until the job is finished.
pub(super) fn send(job: JobId, folder: &Folder, control: &Control) -> Result<(), EngineError> {
    let line = control.encode().map_err(|reason| EngineError::Control { id: job, reason })?;
    check_not_ended(job, folder)?;
    check_understood(job, folder, control)?;
    let path = folder.file(CONTROL);
    match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path) {
        Ok(mut fifo) => {
            let written = fifo.write_all(&line);
            written.map_err(|reason| FolderError::Io { operation: "write to", path, reason }.into())
        }
        // Nobody has it open for reading.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            check_not_ended(job, folder)?;
            let how = "its shim is gone; a spawner that finds that out ends the job and records it as lost";
            Err(EngineError::NotRunning { id: job, how: how.to_owned() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(EngineError::not_found(job)),
        Err(reason) => Err(FolderError::Io { operation: "open", path, reason }.into()),
    }
}

fn check_not_ended(job: JobId, folder: &Folder) -> Result<(), EngineError> {
    match folder.state()?.as_ref().and_then(State::finished) {
        Some(finished) => Err(EngineError::NotRunning { id: job, how: describe(&finished.outcome) }),
        None => Ok(()),
    }
}

/// A shim that was started by an older build would drop the request.
fn check_understood(job: JobId, folder: &Folder, control: &Control) -> Result<(), EngineError> {
    match control.signal() {
        Ok(signal)
            if signal.is_real_time() && folder.state()?.is_some_and(|state| !state.real_time_signals) =>
        {
            Err(EngineError::OlderShim { id: job, signal })
        }
        _ => Ok(()),
    }
}

/// An outcome in words.
pub(crate) fn describe(outcome: &Outcome) -> String {
    let cause = match outcome {
        Outcome::Exited { .. } | Outcome::Signaled { .. } => "",
        Outcome::Stopped { by, .. } => &format!("was stopped by {by} and "),
        Outcome::TimedOut { .. } => "ran into its timeout and ",
        Outcome::OutOfMemory { .. } => "ran out of memory and ",
        Outcome::Lost { reason } => return format!("it was lost: {reason}"),
    };
    match outcome.ended() {
        Some(Ended::Exited(code)) => format!("it {cause}exited with code {code}"),
        Some(Ended::Signaled(signal)) => format!("it {cause}was ended by signal {signal}"),
        None => format!("it {cause}ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_read_as_sentences() {
        let ended = Ended::Signaled(9);
        for (outcome, words) in [
            (Outcome::Exited { code: 3 }, "it exited with code 3"),
            (Outcome::Signaled { signal: 11 }, "it was ended by signal 11"),
            (
                Outcome::Stopped { by: "alice".to_owned(), ended: Ended::Exited(7) },
                "it was stopped by alice and exited with code 7",
            ),
            (Outcome::TimedOut { ended }, "it ran into its timeout and was ended by signal 9"),
            (
                Outcome::OutOfMemory { own_limit: true, ended },
                "it ran out of memory and was ended by signal 9",
            ),
            (Outcome::Lost { reason: "its shim died".to_owned() }, "it was lost: its shim died"),
        ] {
            assert_eq!(describe(&outcome), words);
        }
    }
}
