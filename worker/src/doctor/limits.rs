//! The jobs' subtree: what of it is there, each limit put in force in a group of its own, and a process born in one.
//!
//! Where a spawner runs, its subtree is used as it stands, and the spawner's word is taken for its controllers. Where none
//! does, the subtree is prepared as a spawner would, and put back as it was ([`Loan`]).

use std::path::Path;

use jobworker_limits::{Base, Controller, GroupError, Limits, Loan, resolve_disk};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{AccessFlags, eaccess};

use super::Subject;
use super::finding::Finding;
use super::scratch::{Scratch, remove_stale};
use super::spawner::{Neighbour, behind};
use super::state::existing;
use super::trials::{TRIALS, Trial};
use crate::config::Spawner;

const SUBTREE: &str = "subtree";
const WITHOUT: &str = "jobs run without groups, and limits are refused";

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    // Until everything is removed again.
    let mut stops = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        stops.add(signal);
    }
    let are_held = stops.thread_block().is_ok();
    let findings = look(subject);
    if are_held {
        // Whichever came meanwhile ends this process now.
        let _ = stops.thread_unblock();
    }
    findings
}

fn look(subject: &Subject) -> Vec<Finding> {
    match (&subject.spawner, &subject.config.spawner) {
        (Neighbour::Runs { attached, .. }, _) => {
            let Some(path) = &attached.base else {
                return vec![none_there("the spawner has no writable one", WITHOUT)];
            };
            let base = Base::prepared(path, attached.unavailable.clone());
            base.map_or_else(
                |error| vec![none_there(&error.to_string(), WITHOUT)],
                |base| try_in(&base, base.path().display().to_string(), subject),
            )
        }
        (Neighbour::Absent, Spawner::Own(settings)) => {
            let found = Base::find(settings.cgroup.as_deref());
            match found.and_then(|path| Loan::take(&path)) {
                Ok(loan) => try_on_loan(loan, subject),
                // A subtree that was asked for has to be there.
                Err(error) if settings.cgroup.is_some() => {
                    vec![none_there(
                        &error.to_string(),
                        "the worker does not start without the one of --cgroup",
                    )]
                }
                Err(error) => vec![none_there(&error.to_string(), WITHOUT)],
            }
        }
        (Neighbour::Absent | Neighbour::Silent(_), _) => {
            let text = "neither controllers nor limits were looked at: the subtree is the spawner's";
            vec![Finding::warn(SUBTREE, text, "mend the spawner's line above and run this again")]
        }
    }
}

fn try_on_loan(loan: Loan, subject: &Subject) -> Vec<Finding> {
    let path = loan.base().path().to_owned();
    let mut findings = try_in(loan.base(), which(&path, subject), subject);
    if let Err(error) = loan.give_back() {
        let remedy = format!("rmdir {0}/jobs {0}/shims", path.display());
        findings.push(Finding::warn(SUBTREE, format!("it is not as it was before this: {error}"), remedy));
    }
    findings
}

fn none_there(reason: &str, consequence: &str) -> Finding {
    let remedy = "Delegate=yes in the spawner's unit, or systemd-run -p Delegate=yes jobworker …, or --cgroup with a \
                  cgroup v2 group that this user may write";
    Finding::fail(SUBTREE, format!("{reason}; {consequence}"), remedy)
}

/// The subtree in words. A shell's group is full of processes, and no service's.
fn which(path: &Path, subject: &Subject) -> String {
    let path = path.display();
    match &subject.config.spawner {
        Spawner::Own(settings) if settings.cgroup.is_none() => {
            let service = behind("systemd-run --pipe --wait -p Delegate=yes");
            format!("{path}, as a worker gets that is started from here; what a service gets tells {service}")
        }
        _ => path.to_string(),
    }
}

fn try_in(base: &Base, which: String, subject: &Subject) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(SUBTREE, which)];
    findings.extend(Controller::ALL.map(|controller| judge(base, controller)));
    if let Err(errno) = eaccess(base.jobs().as_path(), AccessFlags::W_OK) {
        let text = format!("not tried: {} is the spawner's ({})", base.jobs().display(), errno.desc());
        findings.push(Finding::warn("limits", text, format!("for these, {}", behind("sudo"))));
        return findings;
    }
    remove_stale(base);
    let place = existing(&subject.config.state_dir);
    findings.extend(TRIALS.iter().filter_map(|trial| attempt(base, trial, &place)));
    findings.push(super::birth::attempt(base, subject));
    findings
}

/// A reason is why, and behind a semicolon what to do.
fn judge(base: &Base, controller: Controller) -> Finding {
    let subject = format!("controller {controller}");
    let Some(reason) = base.unavailable().get(&controller) else {
        return Finding::ok(subject, "handed down to the jobs");
    };
    let general = "systemctl edit jobworker-spawner: [Service] Delegate=yes";
    let (why, remedy) = reason.split_once("; ").unwrap_or((reason, general));
    Finding::fail(subject, format!("jobs can't be limited by it: {why}"), remedy)
}

/// None where it would say again what has been said: of a controller that is missing, or of a place without a disk.
fn attempt(base: &Base, trial: &Trial, place: &Path) -> Option<Finding> {
    let mut limits = Limits::default();
    (trial.ask)(&mut limits);
    let is_missing = |controller| base.unavailable().contains_key(controller);
    if limits.controllers().iter().any(is_missing) || (!limits.io.is_empty() && resolve_disk(place).is_err())
    {
        return None;
    }
    let found = Scratch::create(base, &limits, place).and_then(|scratch| {
        let found = scratch.group().limits_in_force()?;
        scratch.remove()?;
        Ok(found)
    });
    Some(match found.map(|found| (trial.in_force)(&found)) {
        Ok(Some(in_force)) => Finding::ok(trial.flag, format!("in force: {in_force}")),
        Ok(None) => Finding::fail(trial.flag, "it is not in force", "boot a kernel that has this limit"),
        Err(error @ GroupError::NoSwapAccounting { .. }) => {
            let remedy = "boot with swapaccount=1 and a kernel with CONFIG_SWAP; swap limits but 0 are refused until then";
            Finding::warn(trial.flag, error.to_string(), remedy)
        }
        Err(error) => Finding::fail(trial.flag, error.to_string(), refusal_remedy(&error)),
    })
}

fn refusal_remedy(error: &GroupError) -> String {
    let errno = match error {
        GroupError::Interface(error) => error.io_error().and_then(std::io::Error::raw_os_error),
        _ => None,
    };
    match errno.map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => format!("run this as the spawner's user: {}", behind("sudo")),
        Some(Errno::EAGAIN | Errno::ENOSPC) => {
            "raise cgroup.max.descendants of the groups above; remove groups that nobody needs".to_owned()
        }
        Some(Errno::ENODEV | Errno::ENOENT) => {
            "boot a kernel with this limit built in (CONFIG_CFS_BANDWIDTH, CONFIG_MEMCG, CONFIG_BLK_DEV_THROTTLING, \
             CONFIG_CGROUP_PIDS)"
                .to_owned()
        }
        _ => "restart the spawner in a subtree that nobody else writes to".to_owned(),
    }
}
