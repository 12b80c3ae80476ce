//! A delegated cgroup v2 subtree of one's own, on a host whose root group may be changed: the test VM.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use uuid::Uuid;

use crate::census;
use crate::wait::until_within;

const ROOT: &str = "/sys/fs/cgroup";

/// The controllers that jobs can be limited by.
pub const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// A subtree as somebody would delegate it. No job's group may be left in it at its end; then it is removed.
pub struct Subtree {
    outer: PathBuf,
}

impl Subtree {
    /// With all controllers.
    pub fn new() -> Self {
        Self::with(&CONTROLLERS)
    }

    /// With some controllers only, as when the group further up does not hand the others down.
    ///
    /// # Panics
    /// When the root of cgroup v2 is not ours to change.
    pub fn with(controllers: &[&str]) -> Self {
        enable(Path::new(ROOT), &CONTROLLERS);
        let outer = Path::new(ROOT).join(format!("test-{}", Uuid::new_v4()));
        fs::create_dir_all(outer.join("delegated")).expect("groups can be made");
        enable(&outer, controllers);
        Self { outer }
    }

    /// What to hand to `--cgroup`.
    pub fn path(&self) -> PathBuf {
        self.outer.join("delegated")
    }

    /// The jobs' groups that there are.
    pub fn jobs(&self) -> BTreeSet<PathBuf> {
        census::folders(&self.path().join("jobs"))
    }
}

impl Default for Subtree {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Subtree {
    fn drop(&mut self) {
        let left = self.jobs();
        fs::write(self.outer.join("cgroup.kill"), "1").expect("a group can be killed");
        until_within(Duration::from_secs(30), "the subtree can be removed", || remove(&self.outer).ok());
        if !thread::panicking() {
            assert!(left.is_empty(), "jobs' groups were left behind: {left:?}");
        }
    }
}

fn enable(group: &Path, controllers: &[&str]) {
    let path = group.join("cgroup.subtree_control");
    let words: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    fs::write(&path, words.join(" "))
        .unwrap_or_else(|error| panic!("can't write {words:?} to {path:?}: {error}"));
}

/// A group with all groups in it. Busy while a process is on its way out.
fn remove(group: &Path) -> std::io::Result<()> {
    census::folders(group).iter().try_for_each(|inner| remove(inner))?;
    fs::remove_dir(group)
}
