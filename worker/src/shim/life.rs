//! A job's life after its birth: waits for what happens, tells the [`Machine`], and does what that says.
//!
//! One `poll` and no timer but the next deadline: an idle job costs nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use rustix::process::{WaitOptions, WaitStatus};

use super::capture::Capture;
use super::confinement::Confinement;
use super::control::{Control, Lines};
use super::machine::{Effect, Event, Machine};
use crate::job::state::{Ended, StopReason};
use crate::output::index::Kind;

/// How long a job has to end when its time is up, or when the host goes down.
pub const OWN_GRACE: Duration = Duration::from_secs(10);

/// How long a failed attempt to kill or to look waits for the next.
const RETRY: Duration = Duration::from_secs(1);

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

/// What woke the shim.
#[derive(Default)]
struct Ready {
    stdout: bool,
    stderr: bool,
    control: bool,
    signals: bool,
    /// Nothing did, in time.
    timed_out: bool,
}

impl Life<'_> {
    /// Lives it. Returns how the main process ended, and who had asked for that, once no process is left and all
    /// output is read.
    pub fn live(mut self) -> (Ended, Option<StopReason>) {
        let mut machine = Machine::default();
        let mut lines = Lines::default();
        loop {
            let mut events = self.wait(&machine, &mut lines);
            while let Some(event) = events.pop_front() {
                for effect in machine.step(event, Instant::now()) {
                    if effect == Effect::Finish {
                        let ended =
                            machine.ended().expect("no job finishes before its main process has ended");
                        return (ended, machine.stop_reason().cloned());
                    }
                    self.carry_out(effect, &machine);
                }
                if machine.ended().is_some() && self.is_empty() {
                    events.push_back(Event::GroupEmpty);
                }
            }
        }
    }

    fn carry_out(&mut self, effect: Effect, machine: &Machine) {
        let done = match effect {
            Effect::Signal(signal) => self.confinement.signal(signal),
            Effect::Kill => self.confinement.kill(),
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
    fn wait(&mut self, machine: &Machine, lines: &mut Lines) -> VecDeque<Event> {
        let ending = machine.ended().is_some();
        let deadline = if ending { Some(Instant::now() + RETRY) } else { self.deadline(machine) };
        let ready = self.poll(ending, deadline);
        for (is_ready, stream) in [(ready.stdout, Kind::Stdout), (ready.stderr, Kind::Stderr)] {
            if is_ready {
                self.capture.read_ready(stream);
            }
        }
        let mut events = VecDeque::new();
        if ready.control {
            self.read_control(lines, ending, &mut events);
        }
        if ready.signals {
            self.read_signals(&mut events);
        }
        self.check_deadlines(machine, &mut events);
        if ending {
            // Descendants come within reach one generation at a time; a group is killed at one stroke.
            let next_generation = ready.signals && self.confinement.as_group().is_none();
            if next_generation || ready.timed_out {
                self.carry_out(Effect::Kill, machine);
            }
            if self.is_empty() {
                events.push_back(Event::GroupEmpty);
            }
        }
        events
    }

    fn deadline(&self, machine: &Machine) -> Option<Instant> {
        let timeout = self.timeout_at.filter(|_| machine.stop_reason().is_none());
        machine.kill_at().into_iter().chain(timeout).min()
    }

    fn check_deadlines(&self, machine: &Machine, events: &mut VecDeque<Event>) {
        let now = Instant::now();
        if machine.kill_at().is_some_and(|at| at <= now) {
            events.push_back(Event::GraceOver);
        }
        if machine.stop_reason().is_none() && self.timeout_at.is_some_and(|at| at <= now) {
            events.push_back(Event::Stop {
                reason: StopReason::TimedOut,
                signal: Signal::SIGTERM,
                grace: OWN_GRACE,
            });
        }
    }

    fn poll(&self, ending: bool, deadline: Option<Instant>) -> Ready {
        let stdout = self.capture.pipe(Kind::Stdout);
        let stderr = self.capture.pipe(Kind::Stderr);
        let empties = self.confinement.wakes().filter(|_| ending);
        let watched = |fd: Option<BorrowedFd<'_>>| fd.is_some();
        let present = [watched(stdout), watched(stderr), true, true, watched(empties)];
        let mut fds: Vec<PollFd<'_>> = [
            (stdout, PollFlags::POLLIN),
            (stderr, PollFlags::POLLIN),
            (Some(self.control.as_fd()), PollFlags::POLLIN),
            (Some(self.signals.as_fd()), PollFlags::POLLIN),
            (empties, PollFlags::POLLPRI),
        ]
        .into_iter()
        .filter_map(|(fd, flags)| fd.map(|fd| PollFd::new(fd, flags)))
        .collect();
        // An interrupted poll has found nothing, and is asked again.
        let timed_out = poll(&mut fds, timeout(deadline)) == Ok(0);
        let mut polled = fds.iter();
        let mut next = |there: bool| there && polled.next().is_some_and(|fd| fd.any().unwrap_or(true));
        let [stdout, stderr, control, signals, _] = present.map(&mut next);
        Ready { stdout, stderr, control, signals, timed_out }
    }

    /// `reaped`: the main process's number may be another's by now.
    fn read_control(&mut self, lines: &mut Lines, reaped: bool, events: &mut VecDeque<Event>) {
        for line in lines.read(self.control) {
            match Control::decode(&line).and_then(|control| Ok((control.signal()?, control))) {
                Ok((signal, Control::Stop { grace_msec, by, .. })) => events.push_back(Event::Stop {
                    reason: StopReason::Requested { by },
                    signal,
                    grace: Duration::from_millis(grace_msec),
                }),
                Ok((signal, Control::Signal { all: true, .. })) => {
                    self.tell(self.confinement.signal(signal), signal);
                }
                Ok((_, Control::Signal { all: false, .. })) if reaped => {}
                Ok((signal, Control::Signal { all: false, .. })) => {
                    self.tell(kill(self.main, signal).map_err(io::Error::from), signal);
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

    /// Reaps everything: the main process, and whatever the job left orphaned.
    fn read_signals(&mut self, events: &mut VecDeque<Event>) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == Signal::SIGTERM as u32 {
                events.push_back(Event::Stop {
                    reason: StopReason::Requested { by: "the host (its shim got SIGTERM)".to_owned() },
                    signal: Signal::SIGTERM,
                    grace: OWN_GRACE,
                });
            }
        }
        // Not nix's waitpid: it fails on real-time signals, for which it has no name, after it has reaped.
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid.as_raw_pid() == self.main.as_raw()
                && let Some(ended) = ended(status)
            {
                events.push_back(Event::MainEnded(ended));
            }
        }
    }

    fn is_empty(&mut self) -> bool {
        self.confinement.is_empty().unwrap_or_else(|error| {
            tracing::warn!(%error, "can't tell whether the job's processes are gone; the next look follows");
            false
        })
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
