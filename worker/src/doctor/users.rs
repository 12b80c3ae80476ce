//! As whom jobs run, where the worker starts its spawner itself. Another spawner has been told, and looks itself.

use nix::unistd::geteuid;

use super::Subject;
use super::finding::Finding;
use crate::config::Spawner;
use crate::spawner::users::{AllowedUsers, UsersError};

const SUBJECT: &str = "jobs' users";

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let Spawner::Own(settings) = &subject.config.spawner else { return Vec::new() };
    let users = match AllowedUsers::new(settings.default_user.clone(), settings.allow_users.clone()) {
        Ok(users) => users,
        Err(error @ UsersError::NoDefault) => {
            let remedy = "--default-user with a user that exists for jobs, or `--default-user root`";
            return vec![Finding::fail(SUBJECT, error.to_string(), remedy)];
        }
        Err(error) => return vec![Finding::fail(SUBJECT, error.to_string(), "mend /etc/passwd")],
    };
    let asked = [None].into_iter().chain(settings.allow_users.iter().map(|name| Some(name.as_str())));
    let refused = asked.filter_map(|name| users.resolve(name).err()).map(|refusal| {
        let remedy = "useradd --system that user, or change --default-user and --allow-user; run as root to change user";
        Finding::fail(SUBJECT, refusal.message, remedy)
    });
    let refused: Vec<_> = refused.collect();
    if !refused.is_empty() {
        return refused;
    }
    let default = users.default_user();
    if geteuid().is_root() && default == "root" {
        let remedy = "--default-user with a user that exists for jobs";
        return vec![Finding::warn(
            SUBJECT,
            "jobs run as root unless they ask for another user: a root job can leave its group",
            remedy,
        )];
    }
    let others = settings.allow_users.join(", ");
    let others = if others.is_empty() { others } else { format!(", or as asked: {others}") };
    vec![Finding::ok(SUBJECT, format!("{default}{others}"))]
}
