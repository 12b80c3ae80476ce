//! Which OS users jobs may run as: decided here, so that a worker that was taken over can't choose.

use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{Uid, User, geteuid, getgrouplist};

use super::protocol::{Refusal, RefusalKind};
use crate::shim::birth::Credentials;

/// A user that a job runs as.
#[derive(Clone, Debug)]
pub struct OsUser {
    /// Its name.
    pub name: String,
    /// Its home.
    pub home: PathBuf,
    /// What the process has to become; none when the spawner is that user already and has no right to change.
    pub credentials: Option<Credentials>,
}

/// The users that jobs may run as.
#[derive(Clone, Debug)]
pub struct AllowedUsers {
    default: String,
    others: Vec<String>,
}

/// Why it is not clear as whom jobs run.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// Root, and nobody has said that jobs are to be root, too.
    #[error(
        "a spawner that is root needs --default-user NAME, the OS user of jobs that name none: one that owns nothing \
         (useradd --system jobs), or `--default-user root`; a job that is root can leave its group and its limits"
    )]
    NoDefault,
    /// The spawner's own user can't be looked up.
    #[error("can't look up the spawner's own user, uid {uid}: {errno}")]
    LookUp {
        /// Its number.
        uid: Uid,
        /// What the system said.
        errno: nix::Error,
    },
}

impl AllowedUsers {
    /// `default`: for jobs that name none; without it, the spawner's own user, unless that is root.
    ///
    /// # Errors
    /// When the spawner is root and no default is given, or its own user can't be looked up.
    pub fn new(default: Option<String>, others: Vec<String>) -> Result<Self, UsersError> {
        let uid = geteuid();
        let default = match default {
            Some(name) => name,
            None if uid.is_root() => return Err(UsersError::NoDefault),
            None => {
                let own = User::from_uid(uid).map_err(|errno| UsersError::LookUp { uid, errno })?;
                own.map_or_else(|| uid.to_string(), |user| user.name)
            }
        };
        Ok(Self { default, others })
    }

    /// The user for jobs that name none.
    pub fn default_user(&self) -> &str {
        &self.default
    }

    /// The user to run a job as. `asked` is a name, or a number that is some user's.
    ///
    /// # Errors
    /// When there is no such user, it is not allowed, or the spawner may not become it.
    pub fn resolve(&self, asked: Option<&str>) -> Result<OsUser, Refusal> {
        let Some(asked) = asked else { return self.become_user(&look_up(&self.default)?) };
        let user = look_up(asked)?;
        let allowed = [&self.default].into_iter().chain(&self.others).any(|name| *name == user.name);
        if !allowed {
            let all = [&self.default].into_iter().chain(&self.others).map(String::as_str).collect::<Vec<_>>();
            let known = all.join(", ");
            return Err(refusal(
                RefusalKind::UserNotAllowed,
                format!(
                    "spec.user: jobs may not run as {asked:?}; allowed here: {known} (spawner's --allow-user)"
                ),
            ));
        }
        self.become_user(&user)
    }

    fn become_user(&self, user: &User) -> Result<OsUser, Refusal> {
        let credentials = if geteuid().is_root() {
            let name =
                CString::new(user.name.as_str()).expect("a name from the password database holds no NUL");
            let groups = getgrouplist(&name, user.gid).map_err(|errno| {
                refusal(
                    RefusalKind::Host,
                    format!("spec.user: can't read the groups of {}: {errno}", user.name),
                )
            })?;
            Some(Credentials { uid: user.uid, gid: user.gid, groups })
        } else if user.uid == geteuid() {
            None
        } else {
            let own = Uid::effective();
            return Err(refusal(
                RefusalKind::UserNotAllowed,
                format!(
                    "spec.user: the spawner runs as uid {own} and can't become {}; it must be root for that",
                    user.name
                ),
            ));
        };
        Ok(OsUser { name: user.name.clone(), home: user.dir.clone(), credentials })
    }
}

fn look_up(asked: &str) -> Result<User, Refusal> {
    let found = match asked.parse::<u32>() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(asked),
    };
    match found {
        Ok(Some(user)) => Ok(user),
        Ok(None) => {
            Err(refusal(RefusalKind::InvalidField, format!("spec.user: no user {asked:?} on this host")))
        }
        Err(errno) => Err(refusal(RefusalKind::Host, format!("spec.user: can't look up {asked:?}: {errno}"))),
    }
}

fn refusal(kind: RefusalKind, message: String) -> Refusal {
    Refusal { kind, field: Some("spec.user".to_owned()), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_users_are_allowed_by_name_or_number() {
        let own = User::from_uid(geteuid()).unwrap().unwrap();
        let users = AllowedUsers::new(Some(own.name.clone()), Vec::new()).unwrap();
        assert_eq!(users.resolve(None).unwrap().name, own.name);
        assert_eq!(users.resolve(Some(&own.uid.to_string())).unwrap().name, own.name);
        let other = if own.name == "daemon" { "root" } else { "daemon" };
        let refused = users.resolve(Some(other)).unwrap_err();
        assert_eq!(
            (refused.kind, refused.field.as_deref()),
            (RefusalKind::UserNotAllowed, Some("spec.user"))
        );
        assert!(refused.message.contains(other), "{refused}");
    }

    #[test]
    fn an_unknown_user_is_named() {
        let users = AllowedUsers::new(Some("root".to_owned()), Vec::new()).unwrap();
        let refused = users.resolve(Some("no-such-user")).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::InvalidField);
        assert!(refused.message.contains("\"no-such-user\""), "{refused}");
    }

    #[test]
    fn root_says_as_whom_jobs_run() {
        let unsaid = AllowedUsers::new(None, Vec::new());
        if geteuid().is_root() {
            let words = unsaid.unwrap_err().to_string();
            for word in ["--default-user NAME", "`--default-user root`", "can leave its group"] {
                assert!(words.contains(word), "{words}");
            }
            assert_eq!(
                AllowedUsers::new(Some("root".to_owned()), Vec::new()).unwrap().default_user(),
                "root"
            );
        } else {
            let own = User::from_uid(geteuid()).unwrap().unwrap();
            assert_eq!(unsaid.unwrap().default_user(), own.name);
        }
    }
}
