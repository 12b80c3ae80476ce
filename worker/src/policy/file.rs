//! A policy's file: its text becomes types, once, and everything that is wrong with it is named with its line.
//!
//! ```toml
//! identify = "extension"              # or "fingerprint", "uri"
//! ownership = "name"                  # or "serial", "fingerprint", "os_user"
//!
//! [roles.user]                        # a role and what it may do: "none", "own" or "any"
//! all = "own"                         # what is not named here
//! status = "any"                      # start, stop, status, stream, list, wait, signal, remove
//! renew = "none"                      # its certificate, over the API; "own" where neither this nor all is there
//! fingerprints = ["9F:86:…"]          # with identify = "fingerprint"
//! uris = ["spiffe://example.org/a"]   # with identify = "uri"
//!
//! [roles.user.jobs]                   # what its jobs may be
//! limits = "ceiling"                  # which may be asked for: "none", "ceiling" (those below), "any" (unless given)
//! memory = { max = "512MiB", default = "128MiB" }    # or "512MiB"; cpu, cpu_weight, memory_high, swap, pids,
//! io = ["/data:20M"]                                 # timeout, output likewise
//! running = 4                         # at a time, of one owner
//! users = ["build"]                   # what --user may name; or "any"
//! run_as = "common_name"              # or { uri = "prefix" }, { user = "build" }, { names = { alice = "al" } }
//! commands = ["/usr/bin/make", "/opt/tools/"]
//! env = ["CI", "BUILD_*"]             # what --env may set; or "any"
//! ```

mod table;

use std::fmt::Display;
use std::ops::Range;

use jobworker_limits::IoLimit;
use toml::Spanned;

use self::table::{JobsTable, PolicyTable, RoleTable};
use super::action::Verb;
use super::ceiling::Ceiling;
use super::command::AllowedCommand;
use super::envelope::{Envelope, Ruled};
use super::grant::Grant;
use super::identify::Identify;
use super::role::{Right, Role};
use super::rule::{Rule, Source};
use super::{Policy, PolicyError};

/// The longest name of a role, in bytes: what a certificate's extension holds.
const MAX_ROLE_BYTES: usize = 127;

/// Reads a policy; `name` is what its rules and errors call it.
pub(super) fn parse(name: &str, text: &str) -> Result<Policy, PolicyError> {
    let source = Source { name, text };
    let table: PolicyTable = toml::from_str(text).map_err(|error| source.malformed(&error))?;
    let identify = table.identify.map(Spanned::into_inner).unwrap_or_default();
    if table.roles.is_empty() {
        let problem = "it has no roles, so nobody may do anything; one begins like [roles.admin]".to_owned();
        return Err(PolicyError::Wrong { file: name.to_owned(), problem });
    }
    let mut named: Vec<_> = table.roles.into_iter().collect();
    named.sort_by_key(|(name, _)| name.span().start);
    let roles = named
        .into_iter()
        .map(|(name, table)| role(source, identify, &name, table))
        .collect::<Result<_, _>>()?;
    Ok(Policy {
        identify,
        ownership: table.ownership.map(Spanned::into_inner).unwrap_or_default(),
        roles,
        no_role: source.rule_of_all(format_args!("identify = {:?}, and no role", identify.as_str())),
    })
}

fn role(
    source: Source<'_>,
    identify: Identify,
    key: &Spanned<String>,
    table: RoleTable,
) -> Result<Role, PolicyError> {
    let name = key.get_ref().clone();
    if name.is_empty() || name.len() > MAX_ROLE_BYTES || name.chars().any(char::is_control) {
        let problem = format!("a role's name has 1 to {MAX_ROLE_BYTES} bytes and no control characters");
        return Err(source.wrong(&key.span(), problem));
    }
    let mut rights = Verb::ALL
        .into_iter()
        .filter_map(|verb| right(source, &name, &table, verb).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    let rule = source.rule(&key.span(), format_args!("[roles.{name}]"));
    let renew = renewal(source, identify, &rule, &rights, table.renew.as_ref())?;
    rights.retain(|right| right.verb != Verb::Renew);
    rights.push(renew);
    let lists = [
        (Identify::Fingerprint, "fingerprints", table.fingerprints.as_ref().map(Spanned::span)),
        (Identify::Uri, "uris", table.uris.as_ref().map(Spanned::span)),
    ];
    for (by, list, place) in lists {
        if let Some(place) = place.filter(|_| by != identify) {
            let problem = format!(
                "{list} give nobody this role, because roles come from identify = {:?}; identify = {:?} would use them",
                identify.as_str(),
                by.as_str()
            );
            return Err(source.wrong(&place, problem));
        }
    }
    let fingerprints = members(table.fingerprints);
    let uris = members(table.uris);
    let envelope = envelope(source, &format!("roles.{name}.jobs"), table.jobs)?;
    Ok(Role { name, rule, rights, fingerprints, uris, envelope })
}

const BY_FINGERPRINT: &str =
    "a renewed certificate has another fingerprint, which no list names yet, and so no role";

/// Who holds a certificate may have the next one, unless a line forbids it: the CA has given it to them, and a worker
/// renews none before it is told to (--renew-ca).
fn renewal(
    source: Source<'_>,
    identify: Identify,
    role: &Rule,
    rights: &[Right],
    line: Option<&Spanned<Grant>>,
) -> Result<Right, PolicyError> {
    let verb = Verb::Renew;
    let named = rights.iter().find(|right| right.verb == verb);
    match (named, line) {
        (Some(right), _) if right.reach == Grant::None => Ok(right.clone()),
        (_, Some(line)) if identify == Identify::Fingerprint => {
            Err(source.wrong(&line.span(), BY_FINGERPRINT))
        }
        _ if identify == Identify::Fingerprint => {
            let rule = source.rule_of_all(format_args!("identify = \"fingerprint\": {BY_FINGERPRINT}"));
            Ok(Right { verb, reach: Grant::None, rule })
        }
        // Of `all = "any"`, too: there is no other certificate than one's own.
        (Some(right), _) => Ok(Right { reach: Grant::Own, ..right.clone() }),
        (None, _) => Ok(Right { verb, reach: Grant::Own, rule: role.and("does not forbid renew") }),
    }
}

fn members<T>(list: Option<Spanned<Vec<Spanned<T>>>>) -> Vec<T> {
    let list = list.map(Spanned::into_inner).unwrap_or_default();
    list.into_iter().map(Spanned::into_inner).collect()
}

fn right(
    source: Source<'_>,
    role: &str,
    table: &RoleTable,
    verb: Verb,
) -> Result<Option<Right>, PolicyError> {
    let (key, grant) = match (table.grant(verb), &table.all) {
        (Some(grant), _) => (verb.as_str(), grant),
        (None, Some(all)) => ("all", all),
        (None, None) => return Ok(None),
    };
    let reach = *grant.get_ref();
    if key == "start" && reach == Grant::Any {
        let problem = "a job belongs to whoever starts it; \"own\" is right here, or \"none\"";
        return Err(source.wrong(&grant.span(), problem));
    }
    if key == "renew" && reach == Grant::Any {
        let problem =
            "a client renews the certificate that it is connected with; \"own\" is right here, or \"none\"";
        return Err(source.wrong(&grant.span(), problem));
    }
    let rule = source.rule(&grant.span(), format_args!("roles.{role}.{key} = \"{reach}\""));
    Ok(Some(Right { verb, reach, rule }))
}

fn envelope(source: Source<'_>, key: &str, jobs: JobsTable) -> Result<Envelope, PolicyError> {
    let place = Keys { source, key };
    if let Some(io) = jobs.io.iter().find(|io| io.get_ref().target().is_none()) {
        let problem = format!(
            "it names no disk: then it would be that of the job's working directory, which is the client's choice; \
             like \"/:{}\"",
            io.get_ref().rates()
        );
        return Err(source.wrong(&io.span(), problem));
    }
    let io = |io: Spanned<IoLimit>| place.rule("io", io, |io| format!("\"{io}\""));
    Ok(Envelope {
        limits: jobs.limits.map(|limits| place.rule("limits", limits, |limits| format!("\"{limits}\""))),
        cpu: place.ceiling("cpu", jobs.cpu),
        cpu_weight: place.ceiling("cpu_weight", jobs.cpu_weight),
        memory: place.ceiling("memory", jobs.memory),
        memory_high: place.ceiling("memory_high", jobs.memory_high),
        swap: place.ceiling("swap", jobs.swap),
        pids: place.ceiling("pids", jobs.pids),
        io: jobs.io.into_iter().map(io).collect(),
        timeout: place.ceiling("timeout", jobs.timeout),
        output: place.ceiling("output", jobs.output),
        running: jobs.running.map(|running| place.rule("running", running, ToString::to_string)),
        run_as: jobs.run_as.map(|run_as| place.rule("run_as", run_as, ToString::to_string)),
        users: jobs.users.map(|users| place.rule("users", users, ToString::to_string)),
        commands: jobs.commands.map(|list| place.rule("commands", list, |list| texts(list))),
        env: jobs.env.map(|env| place.rule("env", env, ToString::to_string)),
    })
}

fn texts(list: &[AllowedCommand]) -> String {
    format!("{:?}", list.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// Where the keys of a `[roles.….jobs]` stand.
struct Keys<'a> {
    source: Source<'a>,
    key: &'a str,
}

impl Keys<'_> {
    fn ceiling<T: Display>(
        &self,
        name: &str,
        ceiling: Option<Spanned<Ceiling<T>>>,
    ) -> Option<Ruled<Ceiling<T>>> {
        Some(self.rule(name, ceiling?, |ceiling| {
            format!("{{ max = \"{}\", default = \"{}\" }}", ceiling.max, ceiling.default)
        }))
    }

    fn rule<T>(&self, name: &str, value: Spanned<T>, words: impl FnOnce(&T) -> String) -> Ruled<T> {
        let place: Range<usize> = value.span();
        let rule = self.source.rule(&place, format_args!("{}.{name} = {}", self.key, words(value.get_ref())));
        Ruled { value: value.into_inner(), rule }
    }
}
