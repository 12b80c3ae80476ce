//! A shim that writes, the kernel's notifications and a follower, in every order that shuttle finds for them. A
//! follower that waits when nobody will tell it any more is a deadlock, which shuttle reports.

use std::collections::VecDeque;
use std::sync::Arc;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Condvar, Mutex};
use shuttle::{check_pct, check_random, thread};

use super::*;

/// Schedules to try, of each kind: any order, and orders with few changes of turn (PCT), which let one run far ahead.
const SCHEDULES: usize = 2000;

/// Changes of turn in the latter.
const DEPTH: usize = 3;

/// Records that the shim appends; a record's bytes are as many as its number, from 1 on.
const RECORDS: u64 = 3;

/// Events that fit into the kernel's queue.
const QUEUE: usize = 2;

/// What a follower does.
#[derive(Clone, Copy)]
struct Course {
    /// Watches the folder, and looks whether the job is finished.
    open: fn(&World) -> bool,
    after: fn(Step, Seen) -> Step,
}

/// As the real one does it.
const REAL: Course = Course {
    open: |world| {
        world.watch();
        world.is_finished()
    },
    after: Step::after,
};

/// A job's folder: what a reader sees of it.
#[derive(Default)]
struct Folder {
    output_bytes: u64,
    /// The offsets at which the index's records end.
    index: Vec<u64>,
    finished: bool,
}

/// The kernel's queue, and what the hub has told its one follower, as tokio's watch channels keep it.
#[derive(Default)]
struct Notices {
    watched: bool,
    queue: VecDeque<Notice>,
    closed: bool,
    state_told: bool,
    output_told: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Notice {
    Of(Change),
    Overflow,
}

#[derive(Default)]
struct World {
    folder: Mutex<Folder>,
    notices: Mutex<Notices>,
    queued: Condvar,
    told: Condvar,
    /// Records that the follower has delivered.
    delivered: Mutex<usize>,
    more_delivered: Condvar,
}

impl World {
    /// The kernel tells of a change after it was made. The same as the last in the queue is told of once.
    fn notify(&self, change: Change) {
        let mut notices = self.notices.lock().unwrap();
        if !notices.watched {
            return;
        }
        if notices.queue.len() >= QUEUE {
            notices.queue.pop_back();
            notices.queue.push_back(Notice::Overflow);
        } else if notices.queue.back() != Some(&Notice::Of(change)) {
            notices.queue.push_back(Notice::Of(change));
        }
        self.queued.notify_one();
    }

    fn shim(&self) {
        let mut end = 0;
        for length in 1..=RECORDS {
            end += length;
            self.folder.lock().unwrap().output_bytes = end;
            self.notify(Change::Output);
            self.folder.lock().unwrap().index.push(end);
            self.notify(Change::Output);
            if thread_rng().gen_bool(0.5) {
                // The job writes no more before it has an answer to this.
                let all = self.folder.lock().unwrap().index.len();
                let delivered = self.delivered.lock().unwrap();
                drop(self.more_delivered.wait_while(delivered, |delivered| *delivered < all).unwrap());
            }
            if thread_rng().gen_bool(0.3) {
                // A stop is recorded, or the state is written again.
                self.notify(Change::State);
            }
        }
        self.folder.lock().unwrap().finished = true;
        self.notify(Change::State);
        self.notices.lock().unwrap().closed = true;
        self.queued.notify_one();
    }

    /// The hub's task, until nothing more comes.
    fn drain(&self) {
        let mut notices = self.notices.lock().unwrap();
        loop {
            match notices.queue.pop_front() {
                Some(Notice::Of(Change::State)) => notices.state_told = true,
                Some(Notice::Of(Change::Output)) => notices.output_told = true,
                Some(Notice::Overflow) => (notices.state_told, notices.output_told) = (true, true),
                None if notices.closed => return,
                None => notices = self.queued.wait(notices).unwrap(),
            }
            if thread_rng().gen_bool(0.1) {
                notices.output_told = true;
            }
            self.told.notify_one();
        }
    }

    /// As the hub's `Watch::changed`.
    fn changed(&self) -> Change {
        let mut notices = self.notices.lock().unwrap();
        loop {
            if std::mem::take(&mut notices.state_told) {
                return Change::State;
            }
            if std::mem::take(&mut notices.output_told) {
                return Change::Output;
            }
            notices = self.told.wait(notices).unwrap();
        }
    }

    fn watch(&self) {
        self.notices.lock().unwrap().watched = true;
    }

    fn is_finished(&self) -> bool {
        self.folder.lock().unwrap().finished
    }

    /// Returns the offsets up to which it has delivered, one for each read that found something.
    fn follow(&self, Course { open, after }: Course) -> Vec<u64> {
        let mut delivered = Vec::new();
        let mut step = Step::first(true, open(self));
        loop {
            let seen = match step {
                Step::Read | Step::ReadRest { .. } => {
                    let folder = self.folder.lock().unwrap();
                    match folder.index.get(delivered.len()) {
                        Some(end) => {
                            assert!(*end <= folder.output_bytes, "a record before its bytes");
                            delivered.push(*end);
                            *self.delivered.lock().unwrap() = delivered.len();
                            self.more_delivered.notify_one();
                            continue;
                        }
                        None => Seen::NothingLeft,
                    }
                }
                Step::Wait => Seen::Changed(self.changed()),
                Step::Look => Seen::Finished(self.is_finished()),
                Step::End { finished } => {
                    assert!(finished);
                    return delivered;
                }
            };
            step = after(step, seen);
        }
    }
}

fn check(schedules: usize, course: Course) {
    let schedule = move || {
        let world = Arc::new(World::default());
        let begin = |work: fn(&World)| {
            let world = Arc::clone(&world);
            thread::spawn(move || work(&world))
        };
        let (shim, drain) = (begin(World::shim), begin(World::drain));
        assert_eq!(world.follow(course), [1, 3, 6], "delivered up to these offsets");
        shim.join().unwrap();
        drain.join().unwrap();
    };
    check_random(schedule, schedules);
    check_pct(schedule, schedules, DEPTH);
}

#[test]
fn a_follower_gets_every_byte_once_and_ends() {
    check(SCHEDULES, REAL);
}

// The model would be worth nothing if these passed. They end with the first schedule that shows the mistake, so that many
// cost nothing, and missing it in all of them is out of the question.

const MANY: usize = 20 * SCHEDULES;

#[test]
#[should_panic(expected = "delivered up to these offsets")]
fn the_model_finds_who_looks_at_the_state_after_the_last_read() {
    let after = |step: Step, seen| match (step, seen) {
        (Step::Look, Seen::Finished(true)) => Step::End { finished: true },
        (step, seen) => step.after(seen),
    };
    check(MANY, Course { after, ..REAL });
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_finds_who_never_looks_at_the_state() {
    let after = |step: Step, seen| match (step, seen) {
        (Step::Wait, Seen::Changed(Change::State)) => Step::Read,
        (step, seen) => step.after(seen),
    };
    check(MANY, Course { after, ..REAL });
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_finds_who_looks_before_it_watches() {
    let open = |world: &World| {
        let finished = world.is_finished();
        world.watch();
        finished
    };
    check(MANY, Course { open, ..REAL });
}
