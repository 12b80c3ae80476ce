//! A job's life from its birth on, as a pure state machine: events in, effects out, no I/O and no clock.
//!
//! ```text
//!              Stop                 MainEnded                GroupEmpty
//!  running ───────────▶ stopping ───────────────▶ emptying ─────────────▶ draining ──▶ finished
//!     │                  │  ▲ Stop: sooner,        ▲   effect: Kill        effects: DrainOutput, Finish
//!     │                  └──┘ GraceOver: Kill      │
//!     └────────────────────────────────────────────┘
//!                       MainEnded
//! ```
//!
//! Whatever comes in whatever order, `finished` is reached once, and only after the main process was reaped, the group
//! was killed after that, and is empty. Nothing leaves it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::job::state::{Ended, StopReason};

/// What happens to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is to end: somebody asked, or its time is up.
    Stop {
        /// Who, or what.
        reason: StopReason,
        /// The signal that asks it to.
        signal: Signal,
        /// How long it has.
        grace: Duration,
    },
    /// A grace period has run out.
    GraceOver,
    /// The main process was reaped.
    MainEnded(Ended),
    /// No process is left in the group.
    GroupEmpty,
}

/// What is to be done about it, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send the signal to every process of the group.
    Signal(Signal),
    /// Kill the group.
    Kill,
    /// Write `state.json`: the job is stopping.
    RecordStopping,
    /// Read what is left in the pipes, and no further: whoever else holds them is not of this job.
    DrainOutput,
    /// Take the evidence, remove the group, write the outcome.
    Finish,
}

/// Where the job is.
#[derive(Debug, Default)]
pub struct Machine {
    stop: Option<StopReason>,
    kill_at: Option<Instant>,
    ended: Option<Ended>,
    finished: bool,
}

impl Machine {
    /// Takes one event.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            _ if self.finished => Vec::new(),
            Event::Stop { .. } | Event::GraceOver if self.ended.is_some() => Vec::new(),
            Event::Stop { reason, signal, grace } => self.stop(reason, signal, grace, now),
            Event::GraceOver => {
                self.kill_at = None;
                vec![Effect::Kill]
            }
            Event::MainEnded(ended) => {
                self.ended.get_or_insert(ended);
                self.kill_at = None;
                vec![Effect::Kill]
            }
            Event::GroupEmpty if self.ended.is_some() => {
                self.finished = true;
                vec![Effect::DrainOutput, Effect::Finish]
            }
            Event::GroupEmpty => Vec::new(),
        }
    }

    /// The first stop names the reason; a later one can only make the end come sooner.
    fn stop(&mut self, reason: StopReason, signal: Signal, grace: Duration, now: Instant) -> Vec<Effect> {
        let first = self.stop.is_none();
        self.stop.get_or_insert(reason);
        let mut effects = Vec::new();
        if first {
            effects.push(Effect::RecordStopping);
        }
        if grace.is_zero() {
            self.kill_at = None;
            effects.push(Effect::Kill);
        } else {
            // A grace period beyond what the clock can count never runs out.
            let asked = now.checked_add(grace);
            let sooner = if first { asked } else { self.kill_at.into_iter().chain(asked).min() };
            self.kill_at = sooner;
            effects.push(Effect::Signal(signal));
        }
        effects
    }

    /// When [`Event::GraceOver`] is due.
    pub fn kill_at(&self) -> Option<Instant> {
        self.kill_at
    }

    /// Why the job is being ended, if it is.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.stop.as_ref()
    }

    /// How the main process ended, once it has.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requested(by: &str) -> StopReason {
        StopReason::Requested { by: by.to_owned() }
    }

    /// What happens, and how many milliseconds after the event before.
    fn any_event() -> impl Strategy<Value = (Event, u64)> {
        let grace = prop_oneof![
            Just(Duration::ZERO),
            (0u64..5000).prop_map(Duration::from_millis),
            Just(Duration::MAX)
        ];
        let stop = (grace, any::<bool>()).prop_map(|(grace, timeout)| Event::Stop {
            reason: if timeout { StopReason::TimedOut } else { requested("x") },
            signal: Signal::SIGTERM,
            grace,
        });
        let event = prop_oneof![
            4 => stop,
            2 => Just(Event::GraceOver),
            1 => (0..256i32).prop_map(|code| Event::MainEnded(Ended::Exited(code))),
            2 => Just(Event::GroupEmpty),
        ];
        (event, 0u64..3000)
    }

    /// What was seen of a machine's life so far.
    #[derive(Default)]
    struct Witness {
        first_reason: Option<StopReason>,
        /// By when the first kill was promised.
        due: Option<Instant>,
        main_ended: Option<Ended>,
        killed: bool,
        killed_since_main_ended: bool,
        finished: bool,
    }

    impl Witness {
        fn note(&mut self, event: &Event, now: Instant) {
            match event {
                Event::Stop { reason, grace, .. } if self.main_ended.is_none() => {
                    self.first_reason.get_or_insert(reason.clone());
                    self.due = self.due.into_iter().chain(now.checked_add(*grace)).min();
                }
                Event::MainEnded(ended) => _ = self.main_ended.get_or_insert(*ended),
                _ => {}
            }
        }

        fn check(&mut self, event: &Event, effect: Effect) -> Result<(), TestCaseError> {
            prop_assert!(!self.finished, "{effect:?} after the end");
            match effect {
                Effect::Kill => {
                    self.killed = true;
                    self.killed_since_main_ended |= self.main_ended.is_some();
                }
                Effect::Signal(_) | Effect::RecordStopping => prop_assert!(self.main_ended.is_none()),
                Effect::DrainOutput | Effect::Finish => {
                    prop_assert_eq!(event, &Event::GroupEmpty);
                    prop_assert!(self.killed_since_main_ended, "{effect:?} before its time");
                    self.finished = effect == Effect::Finish;
                }
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn whatever_happens_in_whatever_order(events in prop::collection::vec(any_event(), 0..40)) {
            let (mut machine, mut now) = (Machine::default(), Instant::now());
            let mut witness = Witness::default();
            for (event, later_msec) in events {
                now += Duration::from_millis(later_msec);
                witness.note(&event, now);
                for effect in machine.step(event.clone(), now) {
                    witness.check(&event, effect)?;
                }
                prop_assert_eq!(machine.stop_reason(), witness.first_reason.as_ref());
                prop_assert_eq!(machine.ended(), witness.main_ended);
                // Until there was a kill, the soonest of all graces holds; after it, no moment is too late.
                if witness.main_ended.is_some() {
                    prop_assert_eq!(machine.kill_at(), None);
                } else if !witness.killed {
                    prop_assert_eq!(machine.kill_at(), witness.due);
                }
            }
            // Whatever came, the end is always in reach.
            for event in [Event::MainEnded(Ended::Exited(0)), Event::GroupEmpty] {
                witness.note(&event, now);
                for effect in machine.step(event.clone(), now) {
                    witness.check(&event, effect)?;
                }
            }
            prop_assert!(witness.finished);
        }

        #[test]
        fn output_is_drained_just_before_the_end(events in prop::collection::vec(any_event(), 0..40)) {
            let (mut machine, now) = (Machine::default(), Instant::now());
            let effects: Vec<_> = events.into_iter().flat_map(|(event, _)| machine.step(event, now)).collect();
            let drained = effects.iter().position(|effect| *effect == Effect::DrainOutput);
            prop_assert_eq!(drained.map(|at| at + 1), effects.iter().position(|effect| *effect == Effect::Finish));
            prop_assert!(effects.iter().filter(|effect| **effect == Effect::RecordStopping).count() <= 1);
        }
    }

    #[test]
    fn a_second_stop_can_only_hurry() {
        let (mut machine, now) = (Machine::default(), Instant::now());
        let stop = |by: &str, secs| Event::Stop {
            reason: requested(by),
            signal: Signal::SIGTERM,
            grace: Duration::from_secs(secs),
        };
        assert_eq!(
            machine.step(stop("alice", 5), now),
            [Effect::RecordStopping, Effect::Signal(Signal::SIGTERM)]
        );
        machine.step(stop("bob", 60), now);
        assert_eq!(machine.kill_at(), Some(now + Duration::from_secs(5)));
        machine.step(stop("bob", 1), now);
        assert_eq!(machine.kill_at(), Some(now + Duration::from_secs(1)));
        assert_eq!(machine.step(stop("bob", 0), now), [Effect::Kill]);
        assert_eq!(machine.kill_at(), None);
        assert_eq!(machine.stop_reason(), Some(&requested("alice")));
    }

    #[test]
    fn a_stop_after_the_end_changes_nothing() {
        let (mut machine, now) = (Machine::default(), Instant::now());
        machine.step(Event::MainEnded(Ended::Exited(3)), now);
        let late = Event::Stop { reason: requested("x"), signal: Signal::SIGTERM, grace: Duration::ZERO };
        assert_eq!(machine.step(late, now), []);
        assert_eq!((machine.stop_reason(), machine.ended()), (None, Some(Ended::Exited(3))));
    }
}
