//! What a job begins with, whatever its spawner was started with.
//!
//! A process inherits more than its environment (fork(2), execve(2)). Three places define what a job gets:
//!
//! * [`Attributes`], here: what the spawner and its shims keep for themselves, so that each job's process sets it before it
//!   executes the command: badness, scheduling, IO priority, CPUs, session keyring, limits of setrlimit(2).
//! * [`super::inherited`]: what is worth nothing to a spawner, which sets it in itself.
//! * [`super::birth`]: session, streams, descriptors, umask, signals, user.
//!
//! All else is the host's, as README says: namespaces, root folder, seccomp, Landlock, security labels, bounding set…

use std::fmt;
use std::fs;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::unistd::{SysconfVar, sysconf};
use rustix::process::{Resource, Rlimit, getpriority_process, getrlimit};
use rustix::thread::{current_timer_slack, sched_getaffinity};

use super::birth::{self, io_priority};
use super::inherited::TIMER_SLACK_NSEC;
use crate::spawner::defaults::{JobDefaults, RESOURCES, in_words};

/// Open files that a job may have, as systemd has it: what select(2) can count, and for those who raise it.
const OPEN_FILES: (u64, u64) = (1024, 524_288);
/// Bytes of a main thread's stack, which the kernel's own first process has.
const STACK_BYTES: u64 = 8 << 20;
/// Bytes that may be locked in memory, and bytes in POSIX message queues: the kernel's, `include/asm-generic/resource.h`.
const LOCKED_BYTES: u64 = 8 << 20;
const MESSAGE_BYTES: u64 = 819_200;

/// What each job is to have.
#[derive(Clone, Debug)]
pub struct Attributes {
    rlimits: Vec<WantedRlimit>,
    oom_score_adj: String,
    is_badness_given: bool,
}

#[derive(Clone, Debug)]
struct WantedRlimit {
    name: &'static str,
    resource: Resource,
    limit: Rlimit,
    /// An operator has asked for it: it is this or nothing.
    is_given: bool,
}

/// One thing to set in the job's process.
#[derive(Clone, Debug)]
pub enum Setting {
    /// proc(5), `oom_score_adj`.
    OomScoreAdj {
        /// As it is written.
        text: String,
        /// An operator has asked for it.
        is_given: bool,
    },
    /// The class `none`, which follows nice (`ioprio_set(2)`).
    IoPriority,
    /// Every CPU that the group allows.
    Affinity,
    /// A session keyring that nobody else has (keyctl(2)).
    Keyring,
    /// `SCHED_OTHER` and nice 0; where that is not allowed, `SCHED_OTHER` and this nice value.
    Scheduling {
        /// The shim's own.
        kept_nice: i32,
    },
    /// The kernel's default timer slack. Behind the scheduling: a real-time process has none, and its child neither.
    TimerSlack,
    /// A limit of setrlimit(2).
    Rlimit {
        /// Its name without `RLIMIT_`.
        name: &'static str,
        /// What is limited.
        resource: Resource,
        /// What it is to be.
        wanted: Rlimit,
        /// As much of it as a process without privilege may have; none where an operator has asked for `wanted`.
        otherwise: Option<Rlimit>,
    },
}

impl Attributes {
    /// What an operator says, and for the rest the values that README tells.
    ///
    /// # Errors
    /// When the kernel does not say how many threads and open files there may be.
    pub fn new(defaults: &JobDefaults) -> anyhow::Result<Self> {
        let (threads, open_files) =
            (number("/proc/sys/kernel/threads-max")?, number("/proc/sys/fs/nr_open")?);
        let rlimits = RESOURCES.map(|(name, resource)| {
            let given = defaults.rlimit(name);
            let limit = given.unwrap_or_else(|| standard(resource, threads, open_files));
            WantedRlimit { name, resource, limit, is_given: given.is_some() }
        });
        Ok(Self {
            rlimits: rlimits.into(),
            oom_score_adj: defaults.oom_score_adj().unwrap_or_default().to_string(),
            is_badness_given: defaults.oom_score_adj().is_some(),
        })
    }

    /// What a child of this process lacks.
    pub fn missing(&self) -> Vec<Setting> {
        // The kernel also notes the least value that this one's user may set: always written, because that can't be read.
        let mut settings =
            vec![Setting::OomScoreAdj { text: self.oom_score_adj.clone(), is_given: self.is_badness_given }];
        if io_priority() != 0 {
            settings.push(Setting::IoPriority);
        }
        if !has_all_cpus() {
            settings.push(Setting::Affinity);
        }
        settings.push(Setting::Keyring);
        // Before the limits, of which RLIMIT_NICE may allow this.
        settings
            .push(Setting::Scheduling { kept_nice: getpriority_process(None).map_or(0, |nice| nice.max(0)) });
        if current_timer_slack().ok() != Some(TIMER_SLACK_NSEC.get()) {
            settings.push(Setting::TimerSlack);
        }
        settings.extend(self.rlimits.iter().filter_map(|wanted| wanted.over(getrlimit(wanted.resource))));
        settings
    }

    /// Tries all of it in a process of its own, which ends at once. Returns what jobs will not get, in words. For a process
    /// of one thread.
    ///
    /// # Errors
    /// When that is something which an operator has asked for.
    pub fn try_out(&self) -> anyhow::Result<Vec<String>> {
        let settings = self.missing();
        let failed =
            birth::try_out(&settings).context("can't start a process to try what jobs begin with")?;
        let mut lacking = Vec::new();
        for (setting, errno) in settings.iter().zip(failed) {
            match errno {
                Some(errno) if !setting.may_fail(errno, false) => bail!("{}", setting.refusal(errno)),
                Some(errno) if !setting.is_void(errno) => lacking.push(format!("{setting} ({errno})")),
                _ => {}
            }
        }
        Ok(lacking)
    }
}

impl WantedRlimit {
    /// What to set over what there is.
    fn over(&self, now: Rlimit) -> Option<Setting> {
        let &Self { name, resource, limit: wanted, is_given } = self;
        let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, None) | (None, one) => one,
        };
        let maximum = least(wanted.maximum, now.maximum);
        let otherwise = Rlimit { current: least(wanted.current, maximum), maximum };
        let otherwise = (!is_given).then_some(otherwise);
        (now != wanted).then_some(Setting::Rlimit { name, resource, wanted, otherwise })
    }
}

impl Setting {
    /// Whether a job may be started without this: nobody has asked for it, and a spawner without privilege can't give it,
    /// or there is no such thing here. `changes_user`: whether jobs of different users come from this spawner.
    pub fn may_fail(&self, errno: Errno, changes_user: bool) -> bool {
        match self {
            Self::OomScoreAdj { is_given: true, .. } | Self::Rlimit { otherwise: None, .. } => false,
            // Past its quota of keys, a user's jobs have the spawner's keyring, which is the same user's.
            Self::Keyring if errno == Errno::EDQUOT => !changes_user,
            _ => matches!(errno, Errno::EPERM | Errno::EACCES | Errno::ENOSYS),
        }
    }

    /// Whether nothing is amiss though this could not be set: without the system calls, jobs have no keys either.
    fn is_void(&self, errno: Errno) -> bool {
        matches!((self, errno), (Self::Keyring, Errno::ENOSYS | Errno::EPERM))
    }

    /// Why an operator can't have it, and what would be right.
    fn refusal(&self, errno: Errno) -> String {
        match self {
            Self::OomScoreAdj { text, .. } => format!(
                "--default-oom-score-adj {text}: jobs can't be given that ({errno}); without CAP_SYS_RESOURCE a spawner \
                 may only raise its own value"
            ),
            Self::Rlimit { name, resource, wanted, .. } => {
                let bound =
                    if *resource == Resource::Nofile { ", and nobody more than fs.nr_open" } else { "" };
                let (wanted, own) = (in_words(*wanted), in_words(getrlimit(*resource)));
                format!(
                    "--default-rlimit {name}={wanted}: jobs can't be given that ({errno}); without CAP_SYS_RESOURCE a \
                     spawner may not go above its own hard limit ({name}={own}){bound}"
                )
            }
            other => format!("jobs can't be given {other}: {errno}"),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OomScoreAdj { text, .. } => write!(f, "oom_score_adj {text}"),
            Self::IoPriority => f.write_str("no IO priority"),
            Self::Affinity => f.write_str("all CPUs"),
            Self::Keyring => f.write_str("a session keyring of its own"),
            Self::TimerSlack => write!(f, "a timer slack of {TIMER_SLACK_NSEC} ns"),
            Self::Scheduling { .. } => f.write_str("nice 0 and SCHED_OTHER"),
            Self::Rlimit { name, wanted, .. } => write!(f, "RLIMIT_{name} {}", in_words(*wanted)),
        }
    }
}

/// The kernel's own first process has these, but for the open files.
fn standard(resource: Resource, threads_max: u64, nr_open: u64) -> Rlimit {
    let (soft, hard) = match resource {
        Resource::Core => (Some(0), None),
        Resource::Stack => (Some(STACK_BYTES), None),
        Resource::Nofile => (Some(OPEN_FILES.0.min(nr_open)), Some(OPEN_FILES.1.min(nr_open))),
        Resource::Nproc | Resource::Sigpending => (Some(threads_max / 2), Some(threads_max / 2)),
        Resource::Memlock => (Some(LOCKED_BYTES), Some(LOCKED_BYTES)),
        Resource::Msgqueue => (Some(MESSAGE_BYTES), Some(MESSAGE_BYTES)),
        Resource::Nice | Resource::Rtprio => (Some(0), Some(0)),
        _ => (None, None),
    };
    Rlimit { current: soft, maximum: hard }
}

fn number(path: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("can't read {path}"))?;
    text.trim().parse().with_context(|| format!("{path} is no number: {text:?}"))
}

fn has_all_cpus() -> bool {
    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    let own = sched_getaffinity(None).ok().map(|cpus| i64::from(cpus.count()));
    online.zip(own).is_some_and(|(online, own)| own >= online)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(current: Option<u64>, maximum: Option<u64>) -> Rlimit {
        Rlimit { current, maximum }
    }

    fn wanted(limit: Rlimit, is_given: bool) -> WantedRlimit {
        WantedRlimit { name: "NOFILE", resource: Resource::Nofile, limit, is_given }
    }

    fn otherwise(setting: Option<Setting>) -> Option<Rlimit> {
        match setting {
            Some(Setting::Rlimit { otherwise, .. }) => otherwise,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_not_set() {
        let wanted = wanted(limit(Some(1024), None), false);
        assert!(wanted.over(limit(Some(1024), None)).is_none());
        assert!(wanted.over(limit(Some(1024), Some(2048))).is_some());
    }

    #[test]
    fn without_privilege_a_limit_is_lowered_to_what_may_be() {
        let own = limit(Some(10), Some(500));
        let wanted = |soft, hard| wanted(limit(soft, hard), false).over(own);
        assert_eq!(otherwise(wanted(Some(1024), None)), Some(limit(Some(500), Some(500))));
        assert_eq!(otherwise(wanted(None, None)), Some(limit(Some(500), Some(500))));
        assert_eq!(otherwise(wanted(Some(0), None)), Some(limit(Some(0), Some(500))));
        assert_eq!(otherwise(wanted(Some(7), Some(8))), Some(limit(Some(7), Some(8))));
    }

    #[test]
    fn what_an_operator_asks_for_is_all_or_nothing() {
        let setting = wanted(limit(Some(1), Some(2)), true).over(limit(Some(1), Some(1))).unwrap();
        assert!(!setting.may_fail(Errno::EPERM, false));
        assert!(otherwise(Some(setting)).is_none());
        let badness = |is_given| Setting::OomScoreAdj { text: "0".to_owned(), is_given };
        assert!(badness(false).may_fail(Errno::EACCES, true) && !badness(true).may_fail(Errno::EACCES, true));
    }

    #[test]
    fn no_two_users_share_a_keyring_for_want_of_quota() {
        assert!(
            Setting::Keyring.may_fail(Errno::EDQUOT, false)
                && !Setting::Keyring.may_fail(Errno::EDQUOT, true)
        );
        assert!(
            Setting::Keyring.may_fail(Errno::ENOSYS, true) && !Setting::Keyring.may_fail(Errno::ENOMEM, true)
        );
    }
}
