//! The hub's table: which folders are watched, by how many, and how to tell them.
//!
//! ```text
//!             watch: the kernel is asked                watch: the kernel gives the same descriptor
//!   nothing ─────────────────────────────▶ watched by 1 ◀──────────────────▶ watched by n
//!      ▲                                       │               release
//!      └───────────────────────────────────────┘
//!        release: the kernel is told;  or the folder is removed: whoever waits sees it
//! ```
//!
//! Each change is one call that has the whole table, so the lock around it is held from the question to the kernel until
//! its answer is noted: the kernel gives one descriptor for a folder however often it is asked, and that must not be
//! dropped in between. Pure, but for the two calls to the kernel that are handed in.

use std::collections::HashMap;
use std::hash::Hash;

use tokio::sync::watch;

use super::Change;

/// The watched folders, by the kernel's descriptor.
pub(super) struct Table<D> {
    folders: HashMap<D, Watched>,
}

/// What one who watches a folder is told by. The sender is gone when the folder is.
pub(super) struct Receivers {
    pub(super) output: watch::Receiver<()>,
    pub(super) state: watch::Receiver<()>,
}

/// What the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News<D> {
    /// A folder has changed.
    Changed(D, Change),
    /// A folder is removed, or being removed.
    Removed(D),
    /// There was more than the kernel could keep.
    Overflow,
}

/// A folder that somebody watches.
struct Watched {
    output: watch::Sender<()>,
    state: watch::Sender<()>,
    watches: usize,
}

impl<D> Default for Table<D> {
    fn default() -> Self {
        Self { folders: HashMap::new() }
    }
}

impl<D: Copy + Eq + Hash> Table<D> {
    /// One more watches a folder. `add` asks the kernel for its descriptor.
    ///
    /// # Errors
    /// What `add` says.
    pub(super) fn watch<E>(&mut self, add: impl FnOnce() -> Result<D, E>) -> Result<(D, Receivers), E> {
        let descriptor = add()?;
        let watched = self.folders.entry(descriptor).or_insert_with(Watched::new);
        watched.watches += 1;
        let receivers = Receivers { output: watched.output.subscribe(), state: watched.state.subscribe() };
        Ok((descriptor, receivers))
    }

    /// One less does. `remove` tells the kernel, after the last one.
    pub(super) fn release(&mut self, descriptor: D, remove: impl FnOnce(D)) {
        let Some(watched) = self.folders.get_mut(&descriptor) else { return };
        watched.watches -= 1;
        if watched.watches == 0 {
            self.folders.remove(&descriptor);
            remove(descriptor);
        }
    }

    /// Tells those whom it concerns. `remove` tells the kernel that a removed folder need not be watched any more.
    pub(super) fn tell(&mut self, news: impl IntoIterator<Item = News<D>>, remove: impl Fn(D)) {
        let mut told = None;
        for news in news {
            match news {
                News::Overflow => self.folders.values().for_each(|watched| {
                    watched.tell(Change::State);
                    watched.tell(Change::Output);
                }),
                // Whoever waits sees its sender gone.
                News::Removed(descriptor) => {
                    if self.folders.remove(&descriptor).is_some() {
                        remove(descriptor);
                    }
                }
                News::Changed(descriptor, change) => {
                    if told.replace((descriptor, change)) != Some((descriptor, change))
                        && let Some(watched) = self.folders.get(&descriptor)
                    {
                        watched.tell(change);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
impl<D: Copy + Eq + Hash> Table<D> {
    /// How many folders are watched.
    pub(super) fn len(&self) -> usize {
        self.folders.len()
    }

    /// Whether this one is.
    fn contains(&self, descriptor: D) -> bool {
        self.folders.contains_key(&descriptor)
    }
}

impl Watched {
    fn new() -> Self {
        Self { output: watch::Sender::new(()), state: watch::Sender::new(()), watches: 0 }
    }

    fn tell(&self, change: Change) {
        match change {
            Change::State => self.state.send_replace(()),
            Change::Output => self.output.send_replace(()),
        }
    }
}

#[cfg(test)]
mod model;
