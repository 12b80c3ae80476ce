//! The state folder: whether it can be used, how much fits, and the disk that it is on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jobworker_limits::resolve_disk;
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, Uid, eaccess, geteuid};

use super::Subject;
use super::finding::Finding;
use crate::config::Spawner;
use crate::job::folder::JobsDir;
use crate::job::trusted_dir::check as check_trust;

/// Less is full: the space for a job's outcome and its first output can't be set aside.
const FULL_BYTES: u64 = 16 << 20;

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let folder = subject.config.state_dir.as_path();
    let mut findings = vec![usable(folder, is_written(subject))];
    let spawner = if is_written(subject) { Some(geteuid()) } else { subject.spawner.uid() };
    findings.extend(refused(folder, spawner.unwrap_or(Uid::from_raw(0))));
    let place = existing(folder);
    findings.push(space(&place, subject.config.output_limit.bytes()));
    findings.push(disk(&place));
    findings
}

/// A worker beside a spawner of its own writes nothing; one that starts its spawner does, by way of that.
fn is_written(subject: &Subject) -> bool {
    matches!(subject.config.spawner, Spawner::Own(_))
}

/// The folder, or the next one above that is there: on its disk it would be made.
pub(super) fn existing(folder: &Path) -> PathBuf {
    let there = folder.ancestors().find(|folder| folder.exists());
    there.filter(|there| !there.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn usable(folder: &Path, is_written: bool) -> Finding {
    let subject = format!("state folder {}", folder.display());
    let jobs = JobsDir::new(folder);
    let rights = if is_written {
        AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK
    } else {
        AccessFlags::R_OK | AccessFlags::X_OK
    };
    match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => {
            return Finding::fail(subject, "it is no folder", "--state-dir with a folder");
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return missing(subject, folder, is_written);
        }
        Err(error) => return Finding::fail(subject, error.to_string(), remedy(folder, is_written)),
    }
    for path in [folder, jobs.path()] {
        match eaccess(path, rights) {
            // The spawner makes it.
            Err(Errno::ENOENT) if path != folder => {}
            Err(errno) => {
                let text = format!("uid {} can't use {}: {}", geteuid(), path.display(), errno.desc());
                return match errno {
                    Errno::EROFS => {
                        Finding::fail(subject, text, format!("mount -o remount,rw {}", path.display()))
                    }
                    _ => Finding::fail(subject, text, remedy(path, is_written)),
                };
            }
            Ok(()) => {}
        }
    }
    match jobs.ids() {
        Ok(ids) => Finding::ok(subject, format!("jobs in it: {}", ids.len())),
        Err(error) => Finding::fail(subject, error.to_string(), remedy(jobs.path(), is_written)),
    }
}

/// What the spawner refuses: a folder that is neither root's nor its own, or that others may write to.
fn refused(folder: &Path, spawner: Uid) -> Vec<Finding> {
    let (subject, jobs) = (format!("state folder {}", folder.display()), JobsDir::new(folder));
    let judge = |path: &Path| {
        // What can't be looked at is told elsewhere.
        let found = fs::metadata(path).ok()?;
        check_trust(path, Uid::from_raw(found.uid()), found.mode(), spawner).err()
    };
    let refused = [folder, jobs.path()].into_iter().filter_map(judge);
    let remedy = "that, after a look at what has been put into it; the spawner refuses it as it is";
    refused.map(|error| Finding::fail(subject.clone(), error.to_string(), remedy)).collect()
}

fn missing(subject: String, folder: &Path, is_written: bool) -> Finding {
    let above = existing(folder);
    if !is_written {
        let text = "it is not there, though its spawner makes it";
        return Finding::fail(subject, text, "--state-dir as the spawner has it");
    }
    match eaccess(above.as_path(), AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) if above.is_dir() => Finding::ok(subject, "it is not there yet, and will be made"),
        Ok(()) => {
            let text = format!("it can't be made: {} is no folder", above.display());
            Finding::fail(subject, text, "--state-dir in a folder")
        }
        Err(errno) => {
            let text = format!("it can't be made in {}: {}", above.display(), errno.desc());
            let make = format!("install -d -m 0700 -o {} {}", owner(), folder.display());
            Finding::fail(subject, text, format!("as root: {make}; or --state-dir in another folder"))
        }
    }
}

fn remedy(path: &Path, is_written: bool) -> String {
    let path = path.display();
    if is_written {
        format!("as root: chown {} {path} && chmod 700 {path}; or --state-dir with another folder", owner())
    } else {
        format!("the spawner's --worker-user has to be {}, and as root: chmod 750 {path}", owner())
    }
}

/// Whom it has to belong to.
fn owner() -> String {
    let user = nix::unistd::User::from_uid(geteuid()).ok().flatten();
    user.map_or_else(|| geteuid().to_string(), |user| user.name)
}

fn space(place: &Path, output_limit_bytes: u64) -> Finding {
    let subject = format!("space in {}", place.display());
    match statvfs(place) {
        Ok(found) => {
            let bytes = found.blocks_available().saturating_mul(found.fragment_size());
            // Some file systems, like btrfs, count no inodes.
            let files = (found.files() > 0).then(|| found.files_available());
            judge_space(subject, bytes, files, output_limit_bytes)
        }
        Err(errno) => Finding::fail(subject, errno.desc(), "--state-dir with a folder on a local disk"),
    }
}

fn judge_space(subject: String, bytes: u64, files: Option<u64>, output_limit_bytes: u64) -> Finding {
    let remedy =
        "remove ended jobs (jobctl remove, --keep-ended-for, --keep-ended-bytes), or enlarge the disk";
    let text = format!("{} free", mebibytes(bytes));
    // A job's folder and the six files in it.
    if files.is_some_and(|files| files < 7) {
        return Finding::fail(subject, "no inodes are free: no job can be started", remedy);
    }
    if bytes < FULL_BYTES {
        return Finding::fail(subject, format!("{text}: jobs are refused, output is lost"), remedy);
    }
    if bytes < output_limit_bytes {
        let limit = mebibytes(output_limit_bytes);
        let text = format!("{text}, less than the output that is kept of one job ({limit}, --output-limit)");
        return Finding::warn(subject, text, remedy);
    }
    Finding::ok(subject, text)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn disk(place: &Path) -> Finding {
    let subject = format!("disk of {}", place.display());
    match resolve_disk(place) {
        Ok(disk) => Finding::ok(subject, format!("{disk}; IO limits hold for it")),
        Err(error) => Finding::warn(
            subject,
            format!("{error}; IO limits were not tried"),
            "name a disk in IO limits (--io-limit /dev/sda:10M; lsblk lists them), or --state-dir on ext4 or xfs",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn a_disk_is_full_before_its_last_byte() {
        let level = |bytes, files| judge_space("x".to_owned(), bytes, files, 1 << 30).level;
        assert_eq!(level(FULL_BYTES - 1, None), Level::Fail);
        assert_eq!(level(FULL_BYTES, None), Level::Warn);
        assert_eq!(level((1 << 30) - 1, Some(7)), Level::Warn);
        assert_eq!(level(1 << 30, Some(7)), Level::Ok);
        assert_eq!(level(1 << 40, Some(6)), Level::Fail);
    }

    #[test]
    fn the_place_of_a_folder_to_be_made_is_above_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(existing(&folder.path().join("a/b")), folder.path());
        assert_eq!(existing(Path::new("no-such-relative-folder")), Path::new("."));
        let finding = usable(&folder.path().join("a/b"), true);
        assert_eq!(finding.level, Level::Ok, "{finding}");
        assert_eq!(usable(&folder.path().join("a/b"), false).level, Level::Fail);
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "something was made");
    }

    #[test]
    fn a_folder_that_the_spawner_will_refuse_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let own = geteuid();
        assert!(refused(folder.path(), own).is_empty());
        fs::set_permissions(folder.path(), Permissions::from_mode(0o770)).unwrap();
        let findings = refused(folder.path(), own);
        assert!(findings[0].text.contains("mode 0770") && findings[0].level == Level::Fail);
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(folder.path().join("jobs")).unwrap();
        fs::set_permissions(folder.path().join("jobs"), Permissions::from_mode(0o777)).unwrap();
        assert!(refused(folder.path(), own)[0].text.contains("/jobs has mode 0777"));
    }
}
