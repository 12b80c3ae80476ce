//! A job's life from its birth on, as a pure state machine: events in, effects out, no I/O and no clock.
//!
//! ```text
//!              Stop                 MainEnded                Empty
//!  running ───────────▶ stopping ───────────────▶ emptying ─────────▶ draining ──▶ finished
//!     │                  │  ▲ Stop: sooner        │  ▲ │   effects: DrainOutput, Finish
//!     │                  │  │ KillDue: Kill,      │  └─┘ KillDue: Kill, KillChildren, each second
//!     │                  └──┘  KillChildren,      │      Stragglers: KillChildren
//!     │                        each second        │
//!     ├───────────────────────────────────────────┤ effect: Kill
//!     │                  MainEnded                │
//!     └──────▶ held ──────────────────────────────┘
//!    MainHeld: its tracer does not let go; the exit code is read from /proc at `read_exit_at`, and is its MainEnded
//! ```
//!
//! Whatever comes in whatever order, `finished` is reached once, and only after the main process has ended, the job's
//! processes were killed after that, and none of them lives. From the first kill on, kills never stop before that.

use std::time::{Duration, Instant};

use jobworker_limits::SignalNumber as Signal;

use crate::job::state::StopReason;
use crate::job::verdict::MainEnd;

/// Between two kills, while something is left.
pub const KILL_AGAIN: Duration = Duration::from_secs(1);

/// How long a tracer has to reap a main process that has exited, before its exit code is read from `/proc`. One that looks
/// needs milliseconds.
pub const HELD_PATIENCE: Duration = Duration::from_millis(500);

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
    /// A grace period has run out, or what was killed is there still.
    KillDue,
    /// The main process has exited, and a tracer keeps it from being reaped.
    MainHeld,
    /// The main process was reaped, or its end was read otherwise.
    MainEnded(MainEnd),
    /// No process is left in the group, but the shim has children that live: they have left it.
    Stragglers,
    /// No process of the job lives.
    Empty,
}

/// What is to be done about it, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send the signal to every process of the job.
    Signal(Signal),
    /// Kill the group, and the main process wherever it is.
    Kill,
    /// Kill every child of the shim: the main process, and what has left the group and lost its parent.
    KillChildren,
    /// Write `state.json`: the job is stopping.
    RecordStopping,
    /// Read what is left in the pipes, and no further: whoever else holds them is not of this job.
    DrainOutput,
    /// Take the evidence, remove the group, write the outcome.
    Finish,
}

/// How the main process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Main {
    #[default]
    Lives,
    /// It has exited, and a tracer holds it.
    Held {
        read_exit_at: Instant,
    },
    Ended(MainEnd),
}

/// Where the job is.
#[derive(Debug, Default)]
pub struct Machine {
    stop: Option<StopReason>,
    kill_at: Option<Instant>,
    main: Main,
    finished: bool,
}

impl Machine {
    /// Takes one event.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match (event, &self.main) {
            _ if self.finished => Vec::new(),
            (Event::Stop { reason, signal, grace }, Main::Lives) => self.stop(reason, signal, grace, now),
            (Event::Stop { .. }, _) => Vec::new(),
            (Event::KillDue, _) => self.kill(&[Effect::Kill, Effect::KillChildren], now),
            (Event::MainHeld, Main::Lives) => {
                self.main = Main::Held { read_exit_at: now + HELD_PATIENCE };
                self.kill(&[Effect::Kill], now)
            }
            (Event::MainEnded(end), Main::Lives | Main::Held { .. }) => {
                self.main = Main::Ended(end);
                self.kill(&[Effect::Kill], now)
            }
            (Event::Stragglers, Main::Held { .. } | Main::Ended(_)) => vec![Effect::KillChildren],
            (Event::Empty, Main::Ended(_)) => {
                self.finished = true;
                vec![Effect::DrainOutput, Effect::Finish]
            }
            (Event::MainHeld | Event::MainEnded(_) | Event::Stragglers | Event::Empty, _) => Vec::new(),
        }
    }

    /// What is killed may take its time to go, and what comes to light meanwhile has to go, too.
    fn kill(&mut self, effects: &[Effect], now: Instant) -> Vec<Effect> {
        self.kill_at = Some(now + KILL_AGAIN);
        effects.to_vec()
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
            effects.extend(self.kill(&[Effect::Kill, Effect::KillChildren], now));
        } else {
            // A grace period beyond what the clock can count never runs out.
            self.kill_at = self.kill_at.into_iter().chain(now.checked_add(grace)).min();
            // A process that was stopped takes the signal only when it goes on.
            effects.extend([Effect::Signal(signal), Effect::Signal(Signal::SIGCONT)]);
        }
        effects
    }

    /// When [`Event::KillDue`] is due.
    pub fn kill_at(&self) -> Option<Instant> {
        self.kill_at
    }

    /// When the end of a main process that is held is to be read from `/proc`, as [`Event::MainEnded`].
    pub fn read_exit_at(&self) -> Option<Instant> {
        match self.main {
            Main::Held { read_exit_at } => Some(read_exit_at),
            Main::Lives | Main::Ended(_) => None,
        }
    }

    /// Why the job is being ended, if it is.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.stop.as_ref()
    }

    /// Whether the main process lives, as far as it is known.
    pub fn main_lives(&self) -> bool {
        self.main == Main::Lives
    }

    /// How the main process ended, once it has.
    pub fn ended(&self) -> Option<&MainEnd> {
        match &self.main {
            Main::Ended(end) => Some(end),
            Main::Lives | Main::Held { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::Ended;

    fn exited(code: i32) -> Event {
        Event::MainEnded(MainEnd::Known(Ended::Exited(code)))
    }

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
            2 => Just(Event::KillDue),
            1 => Just(Event::MainHeld),
            1 => (0..256i32).prop_map(exited),
            2 => Just(Event::Stragglers),
            2 => Just(Event::Empty),
        ];
        (event, 0u64..3000)
    }

    /// What was seen of a machine's life so far.
    #[derive(Default)]
    struct Witness {
        first_reason: Option<StopReason>,
        /// By when the first kill was promised.
        due: Option<Instant>,
        main_held: Option<Instant>,
        main_ended: Option<MainEnd>,
        killed: Option<Instant>,
        killed_since_main_ended: bool,
        finished: bool,
    }

    impl Witness {
        fn note(&mut self, event: &Event, now: Instant) {
            match event {
                Event::Stop { reason, grace, .. } if self.main_lives() => {
                    self.first_reason.get_or_insert(reason.clone());
                    self.due = self.due.into_iter().chain(now.checked_add(*grace)).min();
                }
                Event::MainHeld if self.main_lives() => self.main_held = Some(now),
                Event::MainEnded(end) => _ = self.main_ended.get_or_insert(end.clone()),
                _ => {}
            }
        }

        fn main_lives(&self) -> bool {
            self.main_held.is_none() && self.main_ended.is_none()
        }

        fn check(&mut self, event: &Event, effect: Effect, now: Instant) -> Result<(), TestCaseError> {
            prop_assert!(!self.finished, "{effect:?} after the end");
            match effect {
                Effect::Kill => {
                    self.killed = Some(now);
                    self.killed_since_main_ended |= self.main_ended.is_some();
                }
                // Those in the group go first, at one stroke; whoever lives is never killed one by one before its time.
                Effect::KillChildren => prop_assert!(self.killed.is_some()),
                Effect::Signal(_) | Effect::RecordStopping => prop_assert!(self.main_lives()),
                Effect::DrainOutput | Effect::Finish => {
                    prop_assert_eq!(event, &Event::Empty);
                    prop_assert!(self.killed_since_main_ended, "{effect:?} before its time");
                    self.finished = effect == Effect::Finish;
                }
            }
            Ok(())
        }

        /// What the machine promises to be woken for.
        fn check_deadlines(&self, machine: &Machine) -> Result<(), TestCaseError> {
            let read_exit_at = self.main_held.filter(|_| self.main_ended.is_none());
            prop_assert_eq!(machine.read_exit_at(), read_exit_at.map(|held| held + HELD_PATIENCE));
            match (self.killed, machine.kill_at()) {
                _ if self.finished => {}
                // The soonest of all graces holds.
                (None, at) => prop_assert_eq!(at, self.due),
                // From the first kill on there is always a next one.
                (Some(killed), at) => prop_assert!(at.is_some_and(|at| at <= killed + KILL_AGAIN), "{at:?}"),
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
                    witness.check(&event, effect, now)?;
                }
                prop_assert_eq!(machine.stop_reason(), witness.first_reason.as_ref());
                prop_assert_eq!(machine.ended(), witness.main_ended.as_ref());
                prop_assert_eq!(machine.main_lives(), witness.main_lives());
                witness.check_deadlines(&machine)?;
            }
            // Whatever came, the end is always in reach.
            for event in [exited(0), Event::Empty] {
                witness.note(&event, now);
                for effect in machine.step(event.clone(), now) {
                    witness.check(&event, effect, now)?;
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
            [Effect::RecordStopping, Effect::Signal(Signal::SIGTERM), Effect::Signal(Signal::SIGCONT)]
        );
        machine.step(stop("bob", 60), now);
        assert_eq!(machine.kill_at(), Some(now + Duration::from_secs(5)));
        machine.step(stop("bob", 1), now);
        assert_eq!(machine.kill_at(), Some(now + Duration::from_secs(1)));
        assert_eq!(machine.step(stop("bob", 0), now), [Effect::Kill, Effect::KillChildren]);
        assert_eq!(machine.kill_at(), Some(now + KILL_AGAIN), "what does not go is killed again");
        assert_eq!(machine.stop_reason(), Some(&requested("alice")));
    }

    #[test]
    fn a_stop_after_the_end_changes_nothing() {
        let (mut machine, now) = (Machine::default(), Instant::now());
        machine.step(exited(3), now);
        let late = Event::Stop { reason: requested("x"), signal: Signal::SIGTERM, grace: Duration::ZERO };
        assert_eq!(machine.step(late, now), []);
        let end = MainEnd::Known(Ended::Exited(3));
        assert_eq!((machine.stop_reason(), machine.ended()), (None, Some(&end)));
    }

    #[test]
    fn a_main_process_that_a_tracer_holds_ends_by_what_is_read_of_it() {
        let (mut machine, now) = (Machine::default(), Instant::now());
        assert_eq!(machine.step(Event::MainHeld, now), [Effect::Kill], "what it leaves ends with it");
        assert_eq!(machine.step(Event::Empty, now), [], "nobody knows yet how it ended");
        assert_eq!(machine.read_exit_at(), Some(now + HELD_PATIENCE));
        let late = Event::Stop { reason: requested("x"), signal: Signal::SIGTERM, grace: Duration::ZERO };
        assert_eq!(machine.step(late, now), [], "it has ended by itself");
        assert_eq!(machine.step(exited(5), now), [Effect::Kill]);
        assert_eq!(machine.read_exit_at(), None);
        assert_eq!(machine.step(Event::Empty, now), [Effect::DrainOutput, Effect::Finish]);
    }

    #[test]
    fn what_has_left_the_group_is_killed_generation_by_generation() {
        let (mut machine, now) = (Machine::default(), Instant::now());
        assert_eq!(machine.step(Event::Stragglers, now), [], "they live as long as the main process");
        machine.step(exited(0), now);
        for _ in 0..3 {
            assert_eq!(machine.step(Event::Stragglers, now), [Effect::KillChildren]);
        }
        assert_eq!(machine.step(Event::KillDue, now), [Effect::Kill, Effect::KillChildren]);
        assert_eq!(machine.step(Event::Empty, now), [Effect::DrainOutput, Effect::Finish]);
    }
}
