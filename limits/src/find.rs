//! Finds the delegated subtree from the process's own group.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::interface::InterfaceError;
use crate::{BaseError, Controller};

/// Groups of our own making below a base; a process in one of them belongs to the base above.
const OUR_LEAVES: [&str; 2] = [crate::base::SHIMS, "worker"];

/// The base of this process: its own cgroup v2 group, or the one above when that is a leaf of an earlier us.
pub(crate) fn own_base() -> Result<PathBuf, BaseError> {
    let mountinfo = read_proc("/proc/self/mountinfo")?;
    let own = own_group(&read_proc("/proc/self/cgroup")?);
    locate(&mountinfo, &own).ok_or_else(|| BaseError::NoHierarchy { group: own.display().to_string() })
}

/// The folder of this process's own cgroup v2 group.
pub(crate) fn own_folder() -> Result<PathBuf, BaseError> {
    let mountinfo = read_proc("/proc/self/mountinfo")?;
    let own = own_group(&read_proc("/proc/self/cgroup")?);
    show(&mountinfo, &own).ok_or_else(|| BaseError::NoHierarchy { group: own.display().to_string() })
}

/// Whether the host has this controller in a cgroup v1 hierarchy, where cgroup v2 cannot have it.
pub(crate) fn is_on_v1(controller: Controller) -> bool {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .any(|names| names.split(',').any(|name| name == controller.v1_name()))
}

fn read_proc(path: &str) -> Result<String, InterfaceError> {
    let path = Path::new(path);
    let bytes = fs::read(path).map_err(|reason| InterfaceError::io("read", path, reason))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The cgroup v2 line of `/proc/PID/cgroup` is `0::PATH` (cgroups(7)).
fn own_group(cgroup: &str) -> PathBuf {
    cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().into()
}

/// The folder that shows a group, by the mounts that there are.
fn show(mountinfo: &str, own: &Path) -> Option<PathBuf> {
    mountinfo.lines().filter_map(cgroup2_mount).find_map(|(root, mount_point)| {
        // A group outside the cgroup namespace's root is shown as /../…: no mount shows that.
        let below = own.strip_prefix(&root).ok().filter(|below| !below.starts_with(".."))?;
        // Not `join` of an empty path: that would add a slash.
        Some(mount_point.components().chain(below.components()).collect::<PathBuf>())
    })
}

fn locate(mountinfo: &str, own: &Path) -> Option<PathBuf> {
    let group = show(mountinfo, own)?;
    let is_ours = group.file_name().is_some_and(|name| OUR_LEAVES.iter().any(|leaf| name == *leaf));
    if is_ours && own.file_name() == group.file_name() {
        group.parent().map(Path::to_path_buf)
    } else {
        Some(group)
    }
}

/// Root and mount point of a cgroup2 mount, from a line of `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`).
fn cgroup2_mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (mount, kind) = line.split_once(" - ")?;
    if !kind.starts_with("cgroup2 ") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    Some((unescape(fields.next()?), unescape(fields.next()?)))
}

/// Undoes the kernel's octal escapes (`\040` for a space).
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code =
            after.get(..3).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        if let (b'\\', Some(code)) = (byte, code) {
            bytes.push(code);
            rest = &after[3..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";

    fn base(mountinfo: &str, own: &str) -> Option<String> {
        locate(mountinfo, Path::new(own)).map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_systemd_service_is_its_own_base() {
        let own = own_group("0::/system.slice/jobworker.service\n");
        assert_eq!(base(V2, own.to_str().unwrap()).unwrap(), "/sys/fs/cgroup/system.slice/jobworker.service");
        assert_eq!(base(V2, "/").unwrap(), "/sys/fs/cgroup");
    }

    #[test]
    fn our_own_leaves_belong_to_the_base_above() {
        assert_eq!(base(V2, "/jw.service/shims").unwrap(), "/sys/fs/cgroup/jw.service");
        assert_eq!(base(V2, "/worker").unwrap(), "/sys/fs/cgroup");
        assert_eq!(base(V2, "/jw.service/workers").unwrap(), "/sys/fs/cgroup/jw.service/workers");
    }

    #[test]
    fn a_hybrid_host_has_its_v2_hierarchy_elsewhere() {
        let mountinfo = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                         39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                         41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(own_group("8:pids:/x\n0::/a\n"), Path::new("/a"));
        assert_eq!(base(mountinfo, "/a").unwrap(), "/sys/fs/cgroup/unified/a");
    }

    #[test]
    fn a_container_that_shows_a_part_or_nothing() {
        let part = "31 23 0:28 /docker/abc /sys/fs/my\\040cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(base(part, "/docker/abc/x").unwrap(), "/sys/fs/my cgroup/x");
        assert_eq!(base(part, "/elsewhere"), None);
        assert_eq!(base(V2, "/../outside"), None);
        assert_eq!(base("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw", "/"), None);
    }
}
