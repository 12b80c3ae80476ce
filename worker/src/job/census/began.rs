//! When this worker began to look, and what had ended before.

use crate::job::State;
use crate::job::state::Finished;
use crate::shim::clock;

/// A moment by both clocks.
pub(super) struct Began {
    unix_usec: u64,
    boot_usec: u64,
    boot_id: String,
}

impl Began {
    pub(super) fn now() -> Self {
        Self { unix_usec: clock::unix_usec(), boot_usec: clock::boot_usec(), boot_id: clock::boot_id() }
    }

    /// Whether a job had ended before: in this boot by the clock that nobody sets, where its shim kept it.
    pub(super) fn is_after(&self, state: &State, finished: &Finished) -> bool {
        match state.ended_boot_usec().filter(|_| state.boot_id == self.boot_id) {
            Some(ended) => ended < self.boot_usec,
            None => finished.at_unix_usec < self.unix_usec,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::any;
    use crate::job::state::{Birth, Phase};

    proptest! {
        #[test]
        fn a_clock_that_is_set_makes_no_end_an_old_one(state in any::state(), at_unix_usec: u64, unix_usec: u64) {
            let began = Began { unix_usec, boot_usec: 1_000, boot_id: "this".to_owned() };
            let Phase::Finished(finished) = &state.phase else { return Ok(()) };
            let birth = Some(Birth { began_boot_usec: 700, executed_boot_usec: 800 });
            for (ran_usec, expected) in [(199, true), (200, false), (500, false)] {
                let finished = Finished { at_unix_usec, ran_usec: Some(ran_usec), ..(**finished).clone() };
                let phase = Phase::Finished(Box::new(finished.clone()));
                let state = State { phase, birth, boot_id: "this".to_owned(), ..state.clone() };
                prop_assert_eq!(began.is_after(&state, &finished), expected);
                // By the time of day where there is nothing better.
                let by_day = at_unix_usec < unix_usec;
                prop_assert_eq!(began.is_after(&State { boot_id: "another".to_owned(), ..state.clone() }, &finished), by_day);
                prop_assert_eq!(began.is_after(&State { birth: None, ..state }, &finished), by_day);
            }
        }
    }
}
