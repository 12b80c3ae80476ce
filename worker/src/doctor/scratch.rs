//! A group for one trial. Whatever happens, it is emptied and removed.

use std::path::Path;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use jobworker_limits::{Base, Group, GroupError, Limits};

/// No job's group is called that: a job's id is a UUID. What is left of a doctor that was killed is removed by the next
/// one, and by a spawner that starts.
const PREFIX: &str = "doctor-";
/// How long an empty group may be busy, while the kernel lets go of its last process.
const PATIENCE: Duration = Duration::from_secs(10);

/// The group. Dropped, it is removed, too.
pub(super) struct Scratch {
    group: Group,
}

impl Scratch {
    /// A group under limits, each of them read back.
    ///
    /// # Errors
    /// As [`Base::create_group`].
    pub(super) fn create(base: &Base, limits: &Limits, io_default: &Path) -> Result<Self, GroupError> {
        let name = format!("{PREFIX}{}", process::id());
        base.create_group(&name, limits, io_default).map(|group| Self { group })
    }

    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// Removes it.
    ///
    /// # Errors
    /// When that does not succeed.
    pub(super) fn remove(self) -> Result<(), GroupError> {
        clear(&self.group)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Removed already where all went well; else another error is at hand, and the next doctor tries again.
        let _ = clear(&self.group);
    }
}

/// Removes the groups of doctors that are gone.
pub(super) fn remove_stale(base: &Base) {
    let names = base.leftover_groups().unwrap_or_default();
    let is_gone = |name: &&String| {
        let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok());
        pid.is_some_and(|pid| pid == process::id() || !Path::new(&format!("/proc/{pid}")).exists())
    };
    for group in names.iter().filter(is_gone).filter_map(|name| Group::open(&base.group(name).ok()?).ok()) {
        // What can't be removed does no harm: it has limits, and no process.
        let _ = clear(&group);
    }
}

fn clear(group: &Group) -> Result<(), GroupError> {
    if !group.path().exists() {
        return Ok(());
    }
    if group.process_count()? > 0 {
        group.kill()?;
        group.wait_empty(PATIENCE)?;
    }
    let started = Instant::now();
    loop {
        match group.remove() {
            Err(GroupError::Busy { .. }) if started.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}
