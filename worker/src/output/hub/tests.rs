use std::fs;
use std::future::Future;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::job::folder::JobsDir;
use crate::job::{JobId, fake};
use crate::output::index::Kind;
use crate::tasks::Tasks;

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("a change is told of")
}

/// Whatever was told of so far is seen, by a change that comes after it.
async fn settle(watch: &mut Watch, shim: &fake::FakeShim) {
    shim.set(crate::job::Phase::Running);
    while soon(watch.changed()).await != Ok(Change::State) {}
}

fn job() -> (TempDir, fake::FakeShim) {
    let state_dir = tempfile::tempdir().unwrap();
    let spec = fake::spec(JobId::random(), "alice");
    let shim = fake::FakeShim::start(&JobsDir::new(state_dir.path()), &spec);
    (state_dir, shim)
}

#[tokio::test]
async fn output_and_state_are_told_apart() {
    let (_state_dir, mut shim) = job();
    let hub = Hub::new(&Tasks::default()).unwrap();
    let mut watch = hub.watch(shim.folder()).unwrap();
    shim.append(Kind::Stdout, 1, b"x");
    assert_eq!(soon(watch.changed()).await, Ok(Change::Output));
    shim.exit(0);
    while soon(watch.changed()).await.unwrap() != Change::State {}
}

#[tokio::test]
async fn output_does_not_wake_who_waits_for_the_state() {
    let (_state_dir, mut shim) = job();
    let hub = Hub::new(&Tasks::default()).unwrap();
    let (mut both, mut state) = (hub.watch(shim.folder()).unwrap(), hub.watch_state(shim.folder()).unwrap());
    shim.append(Kind::Stderr, 1, b"x");
    assert_eq!(soon(both.changed()).await, Ok(Change::Output));
    assert!(timeout(Duration::ZERO, state.changed()).await.is_err());
    settle(&mut both, &shim).await;
    soon(state.changed()).await.unwrap();
}

#[tokio::test]
async fn bytes_without_their_record_wake_nobody() {
    let (_state_dir, mut shim) = job();
    let hub = Hub::new(&Tasks::default()).unwrap();
    let mut watch = hub.watch(shim.folder()).unwrap();
    fs::write(shim.folder().file(OUTPUT), b"bytes").unwrap();
    shim.set(crate::job::Phase::Running);
    assert_eq!(soon(watch.changed()).await, Ok(Change::State));
    assert!(timeout(Duration::ZERO, watch.changed()).await.is_err());
    shim.append(Kind::Stdout, 1, b"x");
    assert_eq!(soon(watch.changed()).await, Ok(Change::Output));
}

#[tokio::test]
async fn a_job_that_is_watched_before_it_has_an_index_is_told_of_all_the_same() {
    let state_dir = tempfile::tempdir().unwrap();
    let folder =
        fake::FakeShim::prepare(&JobsDir::new(state_dir.path()), &fake::spec(JobId::random(), "alice"));
    let hub = Hub::new(&Tasks::default()).unwrap();
    let mut early = hub.watch(&folder).unwrap();
    let mut shim = fake::FakeShim::open(&folder);
    assert_eq!(soon(early.changed()).await, Ok(Change::Output));
    // Who comes later, and asks for less, takes nothing from it.
    let (mut late, _state) = (hub.watch(&folder).unwrap(), hub.watch_state(&folder).unwrap());
    settle(&mut early, &shim).await;
    for watch in [&mut early, &mut late] {
        while timeout(Duration::ZERO, watch.changed()).await.is_ok() {}
    }
    shim.append(Kind::Stdout, 1, b"x");
    assert_eq!(soon(early.changed()).await, Ok(Change::Output));
    assert_eq!(soon(late.changed()).await, Ok(Change::Output));
}

#[tokio::test]
async fn every_append_wakes_a_follower_that_has_seen_the_last() {
    let (_state_dir, mut shim) = job();
    let hub = Hub::new(&Tasks::default()).unwrap();
    let mut watch = hub.watch(shim.folder()).unwrap();
    for length in 1..=500 {
        shim.append(Kind::Stdout, 1, b"x");
        while fs::metadata(shim.folder().file("index")).unwrap().len() < 24 * (length + 1) {
            soon(watch.changed()).await.unwrap();
        }
        soon(watch.changed()).await.unwrap();
    }
}

#[tokio::test]
async fn a_folder_is_watched_once_and_only_while_somebody_does() {
    let (_state_dir, shim) = job();
    let hub = Hub::new(&Tasks::default()).unwrap();
    let first = hub.watch(shim.folder()).unwrap();
    let second = hub.watch(shim.folder()).unwrap();
    // It and its index.
    assert_eq!(hub.watched(), 2);
    let state = hub.watch_state(shim.folder()).unwrap();
    drop(first);
    assert_eq!(hub.watched(), 2);
    drop(second);
    assert_eq!(hub.watched(), 1);
    drop(state);
    assert_eq!(hub.watched(), 0);
    let mut again = hub.watch(shim.folder()).unwrap();
    settle(&mut again, &shim).await;
}

#[tokio::test]
async fn a_removed_folder_is_told_of_and_its_name_can_be_used_again() {
    let (_state_dir, shim) = job();
    let hub = Hub::new(&Tasks::default()).unwrap();
    let (mut watch, mut state) = (hub.watch(shim.folder()).unwrap(), hub.watch_state(shim.folder()).unwrap());
    fs::remove_dir_all(shim.folder().path()).unwrap();
    soon(async { while watch.changed().await.is_ok() {} }).await;
    assert_eq!(soon(state.changed()).await, Err(Gone));
    assert!(matches!(hub.watch(shim.folder()), Err(WatchError::NotFound(_))));

    fs::create_dir(shim.folder().path()).unwrap();
    let mut new = hub.watch(shim.folder()).unwrap();
    drop((watch, state));
    settle(&mut new, &shim).await;
}

#[tokio::test]
async fn a_folder_that_loses_its_name_is_told_of_as_removed() {
    let (_state_dir, shim) = job();
    let hub = Hub::new(&Tasks::default()).unwrap();
    let mut watch = hub.watch(shim.folder()).unwrap();
    fs::rename(shim.folder().path(), shim.folder().path().with_file_name(".old.x")).unwrap();
    soon(async { while watch.changed().await.is_ok() {} }).await;
    drop(watch);
    assert_eq!(hub.watched(), 0);
}

/// As it looks to a watch that is made while a job's folder gets its name: a rename is reported after it has happened.
#[tokio::test]
async fn a_folder_that_is_where_it_was_is_not_removed() {
    let (_state_dir, shim) = job();
    let hub = Hub::new(&Tasks::default()).unwrap();
    let (mut watch, mut state) = (hub.watch(shim.folder()).unwrap(), hub.watch_state(shim.folder()).unwrap());
    let away = shim.folder().path().with_file_name(".spare.x");
    fs::rename(shim.folder().path(), &away).unwrap();
    fs::rename(&away, shim.folder().path()).unwrap();
    assert_eq!(soon(watch.changed()).await, Ok(Change::State));
    assert_eq!(soon(watch.changed()).await, Ok(Change::Output));
    assert_eq!(soon(state.changed()).await, Ok(()));
    settle(&mut watch, &shim).await;
    drop((watch, state));
    assert_eq!(hub.watched(), 0);
}

#[tokio::test]
async fn an_overflow_of_the_kernels_queue_wakes_everybody() {
    let (_state_dir, shim) = job();
    let hub = Hub::new(&Tasks::default()).unwrap();
    let mut watch = hub.watch(shim.folder()).unwrap();
    let overflow =
        InotifyEvent { wd: watch.descriptor(), mask: AddWatchFlags::IN_Q_OVERFLOW, cookie: 0, name: None };
    hub.running.shared.tell(&[overflow]);
    assert_eq!(soon(watch.changed()).await, Ok(Change::State));
    assert_eq!(soon(watch.changed()).await, Ok(Change::Output));
}

#[tokio::test]
async fn the_task_ends_with_the_last_handle() {
    let (_state_dir, shim) = job();
    let hub = Hub::new(&Tasks::default()).unwrap();
    let watch = hub.watch(shim.folder()).unwrap();
    let shared = Arc::downgrade(&hub.running.shared);
    drop(hub);
    assert!(shared.upgrade().is_some());
    drop(watch);
    soon(async {
        while shared.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
