//! Those who watch a folder, those who change and remove it, and the hub's task, in every order that shuttle finds for
//! them. A change that somebody is not told of is a deadlock, which shuttle reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::future::block_on;
use shuttle::sync::{Condvar, Mutex};
use shuttle::{check_pct, check_random, thread};

use super::*;

/// Schedules to try, of each kind: any order, and orders with few changes of turn (PCT), which let one run far ahead.
const SCHEDULES: usize = 1000;

/// Changes of turn in the latter.
const DEPTH: usize = 3;

/// Those who watch, and how often each.
const WATCHERS: usize = 3;
const ROUNDS: usize = 2;

/// How often the folder changes.
const CHANGES: u64 = 2;

/// inotify: one descriptor for a folder, never the same for another.
#[derive(Default)]
struct Kernel {
    /// That of the folder, while it is watched.
    descriptor: Option<u32>,
    next: u32,
    removed: bool,
    queue: Vec<News<u32>>,
    closed: bool,
}

#[derive(Default)]
struct World {
    table: Mutex<Table<u32>>,
    kernel: Mutex<Kernel>,
    queued: Condvar,
    /// What the folder holds.
    content: AtomicU64,
}

/// How one watches and ceases to.
#[derive(Clone, Copy)]
struct Manners {
    watch: fn(&World) -> Option<(u32, Receivers)>,
    release: fn(&World, u32),
}

/// As the real hub does it.
const REAL: Manners = Manners {
    watch: |world| world.table.lock().unwrap().watch(|| world.add_watch()).ok(),
    release: |world, descriptor| world.table.lock().unwrap().release(descriptor, |it| world.rm_watch(it)),
};

impl World {
    fn add_watch(&self) -> Result<u32, ()> {
        let mut kernel = self.kernel.lock().unwrap();
        if kernel.removed {
            return Err(());
        }
        let next = kernel.next;
        let descriptor = *kernel.descriptor.get_or_insert(next);
        kernel.next = descriptor + 1;
        Ok(descriptor)
    }

    fn rm_watch(&self, descriptor: u32) {
        let mut kernel = self.kernel.lock().unwrap();
        if kernel.descriptor == Some(descriptor) {
            self.queue(&mut kernel, News::Removed);
            kernel.descriptor = None;
        }
    }

    fn queue(&self, kernel: &mut Kernel, news: fn(u32) -> News<u32>) {
        if let Some(descriptor) = kernel.descriptor {
            kernel.queue.push(news(descriptor));
            self.queued.notify_one();
        }
    }

    fn change(&self) {
        for content in 1..=CHANGES {
            self.content.store(content, Ordering::SeqCst);
            self.queue(&mut self.kernel.lock().unwrap(), |descriptor| {
                News::Changed(descriptor, Change::Output)
            });
        }
    }

    /// The first of its files is deleted. The kernel's own word comes later, or after the last is closed.
    fn remove(&self) {
        let mut kernel = self.kernel.lock().unwrap();
        kernel.removed = true;
        self.queue(&mut kernel, News::Removed);
    }

    /// The hub's task, until nothing more comes.
    fn drain(&self) {
        loop {
            let mut kernel = self.kernel.lock().unwrap();
            while kernel.queue.is_empty() {
                if kernel.closed {
                    return;
                }
                kernel = self.queued.wait(kernel).unwrap();
            }
            let news = std::mem::take(&mut kernel.queue);
            drop(kernel);
            self.table.lock().unwrap().tell(news, |descriptor| self.rm_watch(descriptor));
        }
    }

    /// Watches until it has seen the last change, or the folder is gone.
    fn follow(&self, manners: Manners) {
        for _ in 0..ROUNDS {
            let Some((descriptor, mut receivers)) = (manners.watch)(self) else {
                let removed = self.is_removed();
                assert!(removed, "the kernel gives no watch");
                return;
            };
            while self.content.load(Ordering::SeqCst) < CHANGES {
                self.assert_watched(descriptor);
                if block_on(receivers.output.changed()).is_err() {
                    let removed = self.is_removed();
                    assert!(removed, "nobody tells one who still watches");
                    break;
                }
            }
            self.assert_watched(descriptor);
            (manners.release)(self, descriptor);
        }
    }

    fn is_removed(&self) -> bool {
        self.kernel.lock().unwrap().removed
    }

    fn is_watched(&self, descriptor: u32) -> bool {
        let table = self.table.lock().unwrap();
        table.contains(descriptor) && self.kernel.lock().unwrap().descriptor == Some(descriptor)
    }

    /// No lock is held when it fails: another thread would trip over that first.
    fn assert_watched(&self, descriptor: u32) {
        let is_told = self.is_watched(descriptor) || self.is_removed();
        assert!(is_told, "nobody tells one who still watches");
    }
}

fn check(schedules: usize, manners: Manners, others: &'static [fn(&World)]) {
    let schedule = move || {
        let world = Arc::new(World::default());
        let begin = |work: fn(&World)| {
            let world = Arc::clone(&world);
            thread::spawn(move || work(&world))
        };
        let drain = begin(World::drain);
        let mut threads: Vec<_> = others.iter().map(|other| begin(*other)).collect();
        for _ in 0..WATCHERS {
            let world = Arc::clone(&world);
            threads.push(thread::spawn(move || world.follow(manners)));
        }
        for thread in threads {
            thread.join().unwrap();
        }
        world.kernel.lock().unwrap().closed = true;
        world.queued.notify_one();
        drain.join().unwrap();
        assert_eq!(world.table.lock().unwrap().len(), 0, "watches are left behind");
        assert_eq!(world.kernel.lock().unwrap().descriptor, None, "watches are left behind");
    };
    check_random(schedule, schedules);
    check_pct(schedule, schedules, DEPTH);
}

#[test]
fn every_change_is_told_of_and_nothing_is_left() {
    check(SCHEDULES, REAL, &[World::change]);
}

#[test]
fn a_removal_is_told_of_and_nothing_is_left() {
    check(SCHEDULES, REAL, &[World::remove]);
    check(SCHEDULES, REAL, &[World::change, World::remove]);
}

// The model would be worth nothing if these passed. They end with the first schedule that shows the mistake, so that many
// cost nothing, and missing it in all of them is out of the question.

const MANY: usize = 20 * SCHEDULES;

#[test]
#[should_panic(expected = "nobody tells one who still watches")]
fn the_model_finds_who_asks_the_kernel_before_the_table_is_locked() {
    let watch = |world: &World| {
        let descriptor = world.add_watch().ok()?;
        world.table.lock().unwrap().watch(|| Ok::<_, ()>(descriptor)).ok()
    };
    check(MANY, Manners { watch, ..REAL }, &[World::change]);
}

#[test]
#[should_panic(expected = "nobody tells one who still watches")]
fn the_model_finds_who_does_not_count() {
    let release = |world: &World, descriptor| {
        let mut table = world.table.lock().unwrap();
        while table.contains(descriptor) {
            table.release(descriptor, |it| world.rm_watch(it));
        }
    };
    check(MANY, Manners { release, ..REAL }, &[World::change]);
}

#[test]
#[should_panic(expected = "watches are left behind")]
fn the_model_finds_who_does_not_tell_the_kernel() {
    let release = |world: &World, descriptor| world.table.lock().unwrap().release(descriptor, |_| ());
    check(MANY, Manners { release, ..REAL }, &[World::change]);
}
