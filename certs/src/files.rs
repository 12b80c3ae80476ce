//! PEM files: written with the right mode from their first moment, a set of them whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempPath};
use x509_parser::pem::parse_x509_pem;

use crate::{Error, Existing};

/// A file to write: a secret one is its owner's alone, a public one everybody's to read.
pub(crate) struct NewFile<'a> {
    name: &'a str,
    contents: &'a str,
    mode: u32,
}

impl<'a> NewFile<'a> {
    pub(crate) fn secret(name: &'a str, contents: &'a str) -> Self {
        Self { name, contents, mode: 0o600 }
    }

    pub(crate) fn public(name: &'a str, contents: &'a str) -> Self {
        Self { name, contents, mode: 0o644 }
    }

    /// Writes it under a hidden name in `dir`; dropping the result removes it.
    fn stage(&self, dir: &Path) -> io::Result<NamedTempFile> {
        // Made with O_EXCL and this mode, so a key is private before it holds a byte.
        let permissions = Permissions::from_mode(self.mode);
        let mut temporary =
            tempfile::Builder::new().prefix(".new-").permissions(permissions.clone()).tempfile_in(dir)?;
        // The umask may have taken bits away: the worker's user must be able to read certificates.
        temporary.as_file().set_permissions(permissions)?;
        temporary.write_all(self.contents.as_bytes())?;
        temporary.as_file().sync_all()?;
        Ok(temporary)
    }
}

/// Writes all files beside their places in `dir`, then puts each in its place; what was placed is taken back if a
/// later one fails.
pub(crate) fn write_set(dir: &Path, files: &[NewFile<'_>], existing: Existing) -> Result<(), Error> {
    let stage = |file: &NewFile<'_>| {
        let path = dir.join(file.name);
        let temporary = file.stage(dir).map_err(Error::io("write", &path))?;
        Ok((temporary, path))
    };
    let staged = files.iter().map(stage).collect::<Result<Vec<_>, Error>>()?;
    let mut placed: Vec<Placed> = Vec::new();
    for (temporary, path) in staged {
        match Placed::put(temporary, &path, existing) {
            Ok(file) => placed.push(file),
            Err(error) => {
                placed.into_iter().rev().for_each(Placed::take_back);
                return Err(Error::io("write", path)(error));
            }
        }
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync folder", dir))
}

/// A file that was put in its place, with a second link to what it replaced.
struct Placed {
    path: PathBuf,
    before: Option<TempPath>,
}

impl Placed {
    fn put(temporary: NamedTempFile, path: &Path, existing: Existing) -> io::Result<Self> {
        let before = match existing {
            Existing::Keep => {
                temporary.persist_noclobber(path)?;
                None
            }
            Existing::Replace => {
                let before = second_link(path)?;
                temporary.persist(path)?;
                before
            }
        };
        Ok(Self { path: path.to_owned(), before })
    }

    /// Best effort: it runs after an error of the same file system, and that error is the one to report.
    fn take_back(self) {
        let _ = match self.before {
            Some(before) => before.persist(&self.path).map_err(io::Error::from),
            None => fs::remove_file(&self.path),
        };
    }
}

/// A hidden link beside `path`, removed when dropped; none if there is no such file.
fn second_link(path: &Path) -> io::Result<Option<TempPath>> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let link = tempfile::Builder::new().prefix(".old-").make_in(dir, |link| fs::hard_link(path, link));
    match link {
        Ok(link) => Ok(Some(link.into_temp_path())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The bytes of the first PEM block, which must have this label. The error is the reason alone.
pub(crate) fn pem_contents(text: &str, label: &str) -> Result<Vec<u8>, String> {
    match parse_x509_pem(text.as_bytes()) {
        Ok((_, pem)) if pem.label == label => Ok(pem.contents),
        Ok((_, pem)) => Err(format!("holds a PEM block {:?}; {label:?} is needed", pem.label)),
        Err(error) => Err(format!("no PEM block {label:?}: {error}")),
    }
}

/// Every PEM block of this label, as it stands in the text, each with a new line at its end.
pub(crate) fn pem_blocks(text: &str, label: &str) -> Vec<String> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let beginnings = text.split(&begin).skip(1);
    let bodies = beginnings.filter_map(|rest| rest.split_once(&end).map(|(body, _)| body));
    bodies.map(|body| format!("{begin}{body}{end}\n")).collect()
}
