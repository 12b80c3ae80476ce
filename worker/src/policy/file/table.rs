//! The file's tables as TOML has them: each value a type of its own already, with its place in the text.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use jobworker_limits::{CpuLimit, CpuWeight, IoLimit, MemorySize, OutputLimit, PidsLimit, SwapLimit};
use serde::Deserialize;
use toml::Spanned;

use crate::policy::action::Verb;
use crate::policy::asked_limits::AskedLimits;
use crate::policy::ceiling::{Ceiling, Timeout};
use crate::policy::command::AllowedCommand;
use crate::policy::grant::{Grant, Ownership};
use crate::policy::identify::{Fingerprint, Identify};
use crate::policy::names::Names;
use crate::policy::run_as::RunAs;

/// The file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PolicyTable {
    pub(super) identify: Option<Spanned<Identify>>,
    pub(super) ownership: Option<Spanned<Ownership>>,
    pub(super) roles: BTreeMap<Spanned<String>, RoleTable>,
}

/// `[roles.NAME]`
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RoleTable {
    pub(super) all: Option<Spanned<Grant>>,
    pub(super) start: Option<Spanned<Grant>>,
    pub(super) stop: Option<Spanned<Grant>>,
    pub(super) status: Option<Spanned<Grant>>,
    pub(super) stream: Option<Spanned<Grant>>,
    pub(super) list: Option<Spanned<Grant>>,
    pub(super) wait: Option<Spanned<Grant>>,
    pub(super) signal: Option<Spanned<Grant>>,
    pub(super) remove: Option<Spanned<Grant>>,
    pub(super) renew: Option<Spanned<Grant>>,
    pub(super) fingerprints: Option<Spanned<Vec<Spanned<Fingerprint>>>>,
    pub(super) uris: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) jobs: JobsTable,
}

/// `[roles.NAME.jobs]`
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct JobsTable {
    pub(super) limits: Option<Spanned<AskedLimits>>,
    pub(super) cpu: Option<Spanned<Ceiling<CpuLimit>>>,
    pub(super) cpu_weight: Option<Spanned<Ceiling<CpuWeight>>>,
    pub(super) memory: Option<Spanned<Ceiling<MemorySize>>>,
    pub(super) memory_high: Option<Spanned<Ceiling<MemorySize>>>,
    pub(super) swap: Option<Spanned<Ceiling<SwapLimit>>>,
    pub(super) pids: Option<Spanned<Ceiling<PidsLimit>>>,
    pub(super) io: Vec<Spanned<IoLimit>>,
    pub(super) timeout: Option<Spanned<Ceiling<Timeout>>>,
    pub(super) output: Option<Spanned<Ceiling<OutputLimit>>>,
    pub(super) running: Option<Spanned<NonZeroU32>>,
    pub(super) run_as: Option<Spanned<RunAs>>,
    pub(super) users: Option<Spanned<Names>>,
    pub(super) commands: Option<Spanned<Vec<AllowedCommand>>>,
    pub(super) env: Option<Spanned<Names>>,
}

impl RoleTable {
    pub(super) fn grant(&self, verb: Verb) -> Option<&Spanned<Grant>> {
        match verb {
            Verb::Start => self.start.as_ref(),
            Verb::Stop => self.stop.as_ref(),
            Verb::Status => self.status.as_ref(),
            Verb::Stream => self.stream.as_ref(),
            Verb::List => self.list.as_ref(),
            Verb::Wait => self.wait.as_ref(),
            Verb::Signal => self.signal.as_ref(),
            Verb::Remove => self.remove.as_ref(),
            Verb::Renew => self.renew.as_ref(),
        }
    }
}
