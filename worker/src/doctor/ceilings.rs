//! What the host gives everybody only so much of: descriptors, watches, pids.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use super::Subject;
use super::finding::Finding;

/// A worker has a watch for each job that runs, and another while somebody follows it; the kernel's own default was so many until 5.11.
const WATCHES: u64 = 8192;
/// The kernel's default on all but the smallest machines. A job takes one for its shim and one or more for itself.
const PIDS: u64 = 32_768;

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
    // A descriptor for each connection, and one for a follower's output.
    let needed = (subject.config.door.max_connections + subject.config.service.max_followers) as u64;
    vec![
        judge(
            "open files (ulimit -Hn, here)",
            files,
            needed,
            "connections and followers beyond it are refused",
            &format!(
                "LimitNOFILE={} in the worker's unit (systemctl edit jobworker), or ulimit -Hn",
                needed * 2
            ),
        ),
        sysctl(
            "fs.inotify.max_user_watches",
            WATCHES,
            "jobs beyond it can't be followed at one time, and their ends are told late",
        ),
        sysctl("kernel.pid_max", PIDS, "jobs beyond it can't be started"),
    ]
}

fn sysctl(name: &str, least: u64, consequence: &str) -> Finding {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let text = fs::read_to_string(&path);
    let remedy = format!("sysctl -w {name}={least}, and the same in /etc/sysctl.d/jobworker.conf");
    match text.as_deref().map(|text| text.trim().parse()) {
        Ok(Ok(value)) => judge(name, value, least, consequence, &remedy),
        Ok(Err(_)) => Finding::warn(name, format!("{path} holds no number"), remedy),
        Err(error) => Finding::warn(name, format!("can't read {path}: {error}"), remedy),
    }
}

fn judge(name: &str, value: u64, least: u64, consequence: &str, remedy: &str) -> Finding {
    if value >= least {
        let value = if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
        return Finding::ok(name, value);
    }
    Finding::warn(name, format!("{value} is less than {least}: {consequence}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn too_little_is_a_warning_with_what_to_set() {
        let (few, enough) =
            (judge("x", 99, 100, "no more", "set x"), judge("x", 100, 100, "no more", "set x"));
        assert_eq!(few.to_string(), "warn  x: 99 is less than 100: no more; do: set x");
        assert_eq!(enough.to_string(), "ok    x: 100");
        assert_eq!(judge("x", u64::MAX, 1, "", "").text, "unlimited");
    }

    #[test]
    fn a_sysctl_that_is_not_there_is_named() {
        let finding = sysctl("kernel.no_such_thing", 1, "");
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.text.contains("/proc/sys/kernel/no_such_thing"), "{finding}");
    }
}
