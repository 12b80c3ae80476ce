//! The delegated subtree: prepared once by the spawner, then it creates a group with its limits for each job.
//!
//! ```text
//! <base>/       no processes: a group with controllers enabled below it may hold none
//!   shims/      the process that prepared the base, and its children
//!   jobs/<id>/  one job
//! ```
//! Nothing is written outside `<base>`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::enforce::{IoPlan, enforce, resolve_io};
use crate::find::{is_on_v1, own_base};
use crate::interface::{read, write};
use crate::{BaseError, Controller, Group, GroupError, InterfaceError, Limits, members};

/// The leaf of the spawner and its shims.
pub(crate) const SHIMS: &str = "shims";
pub(crate) const JOBS: &str = "jobs";

/// A prepared subtree.
#[derive(Debug, Clone)]
pub struct Base {
    path: PathBuf,
    unavailable: BTreeMap<Controller, String>,
}

impl Base {
    /// The folder to use as base: `explicit`, else this process's own cgroup v2 group (or the one above, when it is
    /// the `shims` or `worker` of an earlier run). Writes nothing.
    ///
    /// # Errors
    /// When `explicit` is no cgroup v2 group, or no cgroup v2 mount shows this process's group.
    pub fn find(explicit: Option<&Path>) -> Result<PathBuf, BaseError> {
        let path = explicit.map_or_else(own_base, |path| Ok(path.to_path_buf()))?;
        check_is_group(&path)?;
        Ok(path)
    }

    /// Makes `path` ready for jobs: creates `shims/` and `jobs/`, moves this process into `shims/`, and enables the
    /// controllers one by one. One that cannot be enabled is remembered with the reason and is no error.
    ///
    /// # Errors
    /// When `path` is no cgroup v2 group, or is not ours to write.
    pub fn prepare(path: &Path) -> Result<Base, BaseError> {
        check_is_group(path)?;
        create(&path.join(JOBS)).map_err(|reason| not_delegated(path, reason))?;
        enter_leaf(path, SHIMS)?;
        let mut unavailable = BTreeMap::new();
        for controller in Controller::ALL {
            let enabled = enable(path, controller).and_then(|()| enable(&path.join(JOBS), controller));
            if let Err(reason) = enabled {
                unavailable.insert(controller, reason);
            }
        }
        Ok(Base { path: path.to_path_buf(), unavailable })
    }

    /// A base that another process has prepared, and what that one says is unavailable. Writes nothing.
    ///
    /// # Errors
    /// When `path` is no cgroup v2 group.
    pub fn prepared(path: &Path, unavailable: BTreeMap<Controller, String>) -> Result<Base, BaseError> {
        check_is_group(path)?;
        Ok(Base { path: path.to_path_buf(), unavailable })
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that holds the jobs' groups.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        self.path.join(JOBS)
    }

    /// The group of the process that prepared the base, and of its children.
    #[must_use]
    pub fn shims(&self) -> PathBuf {
        self.path.join(SHIMS)
    }

    /// The controllers that jobs cannot have here, each with the reason and what to do.
    #[must_use]
    pub fn unavailable(&self) -> &BTreeMap<Controller, String> {
        &self.unavailable
    }

    /// The folder of the group of that name, whether or not it exists.
    ///
    /// # Errors
    /// When the name is anything but 1 to 255 of `A-Z a-z 0-9 -`.
    pub fn group(&self, name: &str) -> Result<PathBuf, GroupError> {
        let fits = (1..=255).contains(&name.len());
        if fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            Ok(self.jobs().join(name))
        } else {
            Err(GroupError::Name { name: name.to_owned() })
        }
    }

    /// Creates an empty group with its limits in force, each read back. IO limits without a target are for the disk
    /// of `io_default`. Under a memory limit swap is 0 unless limited otherwise; `memory.oom.group` is 1 wherever there is
    /// a memory controller.
    ///
    /// # Errors
    /// When the name is wrong, a controller that a limit needs is missing, a disk cannot be found, the group exists
    /// already, or the kernel refuses a value or puts another in force. No group is left behind then.
    pub fn create_group(&self, name: &str, limits: &Limits, io_default: &Path) -> Result<Group, GroupError> {
        self.check_controllers(limits)?;
        self.create_group_with(name, limits, &resolve_io(&limits.io, io_default)?)
    }

    /// The same, with the disks of `limits.io` already found: by a process that looked with other rights.
    ///
    /// # Errors
    /// As [`Self::create_group`].
    pub fn create_group_with(&self, name: &str, limits: &Limits, io: &IoPlan) -> Result<Group, GroupError> {
        let path = self.group(name)?;
        self.check_controllers(limits)?;
        fs::create_dir(&path).map_err(|reason| InterfaceError::io("create", &path, reason))?;
        let created = enforce(&path, limits, io).and_then(|()| Group::open(&path));
        if created.is_err() {
            // Just created and empty, so this cannot fail in a way that says more than the error at hand.
            let _ = fs::remove_dir(&path);
        }
        created
    }

    /// The names of the groups under `jobs/`, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn leftover_groups(&self) -> Result<Vec<String>, BaseError> {
        let jobs = self.jobs();
        let failed = |reason| InterfaceError::io("list", &jobs, reason);
        let mut names = Vec::new();
        for entry in fs::read_dir(&jobs).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Checks that each controller which a limit needs is there.
    ///
    /// # Errors
    /// [`GroupError::ControllerMissing`], with what to do.
    pub fn check_controllers(&self, limits: &Limits) -> Result<(), GroupError> {
        for controller in limits.controllers() {
            if let Some(remedy) = self.unavailable.get(&controller) {
                let (group, remedy) = (self.path.clone(), remedy.clone());
                return Err(GroupError::ControllerMissing { controller, group, remedy });
            }
        }
        Ok(())
    }
}

/// Moves the calling process into the group `leaf` of `base`, created if it is missing.
///
/// # Errors
/// When the group cannot be created or entered: most often the subtree is not delegated to this user.
pub fn enter_leaf(base: &Path, leaf: &str) -> Result<(), BaseError> {
    let group = base.join(leaf);
    let enter = || -> Result<(), InterfaceError> {
        create(&group)?;
        // 0 is the process that writes (cgroups(7)).
        write(&group.join("cgroup.procs"), "0")
    };
    enter().map_err(|reason| not_delegated(base, reason))
}

fn check_is_group(path: &Path) -> Result<(), BaseError> {
    let kind = statfs(path).map_err(|errno| InterfaceError::io("open", path, errno))?.filesystem_type();
    if kind == CGROUP2_SUPER_MAGIC { Ok(()) } else { Err(BaseError::NotAGroup { path: path.to_path_buf() }) }
}

fn create(group: &Path) -> Result<(), InterfaceError> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(InterfaceError::io("create", group, error))
        }
        _ => Ok(()),
    }
}

fn not_delegated(base: &Path, reason: InterfaceError) -> BaseError {
    match reason.io_error().map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            BaseError::NotDelegated { path: base.to_path_buf(), reason }
        }
        _ => reason.into(),
    }
}

/// Hands a controller down to the groups below `group`; else why it cannot be, and what to do.
fn enable(group: &Path, controller: Controller) -> Result<(), String> {
    let control = group.join("cgroup.subtree_control");
    if lists(&control, controller)? {
        return Ok(());
    }
    if !lists(&group.join("cgroup.controllers"), controller)? {
        return Err(why_not_offered(group, controller));
    }
    write(&control, &format!("+{controller}")).map_err(|error| why_not_enabled(group, &error))?;
    if lists(&control, controller)? {
        Ok(())
    } else {
        Err(format!("wrote +{controller} to {}, but it is not in force", control.display()))
    }
}

pub(crate) fn lists(path: &Path, controller: Controller) -> Result<bool, String> {
    let text = read(path).map_err(|error| error.to_string())?;
    Ok(text.split(' ').any(|name| name == controller.name()))
}

fn why_not_offered(group: &Path, controller: Controller) -> String {
    if is_on_v1(controller) {
        return format!(
            "this host has it in cgroup v1 ({}); boot with systemd.unified_cgroup_hierarchy=1 or \
             cgroup_no_v1=all, so that cgroup v2 has it",
            controller.v1_name()
        );
    }
    match group.parent().filter(|parent| parent.join("cgroup.controllers").exists()) {
        Some(parent) => format!(
            "the group above, {}, does not hand it down; delegate it (systemd: Delegate=yes in the service), or \
             write +{controller} to its cgroup.subtree_control",
            parent.display()
        ),
        None => format!(
            "the root of this hierarchy does not have it; give the container a cgroup that has {controller}, or boot \
             a kernel that offers it"
        ),
    }
}

fn why_not_enabled(group: &Path, error: &InterfaceError) -> String {
    let is_busy = error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::ResourceBusy);
    match members::own_processes(group) {
        Ok(pids) if is_busy && !pids.is_empty() => {
            let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
            format!("{error}; move the processes {} out of {}", pids.join(", "), group.display())
        }
        _ => format!("{error}; delegate the subtree together with this controller (systemd: Delegate=yes)"),
    }
}
