//! What is done to single files: written whole and to the disk, renamed and that to the disk, removed if there.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// As many links as are followed (path_resolution(7) allows 40).
const MAX_LINKS: usize = 40;

/// Writes `PATH.part`, with the owner and the permissions of `path`, to the disk; or leaves no such file.
pub(super) fn write_beside(path: &Path, text: &[u8], bits: u32) -> anyhow::Result<()> {
    let part = beside(path, "part");
    remove(&part)?;
    let written = write_new(&part, &fs::metadata(path)?, text, bits);
    if written.is_err() {
        let _ = remove(&part);
    }
    written.with_context(|| format!("cannot write {}", part.display()))
}

pub(super) fn write_new(path: &Path, like: &fs::Metadata, text: &[u8], bits: u32) -> io::Result<()> {
    // Its owner's alone before it holds a byte.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(like.mode() & bits))?;
    file.write_all(text)?;
    file.sync_all()
}

pub(super) fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))?;
    sync_folder(to)
}

/// A rename is on the disk when its folder is.
pub(super) fn sync_folder(path: &Path) -> anyhow::Result<()> {
    let folder = folder(path);
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("cannot sync the folder {}", folder.display()))
}

pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    name.into()
}

pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The file behind links; one that can't be looked at is itself.
pub(super) fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = folder(&path).join(target),
            Err(_) => break,
        }
    }
    path
}
