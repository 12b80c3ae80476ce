//! A job's life after its birth: waits for what happens, tells the [`Machine`], and does what that says.
//!
//! One `poll` and no timer but the next deadline: an idle job costs nothing. Its main process has a pidfd beside SIGCHLD,
//! which a tracer's process that exits would not give us.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use jobworker_limits::SignalNumber as Signal;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, WaitOptions, WaitStatus, pidfd_open, waitid};

use super::capture::Capture;
use super::confinement::{Confinement, Left};
use super::control::{Control, Lines};
use super::machine::{Effect, Event, Machine};
use super::process_tree::{end_of_held, has_exited, send};
use crate::job::state::{Ended, StopReason};
use crate::job::verdict::MainEnd;
use crate::output::index::Kind;

/// How long a job has to end when its time is up, or when the host goes down.
pub const OWN_GRACE: Duration = Duration::from_secs(10);

/// Between an empty group, or a kill, and the look at a main process that lives all the same: it needs a moment to exit, and
/// one with a thread that is traced is never told of.
const LOOK: Duration = Duration::from_millis(250);

/// Between two such looks at a main process that lives outside an empty group.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A living job.
pub struct Life<'a> {
    /// The main process.
    pub main: Pid,
    /// All its processes.
    pub confinement: &'a mut Confinement,
    /// Its output.
    pub capture: &'a mut Capture,
    /// Its FIFO. It outlives this: nobody who asks before the outcome is written must find it without a reader.
    pub control: &'a mut File,
    /// SIGCHLD, and SIGTERM to the shim.
    pub signals: &'a SignalFd,
    /// When its time is up.
    pub timeout_at: Option<Instant>,
    /// Writes `state.json` when the job is asked to end.
    pub record_stopping: &'a mut dyn FnMut(&StopReason),
}

/// What is known of the processes that the shim is to reap.
struct Reaper {
    /// Readable once the main process has exited; none from then on.
    main_exit: Option<OwnedFd>,
    /// The main process's number may be another's by now.
    main_is_reaped: bool,
    /// There was a child that could not be reaped.
    has_children: bool,
    /// When to look at the main process itself.
    look_at: Option<Instant>,
}

/// What woke the shim.
struct Ready {
    stdout: bool,
    stderr: bool,
    control: bool,
    signals: bool,
    main_exit: bool,
    group: bool,
}

/// How the main process ended, and who had asked for that.
type Lived = (MainEnd, Option<StopReason>);

impl Life<'_> {
    /// Lives it. Returns how the main process ended, and who had asked for that, once no process is left and all
    /// output is read.
    pub fn live(mut self) -> Lived {
        let mut machine = Machine::default();
        let mut lines = Lines::default();
        let main = rustix::process::Pid::from_raw(self.main.as_raw());
        let mut reaper = Reaper {
            // Without one, the end of a process that is traced is seen when it is stopped.
            main_exit: main.and_then(|main| pidfd_open(main, PidfdFlags::empty()).ok()),
            main_is_reaped: false,
            has_children: true,
            look_at: None,
        };
        // Once it was read, poll(2) tells of the next change.
        self.has_members();
        loop {
            for event in self.wait(&machine, &mut reaper, &mut lines) {
                if let Some(lived) = self.step(event, &mut machine, &mut reaper) {
                    return lived;
                }
            }
            if !machine.main_lives()
                && let Some(event) = self.what_is_left(&reaper)
                && let Some(lived) = self.step(event, &mut machine, &mut reaper)
            {
                return lived;
            }
        }
    }

    /// Returns something at the end.
    fn step(&mut self, event: Event, machine: &mut Machine, reaper: &mut Reaper) -> Option<Lived> {
        for effect in machine.step(event, Instant::now()) {
            if effect == Effect::Finish {
                let ended = machine.ended().expect("no job finishes before its main process has ended");
                return Some((ended.clone(), machine.stop_reason().cloned()));
            }
            self.carry_out(effect, machine, reaper);
        }
        None
    }

    fn carry_out(&mut self, effect: Effect, machine: &Machine, reaper: &mut Reaper) {
        let done = match effect {
            Effect::Signal(signal) => self.confinement.signal(signal),
            Effect::Kill => {
                reaper.look_at = Some(Instant::now() + LOOK).filter(|_| machine.main_lives());
                self.confinement.kill(Some(self.main).filter(|_| !reaper.main_is_reaped))
            }
            Effect::KillChildren => self.confinement.kill_children(),
            Effect::RecordStopping => {
                if let Some(reason) = machine.stop_reason() {
                    (self.record_stopping)(reason);
                }
                Ok(())
            }
            Effect::DrainOutput => {
                self.capture.drain();
                Ok(())
            }
            Effect::Finish => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(?effect, %error, "can't reach the job's processes; the next attempt follows");
        }
    }

    /// Sleeps until something happens, and says what.
    fn wait(&mut self, machine: &Machine, reaper: &mut Reaper, lines: &mut Lines) -> Vec<Event> {
        let deadline = self.deadline(machine, reaper);
        let ready = self.poll(reaper, deadline);
        for (is_ready, stream) in [(ready.stdout, Kind::Stdout), (ready.stderr, Kind::Stderr)] {
            if is_ready {
                self.capture.read_ready(stream);
            }
        }
        let mut events = Vec::new();
        if ready.control {
            self.read_control(lines, reaper.main_is_reaped, &mut events);
        }
        if ready.signals {
            self.read_signals(&mut events);
        }
        if ready.signals || ready.main_exit || deadline.is_some_and(|at| at <= Instant::now()) {
            self.reap(reaper, &mut events);
        }
        if ready.main_exit {
            reaper.main_exit = None;
            self.look(reaper, &mut events);
        }
        if ready.group && !self.has_members() && reaper.look_at.is_none() && machine.main_lives() {
            reaper.look_at = Some(Instant::now() + LOOK);
        }
        self.check_deadlines(machine, reaper, &mut events);
        events
    }

    fn deadline(&self, machine: &Machine, reaper: &Reaper) -> Option<Instant> {
        let while_it_lives = |at: &Instant| machine.main_lives().then_some(*at);
        let timeout = self.timeout_at.as_ref().and_then(while_it_lives);
        let timeout = timeout.filter(|_| machine.stop_reason().is_none());
        let look_at = reaper.look_at.as_ref().and_then(while_it_lives);
        [machine.kill_at(), timeout, machine.read_exit_at(), look_at].into_iter().flatten().min()
    }

    fn check_deadlines(&mut self, machine: &Machine, reaper: &mut Reaper, events: &mut Vec<Event>) {
        let now = Instant::now();
        if reaper.look_at.is_some_and(|at| at <= now) {
            self.look(reaper, events);
        }
        if machine.read_exit_at().is_some_and(|at| at <= now) && !reaper.main_is_reaped {
            events.push(Event::MainEnded(end_of_held(self.main)));
        }
        if machine.kill_at().is_some_and(|at| at <= now) {
            events.push(Event::KillDue);
        }
        let is_over = self.timeout_at.is_some_and(|at| at <= now) && machine.stop_reason().is_none();
        if is_over && machine.main_lives() {
            events.push(Event::Stop {
                reason: StopReason::TimedOut,
                signal: Signal::SIGTERM,
                grace: OWN_GRACE,
            });
        }
    }

    fn poll(&self, reaper: &Reaper, deadline: Option<Instant>) -> Ready {
        let all = [
            (self.capture.pipe(Kind::Stdout), PollFlags::POLLIN),
            (self.capture.pipe(Kind::Stderr), PollFlags::POLLIN),
            (Some(self.control.as_fd()), PollFlags::POLLIN),
            (Some(self.signals.as_fd()), PollFlags::POLLIN),
            (reaper.main_exit.as_ref().map(AsFd::as_fd), PollFlags::POLLIN),
            (self.confinement.wakes(), PollFlags::POLLPRI),
        ];
        let mut fds: Vec<PollFd<'_>> = all
            .iter()
            .filter_map(|(fd, flags)| fd.map(|fd: BorrowedFd<'_>| PollFd::new(fd, *flags)))
            .collect();
        // An interrupted poll has found nothing, and is asked again.
        let _ = poll(&mut fds, timeout(deadline));
        let mut polled = fds.iter();
        let [stdout, stderr, control, signals, main_exit, group] =
            all.map(|(fd, _)| fd.is_some() && polled.next().is_some_and(|fd| fd.any().unwrap_or(true)));
        Ready { stdout, stderr, control, signals, main_exit, group }
    }

    /// `reaped`: the main process's number may be another's by now.
    fn read_control(&mut self, lines: &mut Lines, reaped: bool, events: &mut Vec<Event>) {
        for line in lines.read(self.control) {
            match Control::decode(&line).and_then(|control| Ok((control.signal()?, control))) {
                Ok((signal, Control::Stop { grace_msec, by, .. })) => events.push(Event::Stop {
                    reason: StopReason::Requested { by },
                    signal,
                    grace: Duration::from_millis(grace_msec),
                }),
                Ok((signal, Control::Signal { all: true, .. })) => {
                    let sent = self.confinement.signal(signal);
                    self.tell(sent, signal);
                }
                Ok((_, Control::Signal { all: false, .. })) if reaped => {}
                Ok((signal, Control::Signal { all: false, .. })) => {
                    self.tell(send(self.main, signal).map_err(io::Error::from), signal);
                }
                Err(error) => tracing::warn!(%error, "ignored on the control FIFO"),
            }
        }
    }

    fn tell(&self, sent: io::Result<()>, signal: Signal) {
        if let Err(error) = sent {
            tracing::warn!(main = %self.main, %signal, %error, "can't send a signal");
        }
    }

    /// Takes note of all signals. Who has ended is found by asking.
    fn read_signals(&mut self, events: &mut Vec<Event>) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo.cast_signed() == Signal::SIGTERM.as_raw() {
                events.push(Event::Stop {
                    reason: StopReason::Requested { by: "the host (its shim got SIGTERM)".to_owned() },
                    signal: Signal::SIGTERM,
                    grace: OWN_GRACE,
                });
            }
        }
    }

    /// Reaps everything: the main process, and whatever the job left orphaned.
    fn reap(&mut self, reaper: &mut Reaper, events: &mut Vec<Event>) {
        if !reaper.main_is_reaped && self.can_be_reaped() {
            self.confinement.note(self.main);
        }
        // Not nix's waitpid: it fails on real-time signals, for which it has no name, after it has reaped.
        reaper.has_children = loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid.as_raw_pid() == self.main.as_raw() => {
                    if let Some(ended) = ended(status) {
                        reaper.main_is_reaped = true;
                        events.push(Event::MainEnded(MainEnd::Known(ended)));
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_none_left) => break false,
            }
        };
    }

    /// Whether the main process has exited. It stays for [`Self::reap`].
    fn can_be_reaped(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        rustix::process::Pid::from_raw(self.main.as_raw())
            .is_some_and(|main| waitid(WaitId::Pid(main), options).is_ok_and(|status| status.is_some()))
    }

    /// Looks whether the main process, which could not be reaped, has exited all the same.
    fn look(&mut self, reaper: &mut Reaper, events: &mut Vec<Event>) {
        reaper.look_at = None;
        if reaper.main_is_reaped {
            return;
        }
        match has_exited(self.main) {
            Ok(true) => {
                self.confinement.note(self.main);
                events.push(Event::MainHeld);
            }
            Ok(false) if self.confinement.as_group().is_some() && !self.has_members() => {
                reaper.look_at = Some(Instant::now() + LOOK_AGAIN);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(main = %self.main, %error, "can't look at the main process; the next look follows");
                reaper.look_at = Some(Instant::now() + LOOK_AGAIN);
            }
        }
    }

    /// If not known, there may be some.
    fn has_members(&mut self) -> bool {
        self.confinement.has_members().unwrap_or_else(|error| {
            tracing::warn!(%error, "can't tell whether the job's group is empty; the next look follows");
            true
        })
    }

    fn what_is_left(&mut self, reaper: &Reaper) -> Option<Event> {
        match self.confinement.left(reaper.has_children) {
            Ok(Left::Nothing) => Some(Event::Empty),
            Ok(Left::Children) => Some(Event::Stragglers),
            Ok(Left::Group) => None,
            Err(error) => {
                tracing::warn!(%error, "can't tell whether the job's processes are gone; the next look follows");
                None
            }
        }
    }
}

fn ended(status: WaitStatus) -> Option<Ended> {
    let exited = status.exit_status().map(Ended::Exited);
    exited.or_else(|| status.terminating_signal().map(Ended::Signaled))
}

/// Milliseconds, rounded up: waking early would spin.
fn timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    let msec = left.as_micros().div_ceil(1000);
    PollTimeout::try_from(msec).unwrap_or(PollTimeout::MAX)
}
