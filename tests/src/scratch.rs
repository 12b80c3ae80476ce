//! A group of a worker's own, directly below the cgroup v2 mount, so that tests never meet in one subtree.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use crate::census;
use crate::wait::PATIENCE;

/// The group of a state folder: made on the first call, found again by a worker that follows on the same folder.
/// None where this process can't make one: jobs run without groups then.
pub fn group_for(state: &Path) -> Option<PathBuf> {
    let unique = state.file_name()?.to_str()?.trim_start_matches('.');
    let group = mount()?.join(format!("jwtest-{}-{unique}", std::process::id()));
    match fs::create_dir(&group) {
        Ok(()) => Some(group),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Some(group),
        Err(_) => None,
    }
}

/// Where cgroup v2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host.
fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>().as_slice() {
        [_, path, "cgroup2", ..] => Some(PathBuf::from(path)),
        _ => None,
    })
}

/// Removes a group with all below it; whatever a failed test left in there is killed.
///
/// # Panics
/// When it can't be removed for a long time, except in a test that fails anyway.
pub fn remove(group: &Path) {
    let _ = fs::write(group.join("cgroup.kill"), "1");
    let started = Instant::now();
    while !is_removed(group) {
        if started.elapsed() > PATIENCE {
            assert!(thread::panicking(), "{} can't be removed", group.display());
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Busy while a process is on its way out.
fn is_removed(group: &Path) -> bool {
    census::folders(group).iter().all(|inner| is_removed(inner))
        && (fs::remove_dir(group).is_ok() || !group.exists())
}
