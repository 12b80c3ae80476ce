//! What the jobs of a role may be: as whom, which commands, under which ceilings.
//!
//! A ceiling is mandatory. What is asked for above it is refused; what is not asked for is set to its `default`, else
//! to the ceiling itself, so that no job escapes the envelope; the job's specification shows what was set. Swap is
//! different: not asked for, it is none under a memory limit; and where memory has a ceiling and swap has none, it is
//! none in any case, or memory would have no ceiling either.
//!
//! `limits` says which limits may be asked for in the first place; that is decided before any ceiling is looked at, and
//! changes nothing of what is set.

use std::fmt::Display;
use std::num::NonZeroU32;

use jobworker_limits::{CpuLimit, CpuWeight, IoLimit, MemorySize, OutputLimit, PidsLimit, SwapLimit};

use super::asked_limits::{Asked, AskedLimits};
use super::ceiling::{Ceiling, Timeout};
use super::command::{self, AllowedCommand};
use super::names::Names;
use super::rule::Rule;
use super::run_as::RunAs;
use crate::identity::ClientIdentity;
use crate::job::JobRequest;

/// Something, and the line that says it.
#[derive(Clone, Debug)]
pub(super) struct Ruled<T> {
    pub(super) value: T,
    pub(super) rule: Rule,
}

/// A role's part of a policy that is about `start` alone. What is none is not restricted, but `users`: then none may
/// be named.
#[derive(Clone, Debug, Default)]
pub(super) struct Envelope {
    pub(super) limits: Option<Ruled<AskedLimits>>,
    pub(super) cpu: Option<Ruled<Ceiling<CpuLimit>>>,
    pub(super) cpu_weight: Option<Ruled<Ceiling<CpuWeight>>>,
    pub(super) memory: Option<Ruled<Ceiling<MemorySize>>>,
    pub(super) memory_high: Option<Ruled<Ceiling<MemorySize>>>,
    pub(super) swap: Option<Ruled<Ceiling<SwapLimit>>>,
    pub(super) pids: Option<Ruled<Ceiling<PidsLimit>>>,
    pub(super) io: Vec<Ruled<IoLimit>>,
    pub(super) timeout: Option<Ruled<Ceiling<Timeout>>>,
    pub(super) output: Option<Ruled<Ceiling<OutputLimit>>>,
    pub(super) running: Option<Ruled<NonZeroU32>>,
    pub(super) run_as: Option<Ruled<RunAs>>,
    pub(super) users: Option<Ruled<Names>>,
    pub(super) commands: Option<Ruled<Vec<AllowedCommand>>>,
    pub(super) env: Option<Ruled<Names>>,
}

/// A part of a request that the envelope does not allow.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) field: String,
    pub(super) problem: String,
    /// The line; none: that there is none.
    pub(super) rule: Option<Rule>,
}

impl Refused {
    fn new(field: impl Into<String>, problem: impl Display, rule: &Rule) -> Self {
        Self { field: field.into(), problem: problem.to_string(), rule: Some(rule.clone()) }
    }
}

impl Envelope {
    /// Makes a request keep to this, where it says nothing itself.
    pub(super) fn apply(&self, identity: &ClientIdentity, request: &mut JobRequest) -> Result<(), Refused> {
        self.user(identity, &mut request.user)?;
        self.command(request)?;
        self.env(request)?;
        self.asked_limits(request)?;
        let limits = &mut request.limits;
        hold(self.cpu.as_ref(), &mut limits.cpu, "spec.limits.cpu")?;
        hold(self.cpu_weight.as_ref(), &mut limits.cpu_weight, "spec.limits.cpu_weight")?;
        hold(self.memory.as_ref(), &mut limits.memory, "spec.limits.memory")?;
        hold(self.memory_high.as_ref(), &mut limits.memory_high, "spec.limits.memory_high")?;
        hold(self.pids.as_ref(), &mut limits.pids, "spec.limits.pids")?;
        hold(self.output.as_ref(), &mut request.output_limit, "spec.output_limit")?;
        self.swap(request)?;
        self.io(&mut request.limits.io)?;
        let mut timeout = request.timeout_msec.map(Timeout);
        hold(self.timeout.as_ref(), &mut timeout, "spec.timeout_msec")?;
        request.timeout_msec = timeout.map(|Timeout(msec)| msec);
        Ok(())
    }

    /// All lines, in no order of theirs.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        fn of<T>(ruled: Option<&Ruled<T>>) -> Option<&Rule> {
            ruled.map(|ruled| &ruled.rule)
        }
        let asked = of(self.limits.as_ref());
        let limits = [of(self.cpu.as_ref()), of(self.cpu_weight.as_ref()), of(self.memory.as_ref())];
        let more = [of(self.memory_high.as_ref()), of(self.swap.as_ref()), of(self.pids.as_ref())];
        let io = self.io.iter().map(|io| &io.rule);
        let others = [of(self.timeout.as_ref()), of(self.output.as_ref()), of(self.running.as_ref())];
        let who = [of(self.run_as.as_ref()), of(self.users.as_ref())];
        let what = [of(self.commands.as_ref()), of(self.env.as_ref())];
        let ends = others.into_iter().chain(who).chain(what).flatten();
        asked.into_iter().chain(limits.into_iter().chain(more).flatten()).chain(io).chain(ends)
    }

    /// The OS user of this client's jobs, where its certificate decides that; none also where it names none.
    pub(super) fn os_user(&self, identity: &ClientIdentity) -> Option<String> {
        self.run_as.as_ref().and_then(|run_as| run_as.value.os_user(identity).ok())
    }

    fn user(&self, identity: &ClientIdentity, asked: &mut Option<String>) -> Result<(), Refused> {
        let own = match &self.run_as {
            None => None,
            Some(Ruled { value, rule }) => {
                Some(value.os_user(identity).map_err(|problem| Refused::new("spec.user", problem, rule))?)
            }
        };
        let Some(user) = &asked else {
            *asked = own;
            return Ok(());
        };
        if own.as_ref() == Some(user) || self.users.as_ref().is_some_and(|users| users.value.allow(user)) {
            return Ok(());
        }
        let rule = self.users.as_ref().map(|users| &users.rule);
        let rule = rule.or(self.run_as.as_ref().map(|run_as| &run_as.rule)).cloned();
        let problem = match own {
            Some(own) => format!("{user:?} is not who these jobs run as, {own:?}"),
            None => format!("{user:?} is not an OS user that this role may name"),
        };
        Err(Refused { field: "spec.user".to_owned(), problem, rule })
    }

    fn command(&self, request: &mut JobRequest) -> Result<(), Refused> {
        let Some(Ruled { value: list, rule }) = &self.commands else { return Ok(()) };
        request.command = command::allowed(list, &request.command)
            .map_err(|problem| Refused::new("spec.command", problem, rule))?;
        Ok(())
    }

    /// Under a list of commands no variables, unless they are named: some make any program execute anything.
    fn env(&self, request: &JobRequest) -> Result<(), Refused> {
        let none = Names::Only(Vec::new());
        let (names, rule) = match (&self.env, &self.commands) {
            (Some(env), _) => (&env.value, &env.rule),
            (None, Some(commands)) => (&none, &commands.rule),
            (None, None) => return Ok(()),
        };
        match request.env.iter().position(|(key, _)| !names.allow(key)) {
            None => Ok(()),
            Some(at) => {
                let problem = format!("{:?} is not a variable that this role may set", request.env[at].0);
                Err(Refused::new(format!("spec.env[{at}].key"), problem, rule))
            }
        }
    }

    fn asked_limits(&self, request: &JobRequest) -> Result<(), Refused> {
        let Some(Ruled { value, rule }) = &self.limits else { return Ok(()) };
        match value.refused(self.asked(request)) {
            Some((field, problem)) => Err(Refused::new(field, problem, rule)),
            None => Ok(()),
        }
    }

    /// Every limit that a request can name.
    fn asked(&self, request: &JobRequest) -> [Asked; 9] {
        let limits = &request.limits;
        // Where memory has a ceiling and swap has none, that of swap is 0.
        let swap = self.swap.is_some() || self.memory.is_some();
        let io = limits.io.iter().all(|limit| {
            self.io.iter().any(|Ruled { value: ceiling, .. }| ceiling.target() == limit.target())
        });
        let asked = |field, is_asked, has_ceiling| Asked { field, is_asked, has_ceiling };
        [
            asked("spec.limits.cpu", limits.cpu.is_some(), self.cpu.is_some()),
            asked("spec.limits.cpu_weight", limits.cpu_weight.is_some(), self.cpu_weight.is_some()),
            asked("spec.limits.memory", limits.memory.is_some(), self.memory.is_some()),
            asked("spec.limits.memory_high", limits.memory_high.is_some(), self.memory_high.is_some()),
            asked("spec.limits.swap", limits.swap.is_some(), swap),
            asked("spec.limits.pids", limits.pids.is_some(), self.pids.is_some()),
            asked("spec.limits.io", !limits.io.is_empty(), io),
            asked("spec.timeout_msec", request.timeout_msec.is_some(), self.timeout.is_some()),
            asked("spec.output_limit", request.output_limit.is_some(), self.output.is_some()),
        ]
    }

    /// True if there is a ceiling for any limit.
    pub(super) fn has_ceilings(&self) -> bool {
        let sizes =
            [self.memory.is_some(), self.memory_high.is_some(), self.swap.is_some(), self.output.is_some()];
        let others =
            [self.cpu.is_some(), self.cpu_weight.is_some(), self.pids.is_some(), self.timeout.is_some()];
        sizes.contains(&true) || others.contains(&true) || !self.io.is_empty()
    }

    fn swap(&self, request: &mut JobRequest) -> Result<(), Refused> {
        const FIELD: &str = "spec.limits.swap";
        let is_memory_limited = request.limits.memory.is_some();
        let swap = &mut request.limits.swap;
        match (&self.swap, &self.memory) {
            (Some(_), _) if swap.is_none() && is_memory_limited => Ok(()),
            (Some(ceiling), _) => hold(Some(ceiling), swap, FIELD),
            (None, Some(memory)) => match swap.filter(|swap| *swap > SwapLimit::NONE) {
                Some(asked) => {
                    let problem = format!("{asked} is above the ceiling of 0: only memory has a ceiling");
                    Err(Refused::new(FIELD, problem, &memory.rule))
                }
                None => Ok(()),
            },
            (None, None) => Ok(()),
        }
    }

    /// By the text that names the disk. Another name of the same disk makes two limits for one disk, which are refused
    /// when the job is to be born; limits on other disks do no harm.
    fn io(&self, asked: &mut Vec<IoLimit>) -> Result<(), Refused> {
        for Ruled { value: ceiling, rule } in &self.io {
            match asked.iter_mut().find(|limit| limit.target() == ceiling.target()) {
                None => asked.push(ceiling.clone()),
                Some(limit) => {
                    *limit = limit.within(ceiling.rates()).map_err(|problem| {
                        Refused::new("spec.limits.io", format!("{limit}: {problem}"), rule)
                    })?;
                }
            }
        }
        Ok(())
    }
}

fn hold<T: Ord + Copy + Display>(
    ceiling: Option<&Ruled<Ceiling<T>>>,
    asked: &mut Option<T>,
    field: &str,
) -> Result<(), Refused> {
    let Some(Ruled { value: Ceiling { max, default }, rule }) = ceiling else { return Ok(()) };
    match asked.get_or_insert(*default) {
        asked if *asked > *max => {
            Err(Refused::new(field, format!("{asked} is above the ceiling of {max}"), rule))
        }
        _ => Ok(()),
    }
}
