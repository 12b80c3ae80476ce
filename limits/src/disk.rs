//! Which whole disk a path, a partition or a device stands for: `io.max` knows no others.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::sys::stat::{major, minor};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC, TMPFS_MAGIC,
    statfs,
};

/// A whole disk (or a device-mapper, loop or RAID device, which the kernel throttles by itself).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Disk {
    /// Major device number.
    pub major: u32,
    /// Minor device number.
    pub minor: u32,
    /// The kernel's name for it, like `vda`.
    pub name: String,
}

impl Disk {
    /// Its number as interface files have it: `254:0`.
    #[must_use]
    pub fn device(&self) -> String {
        format!("{}:{}", self.major, self.minor)
    }

    /// Its device node: `/dev/vda`.
    #[must_use]
    pub fn node(&self) -> String {
        format!("/dev/{}", self.name)
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.device(), self.node())
    }
}

/// Why no disk was found.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The path cannot be looked at; most often there is none.
    #[error("cannot find the disk of {}: {reason}", path.display())]
    Path {
        /// The path as given.
        path: PathBuf,
        /// The reason.
        reason: io::Error,
    },
    /// A character device.
    #[error("{} is a character device and has no disk: give a disk, a partition or a path on one", path.display())]
    CharacterDevice {
        /// The path as given.
        path: PathBuf,
    },
    /// The file system hides its disk, or has none.
    #[error(
        "{} is on {file_system}, which shows no disk to limit: give the disk itself (/dev/sda or its MAJ:MIN), \
         or a path on a file system of a disk (ext4, xfs)",
        path.display()
    )]
    NoDisk {
        /// The path as given.
        path: PathBuf,
        /// The kind of file system.
        file_system: String,
    },
    /// The number names no block device here.
    #[error("there is no block device {device} (for {}): see lsblk for those there are", path.display())]
    NoSuchDevice {
        /// The path or number as given.
        path: PathBuf,
        /// The device number.
        device: String,
    },
}

/// Finds the whole disk of a path (the disk its file system is on), a device node, a partition or `MAJ:MIN`.
///
/// Symbolic links are followed. A file that is called `8:0` is reached as `./8:0`.
///
/// # Errors
/// When the path is missing, is a character device, is on a file system that has no disk of its own (tmpfs,
/// overlay, btrfs, network), or the number is that of no block device.
pub fn resolve_disk(target: &Path) -> Result<Disk, DiskError> {
    whole_disk(Path::new("/sys"), device_of(target)?, target)
}

/// A block device's major and minor number, `8:0` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceNumber {
    major: u32,
    minor: u32,
}

impl FromStr for DeviceNumber {
    type Err = ();

    fn from_str(text: &str) -> Result<DeviceNumber, ()> {
        let number = |text| crate::text::whole(text).and_then(|number| u32::try_from(number).ok()).ok_or(());
        let (major, minor) = text.split_once(':').ok_or(())?;
        Ok(DeviceNumber { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

fn device_of(target: &Path) -> Result<DeviceNumber, DiskError> {
    if let Some(number) = target.to_str().and_then(|text| text.parse().ok()) {
        return Ok(number);
    }
    let path = || target.to_path_buf();
    let metadata = fs::metadata(target).map_err(|reason| DiskError::Path { path: path(), reason })?;
    let kind = metadata.file_type();
    if kind.is_char_device() {
        return Err(DiskError::CharacterDevice { path: path() });
    }
    let number = if kind.is_block_device() { metadata.rdev() } else { metadata.dev() };
    let missing = |_| DiskError::NoSuchDevice { path: path(), device: number.to_string() };
    let major = u32::try_from(major(number)).map_err(missing)?;
    let minor = u32::try_from(minor(number)).map_err(missing)?;
    // Major 0 is the kernel's range for file systems without a block device of their own.
    if major == 0 {
        return Err(DiskError::NoDisk { path: path(), file_system: file_system_of(target) });
    }
    Ok(DeviceNumber { major, minor })
}

fn file_system_of(path: &Path) -> String {
    let Ok(stat) = statfs(path) else { return "a file system without a device".to_owned() };
    let names = [
        (TMPFS_MAGIC, "tmpfs"),
        (OVERLAYFS_SUPER_MAGIC, "overlay"),
        (BTRFS_SUPER_MAGIC, "btrfs"),
        (NFS_SUPER_MAGIC, "nfs"),
        (PROC_SUPER_MAGIC, "proc"),
        (SYSFS_MAGIC, "sysfs"),
    ];
    let kind = stat.filesystem_type();
    let name = names.into_iter().find(|(magic, _)| *magic == kind).map(|(_, name)| name.to_owned());
    name.unwrap_or_else(|| format!("a file system of type {:#x}", kind.0))
}

/// The disk a block device is, or is a partition of: `/sys/dev/block/MAJ:MIN` links to the device's folder, and a
/// partition's folder is inside its disk's.
fn whole_disk(sysfs: &Path, number: DeviceNumber, target: &Path) -> Result<Disk, DiskError> {
    let missing = || DiskError::NoSuchDevice { path: target.to_path_buf(), device: number.to_string() };
    let mut folder =
        fs::canonicalize(sysfs.join("dev/block").join(number.to_string())).map_err(|_| missing())?;
    if folder.join("partition").exists() {
        folder.pop();
    }
    let device = fs::read_to_string(folder.join("dev")).map_err(|_| missing())?;
    let DeviceNumber { major, minor } = device.trim_end().parse().map_err(|()| missing())?;
    let name = device_name(&folder).ok_or_else(missing)?;
    Ok(Disk { major, minor, name })
}

/// The node of a block device number as interface files have it (`254:0` → `/dev/vda`); empty where it is gone.
pub(crate) fn node_of(device: &str) -> String {
    fs::read_link(Path::new("/sys/dev/block").join(device))
        .ok()
        .and_then(|folder| device_name(&folder))
        .map_or_else(String::new, |name| format!("/dev/{name}"))
}

/// The last part of a device's folder in sysfs, which has `!` for the `/` in names like `cciss/c0d0`.
fn device_name(folder: &Path) -> Option<String> {
    Some(folder.file_name()?.to_str()?.replace('!', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A sysfs with a disk vda (254:0), its partition vda1 (254:1), a dm-0 (252:0), a cciss disk and its partition.
    fn fake_sysfs() -> tempfile::TempDir {
        let sysfs = tempfile::tempdir().unwrap();
        let add = |folder: &str, device: &str, partition: bool| {
            let path = sysfs.path().join("devices").join(folder);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("dev"), format!("{device}\n")).unwrap();
            if partition {
                fs::write(path.join("partition"), "1\n").unwrap();
            }
            symlink(Path::new("../../devices").join(folder), sysfs.path().join("dev/block").join(device))
                .unwrap();
        };
        fs::create_dir_all(sysfs.path().join("dev/block")).unwrap();
        add("pci0/block/vda", "254:0", false);
        add("pci0/block/vda/vda1", "254:1", true);
        add("virtual/block/dm-0", "252:0", false);
        add("pci1/block/cciss!c0d0", "104:0", false);
        add("pci1/block/cciss!c0d0/cciss!c0d0p1", "104:1", true);
        sysfs
    }

    #[test]
    fn partitions_become_their_whole_disk() {
        let sysfs = fake_sysfs();
        for (number, disk) in [
            ("254:0", "254:0 (/dev/vda)"),
            ("254:1", "254:0 (/dev/vda)"),
            ("252:0", "252:0 (/dev/dm-0)"),
            ("104:1", "104:0 (/dev/cciss/c0d0)"),
        ] {
            let found = whole_disk(sysfs.path(), number.parse().unwrap(), Path::new(number)).unwrap();
            assert_eq!(found.to_string(), disk, "{number}");
        }
    }

    #[test]
    fn a_number_of_no_device_is_refused() {
        let sysfs = fake_sysfs();
        let error = whole_disk(sysfs.path(), "9:99".parse().unwrap(), Path::new("9:99")).unwrap_err();
        assert!(error.to_string().contains("no block device 9:99"), "{error}");
    }

    #[test]
    fn what_has_no_disk_is_refused_by_name() {
        for (path, expected) in [
            ("/nonexistent/path", "cannot find the disk of /nonexistent/path: No such file"),
            ("/dev/null", "/dev/null is a character device"),
            ("/proc", "/proc is on proc, which shows no disk to limit: give the disk itself"),
        ] {
            let error = resolve_disk(Path::new(path)).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
