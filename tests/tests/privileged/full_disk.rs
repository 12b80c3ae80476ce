//! A disk that is full: the job goes on, what could not be stored is told, and the verdict is recorded all the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jobworker_tests::api::Cause;
use jobworker_tests::api::outcome::Ended;
use jobworker_tests::client::{everything, output, shell, start};
use jobworker_tests::{Subtree, Worker, census};
use nix::mount::{MsFlags, mount, umount};
use tonic::Code;

use crate::jobs::{assert_ended, finish};
use crate::setup::Turn;

/// A small file system of its own, as the state folder of a worker.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path) -> Self {
        let none: Option<&str> = None;
        mount(none, path, Some("tmpfs"), MsFlags::empty(), Some("size=2m")).expect("this is root in a VM");
        Self { path: path.to_owned() }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount(&self.path).expect("nobody is left who uses it");
    }
}

#[tokio::test]
async fn a_full_disk_costs_output_and_neither_job_nor_verdict() {
    let _turn = Turn::shared().await;
    let state = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    // Before the worker in this list: dropped after it.
    let _disk = SmallDisk::mount(state.path());
    let subtree = Subtree::new();
    let worker = Worker::builder().state(&state).cgroup(&subtree.path()).start();
    drop(state);
    let mut client = worker.admin().await;

    let job = start(&mut client, shell("head -c 5000000 /dev/zero; echo tail >&2; exit 4")).await;
    let job = job.expect("there is space yet");
    let seen = output(&mut client, everything(&job.id)).await.expect("the output is there");
    let ended = seen.end.expect("the stream ends with the job's end");
    assert_ended(&ended, Cause::Exited, Ended::ExitCode(4));
    assert!(ended.output_lost_bytes > 0, "{ended:#?}");
    assert_eq!(seen.merged.len() as u64 + ended.output_lost_bytes, 5_000_005);
    assert!(seen.gap_bytes <= ended.output_lost_bytes, "more gaps than losses");

    let folders = census::folders(&worker.jobs_dir());
    let refused = start(&mut client, shell("exit 5")).await.expect_err("there is no space for it");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("No space left"), "{refused}");
    assert_eq!(census::folders(&worker.jobs_dir()), folders, "something is left of the refused job");

    std::fs::remove_file(worker.jobs_dir().join(&job.id).join("output")).expect("root may");
    let (next, _) = finish(&mut client, shell("exit 6")).await;
    assert_ended(&next, Cause::Exited, Ended::ExitCode(6));
}
