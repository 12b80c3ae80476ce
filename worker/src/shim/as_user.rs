//! Look-ups in the file system on behalf of a job's user, with that user's rights: what root sees must not show in an
//! answer, not even that it is there.
//!
//! By the file system's ids (setfsuid(2)), which take root's capabilities over files with them; the shim has one thread.

use std::io;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, setfsgid, setfsuid, setgroups};

use super::birth::Credentials;
use crate::spawner::users::OsUser;

/// Looks something up as a job's user.
///
/// # Errors
/// When the user's rights can't be taken on; nothing is looked up then.
pub(super) fn as_user<T>(user: &OsUser, look_up: impl FnOnce() -> T) -> io::Result<T> {
    let Some(credentials) = &user.credentials else { return Ok(look_up()) };
    let _own = Own::leave_for(credentials)?;
    Ok(look_up())
}

/// The rights of this process, which it has again when this is dropped.
struct Own {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Own {
    fn leave_for(user: &Credentials) -> io::Result<Self> {
        let groups = getgroups()?;
        setgroups(&user.groups)?;
        let own = Self { uid: geteuid(), gid: getegid(), groups };
        setfsgid(user.gid);
        setfsuid(user.uid);
        // Neither call reports a failure; a number that is nobody's changes nothing, and tells what is so.
        let now = (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
        if now == (user.uid, user.gid) { Ok(own) } else { Err(Errno::EPERM.into()) }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
        // Only a process that could change them is here. With another's groups it must not go on.
        setgroups(&self.groups).expect("a process that has changed its groups may change them back");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn nobody() -> OsUser {
        let credentials = geteuid().is_root().then(|| Credentials {
            uid: Uid::from_raw(65534),
            gid: Gid::from_raw(65534),
            groups: vec![Gid::from_raw(65534)],
        });
        OsUser { name: "nobody".to_owned(), home: "/".into(), credentials }
    }

    #[test]
    fn only_what_the_user_may_see_is_seen_and_afterwards_all_again() {
        let hidden = tempfile::tempdir().unwrap();
        fs::set_permissions(hidden.path(), Permissions::from_mode(0o700)).unwrap();
        fs::write(hidden.path().join("there"), "x").unwrap();
        let look = |name: &str| fs::metadata(hidden.path().join(name)).map(|_| ());
        if geteuid().is_root() {
            let seen = std::thread::scope(|scope| {
                // The file system's ids are a thread's own.
                scope
                    .spawn(|| as_user(&nobody(), || (look("there"), look("absent"))).unwrap())
                    .join()
                    .unwrap()
            });
            let words = |seen: io::Result<()>| seen.unwrap_err().to_string();
            assert_eq!(words(seen.0), words(seen.1), "a name that is there can be told from one that is not");
        }
        assert!(look("there").is_ok() && look("absent").is_err());
        let own = OsUser { credentials: None, ..nobody() };
        assert!(as_user(&own, || look("there")).unwrap().is_ok());
    }
}
