use std::collections::HashSet;
use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::job::fake::{self, FakeShim};
use crate::job::state::StopReason;
use crate::job::{Ended, Outcome, Phase};
use crate::tasks::Tasks;

const PATIENCE: Duration = Duration::from_secs(20);

struct Told {
    job: JobId,
    kind: OutcomeKind,
    is_from_before: bool,
}

struct World {
    _state_dir: tempfile::TempDir,
    jobs: JobsDir,
}

impl World {
    fn new() -> Self {
        let state_dir = tempfile::tempdir().unwrap();
        let jobs = JobsDir::new(state_dir.path());
        fs::create_dir(jobs.path()).unwrap();
        Self { _state_dir: state_dir, jobs }
    }

    fn census(&self) -> (Census, mpsc::Receiver<Told>) {
        let (sender, told) = mpsc::channel();
        let listener: Box<dyn Listener> = Box::new(move |end: &JobEnd<'_>| {
            assert_eq!(end.folder.spec().unwrap().unwrap().id, end.job);
            let (job, kind, is_from_before) = (end.job, end.finished.outcome.kind(), end.is_from_before);
            let _ = sender.send(Told { job, kind, is_from_before });
        });
        (Census::start(self.jobs.clone(), vec![listener], &Tasks::default()).unwrap(), told)
    }

    /// A job that appears as a shim makes it: under another name first.
    fn start(&self) -> (JobId, FakeShim) {
        let job = JobId::random();
        let aside = JobsDir::new(self.jobs.path());
        fs::create_dir_all(aside.path()).unwrap();
        let made = FakeShim::prepare(&aside, &fake::spec(job, "alice"));
        fs::rename(made.path(), self.jobs.folder(job).path()).unwrap();
        let shim = FakeShim::open(&self.jobs.folder(job));
        shim.set(Phase::Running);
        (job, shim)
    }

    fn remove(&self, job: JobId) {
        let old = self.jobs.path().join(format!(".old.{job}.1"));
        fs::rename(self.jobs.folder(job).path(), &old).unwrap();
        fs::remove_dir_all(old).unwrap();
    }
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn watched(census: &Census) -> usize {
    census.thread.lookout.watched()
}

#[test]
fn every_phase_is_counted_and_each_end_told_once() {
    let world = World::new();
    let (census, told) = world.census();
    let (job, shim) = world.start();
    let (other, _other_shim) = world.start();
    until("two run", || census.counts().running == 2);
    assert_eq!(watched(&census), 2);
    shim.set(Phase::Stopping(StopReason::Requested { by: "alice".to_owned() }));
    until("one is stopping", || census.counts().stopping == 1);
    shim.finish(Outcome::Stopped { by: "alice".to_owned(), ended: Ended::Signaled(15) });
    let end = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((end.job, end.kind), (job, OutcomeKind::Stopped));
    let expected = Counts { running: 1, ended: [0, 0, 1, 0, 0, 0], ..Counts::default() };
    until("counted", || census.counts() == expected);
    assert_eq!(watched(&census), 1, "what has ended is watched no more");
    census.look(job);
    world.remove(job);
    until("removed", || census.counts() == Counts { running: 1, ..Counts::default() });
    world.remove(other);
    until("all are removed", || census.counts() == Counts::default());
    assert_eq!(watched(&census), 0);
    assert!(told.try_recv().is_err(), "an end was told twice");
}

#[test]
fn what_has_ended_before_is_found_and_told_as_such() {
    let world = World::new();
    let ended: HashSet<_> = (0..20)
        .map(|_| {
            let (job, shim) = world.start();
            shim.exit(0);
            job
        })
        .collect();
    let (_job, _shim) = world.start();
    let (census, told) = world.census();
    let found: HashSet<_> = (0..20)
        .map(|_| {
            let end = told.recv_timeout(PATIENCE).unwrap();
            assert!(end.is_from_before && end.kind == OutcomeKind::Exited);
            end.job
        })
        .collect();
    assert_eq!(found, ended);
    until("the other runs", || census.counts().running == 1);
    assert_eq!((census.counts().all_ended(), watched(&census)), (20, 1));
}

/// The thread sees neither folder: a look before the removal is all that shows the end.
#[test]
fn an_end_right_before_a_removal_is_told() {
    let world = World::new();
    let (census, told) = world.census();
    for _ in 0..50 {
        let (job, shim) = world.start();
        shim.exit(1);
        census.look(job);
        world.remove(job);
        assert_eq!(told.recv_timeout(PATIENCE).unwrap().job, job);
    }
    until("all are gone", || census.counts() == Counts::default());
    assert!(told.try_recv().is_err(), "an end was told twice");
    assert_eq!(watched(&census), 0);
}

/// Ends and removals of jobs under one id, however the thread's looks fall between them.
#[test]
fn an_id_that_is_used_again_is_another_job() {
    let world = World::new();
    let (census, told) = world.census();
    let job = JobId::random();
    for round in 1..=50 {
        let shim = FakeShim::start(&world.jobs, &fake::spec(job, "alice"));
        let state = shim.folder().file("state.json");
        shim.exit(0);
        // Ends are told apart by their time.
        let text = fs::read_to_string(&state).unwrap().replace("2000000", &format!("{round}000000"));
        fs::write(state.with_extension("new"), text).unwrap();
        fs::rename(state.with_extension("new"), &state).unwrap();
        census.look(job);
        world.remove(job);
    }
    until("all are gone", || census.counts() == Counts::default());
    let told = told.try_iter().filter(|end| end.job == job).count();
    // Each, and where the thread was quick the end that the test writes in passing.
    assert!((50..=100).contains(&told), "{told}");
}

#[test]
fn the_folder_of_all_may_go_and_come_again() {
    let world = World::new();
    let (census, told) = world.census();
    let (_job, _shim) = world.start();
    until("it runs", || census.counts().running == 1);
    fs::rename(world.jobs.path(), world.jobs.path().with_extension("away")).unwrap();
    fs::remove_dir_all(world.jobs.path().with_extension("away")).unwrap();
    let (job, shim) = world.start();
    shim.exit(0);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().job, job);
    until("the other is gone", || census.counts().running == 0);
}

#[test]
fn its_thread_and_descriptors_go_with_it() {
    let world = World::new();
    let (census, _) = world.census();
    let weak = Arc::downgrade(&census.thread.lookout);
    let clone = census.clone();
    drop(census);
    assert!(weak.upgrade().is_some());
    drop(clone);
    until("its thread has ended", || weak.upgrade().is_none());
}
