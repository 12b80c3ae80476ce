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
//! Whatever comes in whatever order, `finished` is reached once, and only after the main process was reaped and the
//! group is empty.

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
            Event::GroupEmpty if self.ended.is_some() && !self.finished => {
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

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0u64..5, any::<bool>()).prop_map(|(secs, timeout)| Event::Stop {
                reason: if timeout { StopReason::TimedOut } else { requested("x") },
                signal: Signal::SIGTERM,
                grace: Duration::from_secs(secs),
            }),
            Just(Event::GraceOver),
            (0..256i32).prop_map(|code| Event::MainEnded(Ended::Exited(code))),
            Just(Event::GroupEmpty),
        ]
    }

    proptest! {
        #[test]
        fn finishes_at_most_once_after_the_main_process_and_a_kill(events in prop::collection::vec(any_event(), 0..40)) {
            let (mut machine, now) = (Machine::default(), Instant::now());
            let (mut main_ended, mut killed_since, mut finished) = (false, false, 0);
            let mut first_reason = None;
            for event in events {
                main_ended |= matches!(event, Event::MainEnded(_));
                if let Event::Stop { reason, .. } = &event && !main_ended {
                    first_reason.get_or_insert(reason.clone());
                }
                for effect in machine.step(event.clone(), now) {
                    killed_since |= effect == Effect::Kill;
                    if effect == Effect::Finish {
                        finished += 1;
                        prop_assert!(main_ended && killed_since, "finished before its time");
                        prop_assert_eq!(&event, &Event::GroupEmpty);
                    }
                }
                prop_assert_eq!(machine.stop_reason(), first_reason.as_ref());
            }
            prop_assert!(finished <= 1);
            // Whatever came, the end is always in reach.
            let mut rest = machine.step(Event::MainEnded(Ended::Exited(0)), now);
            rest.extend(machine.step(Event::GroupEmpty, now));
            prop_assert_eq!(finished + rest.iter().filter(|e| **e == Effect::Finish).count(), 1);
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
