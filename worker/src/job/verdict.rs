//! The verdict on a job: a pure function of how its main process ended, of who had asked for that, and of what the
//! kernel counted. An exit code of 137 or a SIGKILL alone proves nothing.

use jobworker_limits::OomEvents;

use super::state::{Ended, Outcome, StopReason};

/// How a main process ended, as far as its shim can know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MainEnd {
    /// The kernel says so.
    Known(Ended),
    /// It has exited, and the kernel does not say how.
    Hidden {
        /// Why.
        reason: String,
    },
}

/// Linux's number for the signal that can't be caught, and that the OOM killer uses.
const SIGKILL: i32 = 9;

/// How and why a job ended.
///
/// Every group has `memory.oom.group` set, so an OOM kill is a SIGKILL of the main process too: it goes before a stop
/// that was asked for a moment earlier, because it is what really ended the job.
pub fn verdict(end: &MainEnd, stop: Option<&StopReason>, oom: OomEvents) -> Outcome {
    let ended = match end {
        MainEnd::Known(ended) => *ended,
        MainEnd::Hidden { reason } => return Outcome::Lost { reason: reason.clone() },
    };
    if ended == Ended::Signaled(SIGKILL) && oom.oom_kill > 0 {
        return Outcome::OutOfMemory { own_limit: oom.oom > 0, ended };
    }
    match (stop, ended) {
        (Some(StopReason::Requested { by }), ended) => Outcome::Stopped { by: by.clone(), ended },
        (Some(StopReason::TimedOut), ended) => Outcome::TimedOut { ended },
        (None, Ended::Exited(code)) => Outcome::Exited { code },
        (None, Ended::Signaled(signal)) => Outcome::Signaled { signal },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_OOM: OomEvents = OomEvents { oom: 0, oom_kill: 0, oom_group_kill: 0 };

    fn known(ended: Ended) -> MainEnd {
        MainEnd::Known(ended)
    }

    #[test]
    fn an_end_that_nobody_can_know_is_no_guess() {
        let hidden = MainEnd::Hidden { reason: "process 7 traces it".to_owned() };
        let oom = OomEvents { oom: 1, oom_kill: 1, oom_group_kill: 1 };
        for stop in [None, Some(&StopReason::TimedOut)] {
            let lost = Outcome::Lost { reason: "process 7 traces it".to_owned() };
            assert_eq!(verdict(&hidden, stop, oom), lost);
        }
    }

    #[test]
    fn an_exit_code_of_137_is_an_exit_code() {
        let oom = OomEvents { oom: 3, oom_kill: 1, oom_group_kill: 0 };
        assert_eq!(verdict(&known(Ended::Exited(137)), None, oom), Outcome::Exited { code: 137 });
    }

    #[test]
    fn sigkill_is_out_of_memory_only_where_the_kernel_counted_one() {
        let killed = Ended::Signaled(9);
        assert_eq!(verdict(&known(killed), None, NO_OOM), Outcome::Signaled { signal: 9 });
        // The limit was reached, and reclaim helped.
        let reached = OomEvents { oom: 7, ..NO_OOM };
        assert_eq!(verdict(&known(killed), None, reached), Outcome::Signaled { signal: 9 });
        let own = OomEvents { oom: 1, oom_kill: 1, oom_group_kill: 1 };
        assert_eq!(
            verdict(&known(killed), None, own),
            Outcome::OutOfMemory { own_limit: true, ended: killed }
        );
        let host = OomEvents { oom: 0, oom_kill: 1, oom_group_kill: 0 };
        assert_eq!(
            verdict(&known(killed), None, host),
            Outcome::OutOfMemory { own_limit: false, ended: killed }
        );
    }

    #[test]
    fn a_stop_keeps_how_the_process_took_it() {
        let alice = StopReason::Requested { by: "alice".to_owned() };
        for ended in [Ended::Exited(7), Ended::Signaled(15), Ended::Signaled(9)] {
            let outcome = verdict(&known(ended), Some(&alice), NO_OOM);
            assert_eq!(outcome, Outcome::Stopped { by: "alice".to_owned(), ended });
            assert_eq!(
                verdict(&known(ended), Some(&StopReason::TimedOut), NO_OOM),
                Outcome::TimedOut { ended }
            );
        }
    }
}
