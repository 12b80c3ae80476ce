//! The state folder's disk, filled for a moment and freed again.
//!
//! The moments are kept: only a job that lived in one of them may have lost output, and only a call that was made in
//! one may be refused for want of space.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::syncfs;

/// What is taken at a time, in bytes: much while there is much, then the rest of it.
const PIECES_BYTES: [libc::off_t; 4] = [16 << 20, 1 << 20, 64 << 10, 4 << 10];

/// Between two looks for space that somebody gave back.
const LOOK: Duration = Duration::from_millis(5);

/// When the disk was full.
#[derive(Clone, Default)]
pub(super) struct Moments(Arc<Mutex<Vec<Moment>>>);

struct Moment {
    /// None while it lasts.
    until: Option<Instant>,
}

impl Moments {
    /// Whether there was one between then and now.
    pub(super) fn any_since(&self, then: Instant) -> bool {
        self.all().iter().any(|moment| moment.until.is_none_or(|until| until >= then))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Moment>> {
        self.0.lock().expect("no holder panics")
    }

    fn begin(&self) {
        self.all().push(Moment { until: None });
    }

    fn end(&self) {
        if let Some(last) = self.all().last_mut() {
            last.until = Some(Instant::now());
        }
    }
}

/// A file system of its own, seen at the state folder's path too.
pub(super) struct Disk {
    state: PathBuf,
    moments: Moments,
    filling: Option<JoinHandle<io::Result<()>>>,
}

impl Disk {
    /// Puts the root of a file system at the state folder's place.
    pub(super) fn mount(disk: &Path, state: &Path) -> anyhow::Result<Self> {
        let none: Option<&str> = None;
        fs::create_dir(state)?;
        mount(Some(disk), state, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("bind {} to {}", disk.display(), state.display()))?;
        Ok(Self { state: state.to_owned(), moments: Moments::default(), filling: None })
    }

    pub(super) fn moments(&self) -> Moments {
        self.moments.clone()
    }

    /// Fills it for so long, beside whatever else happens. False while it is full already.
    pub(super) fn fill(&mut self, moment: Duration) -> anyhow::Result<bool> {
        if self.filling.as_ref().is_some_and(|filling| !filling.is_finished()) {
            return Ok(false);
        }
        self.wait_until_free()?;
        let (folder, moments) = (self.state.clone(), self.moments());
        self.filling = Some(thread::spawn(move || fill(&folder, moment, &moments)));
        Ok(true)
    }

    pub(super) fn wait_until_free(&mut self) -> anyhow::Result<()> {
        match self.filling.take().map(JoinHandle::join) {
            Some(Ok(filled)) => filled.context("fill the disk"),
            Some(Err(_)) => anyhow::bail!("whoever filled the disk panicked"),
            None => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let freed = self.wait_until_free();
        // Whoever is left on it is told of elsewhere.
        let unmounted = umount2(&self.state, MntFlags::MNT_DETACH);
        if freed.is_err() || unmounted.is_err() {
            eprintln!("faults: {}: {freed:?}, {unmounted:?}", self.state.display());
        }
    }
}

/// Keeps it full: space that is given back meanwhile is taken again.
fn fill(folder: &Path, moment: Duration, moments: &Moments) -> io::Result<()> {
    let path = folder.join("ballast");
    let ballast = OpenOptions::new().append(true).create_new(true).open(&path)?;
    let until = Instant::now() + moment;
    moments.begin();
    let filled = loop {
        match take_all(&ballast) {
            Ok(()) if Instant::now() < until => thread::sleep(LOOK),
            done => break done,
        }
    };
    drop(ballast);
    // What was freed can be had again only once the journal has it.
    let freed = fs::remove_file(path).and_then(|()| Ok(syncfs(File::open(folder)?)?));
    moments.end();
    filled.and(freed)
}

fn take_all(mut ballast: &File) -> io::Result<()> {
    let is_full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
    for piece in PIECES_BYTES {
        loop {
            let end = libc::off_t::try_from(ballast.metadata()?.len()).expect("an offset");
            match fallocate(ballast, FallocateFlags::empty(), end, piece).map_err(io::Error::from) {
                Ok(()) => {}
                Err(error) if is_full(&error) => break,
                Err(error) => return Err(error),
            }
        }
    }
    // What no whole block is left for.
    match ballast.write_all(&[0; 4096]) {
        Err(error) if !is_full(&error) => Err(error),
        _ => Ok(()),
    }
}
