//! What a policy comes to, for the one who wrote it: its roles and rights, and what probably was not meant.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Policy;
use super::action::Verb;
use super::asked_limits::AskedLimits;
use super::envelope::Ruled;
use super::grant::{Grant, Ownership};
use super::identify::{Fingerprint, Identify};
use super::role::Role;

impl Policy {
    /// Roles and what each may do.
    pub(super) fn summary(&self) -> String {
        let mut text = format!("roles come from: {}\n", self.identify.as_str());
        for role in &self.roles {
            let Role { name, rights, .. } = role;
            let reaching = |reach| {
                let verbs: Vec<_> = rights
                    .iter()
                    .filter(|right| right.reach == reach && right.verb != Verb::Renew)
                    .map(|right| right.verb.as_str())
                    .collect();
                verbs.join(", ")
            };
            // Writing to a String can't fail.
            let _ = writeln!(text, "role {name}:");
            for (reach, words) in [(Grant::Any, "any jobs"), (Grant::Own, "own jobs")] {
                let verbs = reaching(reach);
                if !verbs.is_empty() {
                    let _ = writeln!(text, "  on {words}: {verbs}");
                }
            }
            if role.right(Verb::Renew).is_some_and(|right| right.reach != Grant::None) {
                let _ = writeln!(text, "  its certificate: renew");
            }
            for rule in role.envelope.rules() {
                let _ = writeln!(text, "  {rule}");
            }
            if let Some(limits) = &role.envelope.limits {
                let _ = writeln!(text, "  limits: {}", limits.value.explained());
            }
        }
        text
    }

    /// As [`Self::warnings`], and whether its file is somebody else's to change.
    pub(super) fn warnings_of_file(&self, path: &Path) -> Vec<String> {
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
        let mut warnings = self.warnings();
        if mode & 0o022 != 0 {
            let words = "its group or everyone may write to it, and so decide who may do what";
            warnings.push(format!("{}: {words} (mode {:03o})", path.display(), mode & 0o777));
        }
        warnings
    }

    /// What is allowed in a policy, and makes little sense.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (at, role) in self.roles.iter().enumerate() {
            self.warn_of_members(role, &self.roles[..at], &mut warnings);
            let may = |verb| role.right(verb).is_some_and(|right| right.reach != Grant::None);
            if !Verb::ALL.into_iter().any(|verb| verb != Verb::Renew && may(verb)) {
                warnings.push(format!("{}: it may do nothing", role.rule));
            }
            if !may(Verb::Start) && role.envelope.rules().next().is_some_and(|_| !self.owns_by_os_user()) {
                warnings.push(format!("{}: its jobs are described, and it may not start any", role.rule));
            }
            self.warn_of_limits(role, &mut warnings);
            self.warn_of_shared_users(role, &mut warnings);
            if self.owns_by_os_user() && role.envelope.run_as.is_none() && role.reaches_own() {
                warnings
                    .push(format!("{}: ownership = \"os_user\" and no run_as: no job is its own", role.rule));
            }
        }
        warnings
    }

    fn owns_by_os_user(&self) -> bool {
        self.ownership == Ownership::OsUser
    }

    fn warn_of_limits(&self, role: &Role, warnings: &mut Vec<String>) {
        let Some(limits) = &role.envelope.limits else { return };
        if limits.value == AskedLimits::Ceiling && !role.envelope.has_ceilings() {
            let words = "there is no ceiling, so no limit may be asked for; limits = \"none\" would say so";
            warnings.push(format!("{}: {words}", limits.rule));
        }
    }

    /// To the kernel, processes of one OS user are each other's. Where a role may do everything to all jobs anyway, that
    /// breaks no promise.
    fn warn_of_shared_users(&self, role: &Role, warnings: &mut Vec<String>) {
        let reach = |verb| role.right(verb).map_or(Grant::None, |right| right.reach);
        let may_touch_all =
            [Verb::Stop, Verb::Signal, Verb::Stream].iter().all(|verb| reach(*verb) == Grant::Any);
        if reach(Verb::Start) == Grant::None || may_touch_all {
            return;
        }
        let shared = match &role.envelope.run_as {
            // Then whoever shares it owns the jobs.
            _ if self.owns_by_os_user() => None,
            None => Some((
                &role.rule,
                "all jobs of its clients run as one OS user, the spawner's default".to_owned(),
            )),
            Some(Ruled { value, rule }) => value.shared().map(|words| (rule, words)),
        };
        let named = role.envelope.users.as_ref().filter(|users| users.value.allow_some());
        let named = named.map(|users| {
            (&users.rule, "its clients may name an OS user that others' jobs run as".to_owned())
        });
        warnings.extend([shared, named].into_iter().flatten().map(|(rule, words)| {
            format!(
                "{rule}: {words}: a job can read and end the other jobs of that user, whatever the policy says; \
                 run_as = \"common_name\" without users gives each client an OS user of its own"
            )
        }));
    }

    fn warn_of_members(&self, role: &Role, before: &[Role], warnings: &mut Vec<String>) {
        let is_empty = match self.identify {
            Identify::Extension => false,
            Identify::Fingerprint => role.fingerprints.is_empty(),
            Identify::Uri => role.uris.is_empty(),
        };
        if is_empty {
            warnings.push(format!("{}: nobody has it, because its list is empty", role.rule));
        }
        for first in before {
            let fingerprints = role.fingerprints.iter().filter(|member| first.fingerprints.contains(member));
            let uris = role.uris.iter().filter(|uri| first.uris.contains(uri));
            let twice = fingerprints.map(Fingerprint::as_str).chain(uris.map(String::as_str));
            warnings.extend(twice.map(|member| {
                format!(
                    "{}: {member} has the role {:?}, which lists it as well and stands first",
                    role.rule, first.name
                )
            }));
        }
    }
}

impl Role {
    fn reaches_own(&self) -> bool {
        self.rights
            .iter()
            .any(|right| right.reach == Grant::Own && !matches!(right.verb, Verb::Start | Verb::Renew))
    }
}
