//! What the spawner and its shims know of the host: the subtree, the folders, the users. Made once, copied by fork.

use std::fs;

use anyhow::Context;
use jobworker_limits::Base;
use nix::unistd::{Gid, Uid, User, geteuid};

use super::Args;
use super::users::AllowedUsers;
use crate::shim::attributes::Attributes;
use crate::shim::record::{JobsDirWriter, Readers};

/// The host, as far as jobs need it.
pub struct Host {
    /// The delegated subtree; none where there is no writable one.
    pub base: Option<Base>,
    /// Why there is none, and what to do.
    pub without_base: String,
    /// Where the jobs' folders are.
    pub jobs: JobsDirWriter,
    /// As whom jobs may run.
    pub users: AllowedUsers,
    /// What jobs begin with.
    pub attributes: Attributes,
    /// Who reads the jobs' folders.
    pub readers: Readers,
    /// Who may connect, besides root and the spawner's own user.
    pub worker: Option<(Uid, Gid)>,
    /// This boot's id.
    pub boot_id: String,
}

impl Host {
    /// Prepares the subtree, moves this process into its leaf, and makes the state folder.
    ///
    /// # Errors
    /// When the state folder can't be made or trusted, or a user does not exist. A missing subtree is no error: jobs without
    /// limits run.
    pub fn prepare(args: &Args) -> anyhow::Result<Self> {
        // First: where it refuses something, nothing has been made.
        let attributes = args.attributes()?;
        let worker = args.worker_user.as_deref().map(worker_user).transpose()?;
        let readers = Readers { group: worker.map(|(_, gid)| gid) };
        let jobs = JobsDirWriter::make(&args.state_dir, worker)
            .with_context(|| format!("can't work in the state folder {}", args.state_dir.display()))?;
        let (base, without_base) =
            match Base::find(args.cgroup.as_deref()).and_then(|path| Base::prepare(&path)) {
                Ok(base) => (Some(base), String::new()),
                Err(error) if args.cgroup.is_some() => {
                    return Err(error).context("can't use the subtree of --cgroup");
                }
                Err(error) => (None, format!("there is no writable cgroup v2 subtree here: {error}")),
            };
        let users = AllowedUsers::new(args.default_user.clone(), args.allow_user.clone())?;
        users.resolve(None).context("can't run jobs as the default user")?;
        let boot_id =
            fs::read_to_string("/proc/sys/kernel/random/boot_id").context("can't read the boot id")?;
        let boot_id = boot_id.trim().to_owned();
        Ok(Self { base, without_base, jobs, users, attributes, readers, worker, boot_id })
    }

    /// Says in the log what the host gives.
    pub fn describe(&self) {
        match &self.base {
            Some(base) => {
                tracing::info!(cgroup = %base.path().display(), "jobs' groups go here");
                for (controller, reason) in base.unavailable() {
                    tracing::warn!(%controller, %reason, "no limits by this controller");
                }
            }
            None => tracing::warn!("jobs run without groups and limits: {}", self.without_base),
        }
        let user = self.users.default_user();
        if geteuid().is_root() && user == "root" {
            tracing::warn!(
                "jobs run as root unless they ask for another user (--default-user): a root job can leave its group"
            );
        } else {
            tracing::info!(user, "jobs run as this user unless they ask for another");
        }
    }

    /// Whether a process of this user may ask for jobs.
    pub fn admits(&self, uid: Uid) -> bool {
        uid.is_root() || uid == geteuid() || self.worker.is_some_and(|(worker, _)| worker == uid)
    }
}

fn worker_user(name: &str) -> anyhow::Result<(Uid, Gid)> {
    let user = User::from_name(name).with_context(|| format!("can't look up --worker-user {name:?}"))?;
    let user = user.with_context(|| format!("--worker-user: no user {name:?} on this host"))?;
    Ok((user.uid, user.gid))
}
