//! What a policy would decide of something that nobody has asked for.

mod start;

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use self::start::{Start, described};
use super::action::{self, Verb};
use super::identify::Fingerprint;
use super::{Claim, Denial, Policy};
use crate::identity::{ClientIdentity, RoleProblem};
use crate::job::{JobId, Owner, Whose};

/// Who asks for what.
#[derive(Args, Debug)]
pub struct Question {
    /// The policy (TOML) [default: the built-in one].
    pub(super) file: Option<PathBuf>,
    /// What is asked for.
    #[arg(long, value_parser = PossibleValuesParser::new(Verb::ALL.map(Verb::as_str)).map(|text| verb(&text)))]
    action: Verb,

    /// The role in the certificate's extension.
    #[arg(long, help_heading = "The client")]
    role: Option<String>,
    /// The certificate's common name.
    #[arg(long, default_value = "somebody", help_heading = "The client")]
    name: String,
    /// A URI name of the certificate; repeatable. The first is the client's name.
    #[arg(long, value_name = "URI", help_heading = "The client")]
    uri: Vec<String>,
    /// The certificate's SHA-256.
    #[arg(long, value_name = "HEX", help_heading = "The client")]
    fingerprint: Option<Fingerprint>,
    /// The certificate's serial number.
    #[arg(long, value_name = "HEX", help_heading = "The client")]
    serial: Option<String>,

    /// The name of the client whose job it is [default: both are answered, one's own job and another's].
    #[arg(long, value_name = "NAME", help_heading = "The job")]
    job_owner: Option<String>,
    /// The serial number that it was started with.
    #[arg(long, value_name = "HEX", help_heading = "The job")]
    job_serial: Option<String>,
    /// The SHA-256 of the certificate that it was started with.
    #[arg(long, value_name = "HEX", help_heading = "The job")]
    job_fingerprint: Option<Fingerprint>,
    /// The OS user that it was started for.
    #[arg(long, value_name = "USER", help_heading = "The job")]
    job_user: Option<String>,

    #[command(flatten)]
    start: Start,
}

fn verb(text: &str) -> Verb {
    Verb::ALL.into_iter().find(|verb| verb.as_str() == text).expect("one of the possible values")
}

/// What would be decided.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) is_allowed: bool,
    lines: Vec<String>,
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Question {
    /// What the policy would decide.
    pub(super) fn answer(&self, policy: &Policy) -> Answer {
        let identity = Arc::new(self.identity());
        match self.action {
            Verb::Start => self.start(policy, &identity),
            verb @ (Verb::List | Verb::Renew) => answer("", line(policy, &identity, verb, None)),
            verb => match self.whose() {
                Some(whose) => answer("", line(policy, &identity, verb, Some(&whose))),
                None => both(policy, &identity, verb),
            },
        }
    }

    fn start(&self, policy: &Policy, identity: &Arc<ClientIdentity>) -> Answer {
        let action = action::Start { id: JobId::random(), request: self.start.request() };
        let permit = match policy.decide(identity, action, None) {
            Ok(permit) => permit,
            Err(denial) => return answer("", Err(denial)),
        };
        let mut lines = vec![format!("allowed by {}", permit.rule())];
        lines.extend(described(&permit.action().request));
        let running =
            permit.max_running().map(|max| format!("  at most {} at a time, by {}", max.jobs, max.rule));
        lines.extend(running);
        Answer { is_allowed: true, lines }
    }

    fn identity(&self) -> ClientIdentity {
        ClientIdentity {
            name: self.uri.first().unwrap_or(&self.name).clone(),
            common_name: self.name.clone(),
            role: self.role.clone().ok_or(RoleProblem::Missing),
            serial: self.serial.as_deref().map(serial).unwrap_or_default(),
            fingerprint_sha256: self.fingerprint.as_ref().map(text).unwrap_or_default(),
            uris: self.uri.clone(),
            dns_names: Vec::new(),
            not_after_unix_sec: i64::MAX,
        }
    }

    /// None where nothing is said of the job.
    fn whose(&self) -> Option<Whose> {
        let given = [self.job_owner.is_some(), self.job_serial.is_some(), self.job_fingerprint.is_some()];
        if !given.contains(&true) && self.job_user.is_none() {
            return None;
        }
        let mut whose = Whose { os_user: self.job_user.clone(), ..others_job() };
        let owner = &mut whose.owner;
        owner.name = self.job_owner.clone().unwrap_or(owner.name.clone());
        owner.serial = self.job_serial.as_deref().map_or(owner.serial.clone(), serial);
        let fingerprint = self.job_fingerprint.as_ref();
        owner.fingerprint_sha256 = fingerprint.map_or(owner.fingerprint_sha256.clone(), text);
        Some(whose)
    }
}

/// As identities have it, from what openssl prints.
fn serial(text: &str) -> String {
    text.replace(':', "").trim_start_matches('0').to_ascii_lowercase()
}

fn text(fingerprint: &Fingerprint) -> String {
    fingerprint.as_str().to_owned()
}

fn both(policy: &Policy, identity: &ClientIdentity, verb: Verb) -> Answer {
    let own = policy.admits(identity, verb).map(|admission| own_job(identity, admission.claim()));
    let own = own.and_then(|whose| line(policy, identity, verb, Some(&whose)));
    let others = line(policy, identity, verb, Some(&others_job()));
    if own == others {
        return answer("", own);
    }
    let (own, others) = (answer("own job: ", own), answer("another's job: ", others));
    Answer { is_allowed: own.is_allowed && others.is_allowed, lines: [own.lines, others.lines].concat() }
}

fn own_job(identity: &ClientIdentity, claim: &Claim) -> Whose {
    let os_user = match claim {
        Claim::OsUser(user) => user.clone(),
        _ => None,
    };
    Whose { owner: identity.owner(), os_user, created_unix_usec: 0 }
}

/// No certificate has these, not even one of which nothing was said.
fn others_job() -> Whose {
    let nobodys = || "\u{0}".to_owned();
    let (name, common_name, role, serial) = (nobodys(), nobodys(), nobodys(), nobodys());
    let owner = Owner { name, common_name, role, serial, fingerprint_sha256: nobodys() };
    Whose { owner, os_user: None, created_unix_usec: 0 }
}

type Decided = Result<String, Denial>;

fn line(policy: &Policy, identity: &ClientIdentity, verb: Verb, whose: Option<&Whose>) -> Decided {
    policy.still_allows(identity, verb, whose).map(ToString::to_string)
}

fn answer(what: &str, decided: Decided) -> Answer {
    match decided {
        Ok(rule) => Answer { is_allowed: true, lines: vec![format!("{what}allowed by {rule}")] },
        Err(denial) => {
            let lines = vec![format!("{what}denied by {}", denial.rule()), format!("  {denial}")];
            Answer { is_allowed: false, lines }
        }
    }
}
