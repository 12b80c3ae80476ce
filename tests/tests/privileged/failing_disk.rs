//! A disk that takes no writes any more: read-only, or failing. Jobs go on; what could not be stored is told.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, Job};
use jobworker_tests::client::{everything, output, shell, start, wait};
use jobworker_tests::wait::until;
use jobworker_tests::{Client, Subtree, Worker, census};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::Code;

use crate::jobs::{assert_ended, assert_refused, finish, outcome, start_until, status};
use crate::setup::Turn;

/// The VM's disk, and where it is mounted.
const DISK: &str = "/dev/vdb1";
const DATA: &str = "/data";

/// Writes a line each twentieth of a second; ends when told to.
const COUNT: &str =
    "i=0; trap 'echo last; exit 5' HUP; while :; do echo line $i; i=$((i+1)); sleep 0.05; done";

mod ioctl {
    // EXT4_IOC_SHUTDOWN of fs/ext4/ext4.h: nothing is read or written from then on.
    nix::ioctl_read!(shutdown, b'X', 125, u32);
}

/// Discards what was not yet on the disk.
const WITHOUT_LOG: u32 = 2;

/// The disk, as it was before once this is dropped.
struct Disk;

impl Disk {
    fn remount(flags: MsFlags) -> nix::Result<()> {
        let none: Option<&str> = None;
        mount(none, DATA, none, MsFlags::MS_REMOUNT | flags, none)
    }

    /// As when the kernel has found the file system damaged: sysrq (Documentation/admin-guide/sysrq.rst), because a
    /// remount asks those who have files open for writing.
    fn make_read_only() {
        fs::write("/proc/sysrq-trigger", "u").expect("root may");
        until("the disk is read-only", || mounted_with("ro").then_some(()));
    }

    fn make_fail() {
        let root = fs::File::open(DATA).expect("it is mounted");
        let mut how = WITHOUT_LOG;
        // SAFETY: the descriptor is open, and the kernel reads a u32 there.
        unsafe { ioctl::shutdown(root.as_raw_fd(), &raw mut how) }.expect("ext4 knows this");
    }

    /// Anew. Nobody may use it any more.
    fn mount_again() {
        let none: Option<&str> = None;
        until("nobody uses the disk", || umount(DATA).ok());
        mount(Some(DISK), DATA, Some("ext4"), MsFlags::empty(), none).expect("the disk is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if mounted_with("ro") {
            Self::remount(MsFlags::empty()).expect("the disk is there");
        }
    }
}

/// Whether the disk is mounted with this as its first option.
fn mounted_with(option: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    mounts.lines().any(|line| line.starts_with(&format!("{DISK} {DATA} ext4 {option}")))
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("it runs");
}

fn folders(worker: &Worker) -> Vec<PathBuf> {
    // What the spare shim had made before the disk failed goes once the disk lets it.
    let is_unborn = |path: &PathBuf| path.to_string_lossy().contains("/.new.shim.");
    census::job_folders(&worker.jobs_dir()).into_iter().filter(|path| !is_unborn(path)).collect()
}

async fn assert_start_is_refused(client: &mut Client, worker: &Worker, words: &str) {
    let (before, groups) =
        (folders(worker), census::folders(&worker.cgroup().expect("a subtree").join("jobs")));
    let refused = start(client, shell("exit 5")).await;
    let jobs = worker.jobs_dir().to_str().expect("UTF-8").to_owned();
    assert_refused(refused, Code::FailedPrecondition, "INTERNAL", &["state folder", &jobs, words]);
    assert_eq!(folders(worker), before, "something is left of the refused job");
    assert_eq!(census::folders(&worker.cgroup().expect("a subtree").join("jobs")), groups);
}

/// Asserts that a job's output is all there but for what is told as gone.
async fn assert_all_is_told(client: &mut Client, job: &Job) {
    let seen = output(client, everything(&job.id)).await.expect("the output is there");
    assert_eq!(seen.gap_bytes, job.output_lost_bytes);
    assert_eq!(seen.merged.len() as u64 + seen.gap_bytes, job.output_bytes);
    let text = String::from_utf8_lossy(&seen.merged);
    assert!(text.starts_with("line 0\nline 1\n"), "{text}");
    if seen.gap_bytes == 0 {
        assert!(text.ends_with("\nlast\n"), "{text}");
    }
}

#[tokio::test]
async fn a_read_only_disk_delays_verdicts_and_costs_no_job() {
    let _turn = Turn::alone().await;
    let disk = Disk;
    let state = Arc::new(tempfile::tempdir_in(DATA).expect("a temporary folder"));
    let subtree = Subtree::new();
    let worker = Worker::builder().state(&state).cgroup(&subtree.path()).start();
    drop(state);
    let mut client = worker.admin().await;
    let ends_meanwhile = start_until(&mut client, shell(COUNT), "line 3").await;
    let lives_on = start_until(&mut client, shell(COUNT), "line 3").await;
    Disk::make_read_only();

    assert_start_is_refused(&mut client, &worker, "Read-only file system").await;
    signal(ends_meanwhile.pid.expect("a pid"), Signal::SIGHUP);
    until("the job has ended", || (!Path::new(&ends_meanwhile.cgroup).exists()).then_some(()));
    assert_start_is_refused(&mut client, &worker, "Read-only file system").await;
    assert!(status(&mut client, &ends_meanwhile.id).await.outcome.is_none(), "nobody could record it");
    assert!(Path::new(&lives_on.cgroup).exists(), "the other goes on");

    Disk::remount(MsFlags::empty()).expect("the disk is whole");
    until("what the spare shim had made is gone", || {
        (census::job_folders(&worker.jobs_dir()).into_iter().collect::<Vec<_>>() == folders(&worker))
            .then_some(())
    });
    let ended = wait(&mut client, &ends_meanwhile.id).await.expect("the job is finished");
    assert_ended(&ended, Cause::Exited, Ended::ExitCode(5));
    assert_all_is_told(&mut client, &ended).await;
    signal(lives_on.pid.expect("a pid"), Signal::SIGHUP);
    let ended = wait(&mut client, &lives_on.id).await.expect("the job is finished");
    assert_ended(&ended, Cause::Exited, Ended::ExitCode(5));
    assert_all_is_told(&mut client, &ended).await;
    let (next, _) = finish(&mut client, shell("exit 6")).await;
    assert_ended(&next, Cause::Exited, Ended::ExitCode(6));
    drop(worker);
    drop(disk);
}

#[tokio::test]
async fn a_failing_disk_costs_neither_job_nor_worker_and_is_told_when_it_is_replaced() {
    let _turn = Turn::alone().await;
    let state = Arc::new(tempfile::tempdir_in(DATA).expect("a temporary folder"));
    let subtree = Subtree::new();
    let mut worker = Worker::builder().state(&state).cgroup(&subtree.path()).start();
    let mut client = worker.admin().await;
    let (before, _) = finish(&mut client, shell("echo kept; exit 4")).await;
    let job = start_until(&mut client, shell(COUNT), "line 3").await;
    // So that what is there by now survives.
    nix::unistd::sync();
    Disk::make_fail();

    assert_start_is_refused(&mut client, &worker, "Input/output error").await;
    let main = job.pid.expect("a pid");
    let written = || io_written(main);
    let then = written();
    until("the job goes on writing", || (written() > then).then_some(()));
    assert!(client.list(jobworker_tests::api::ListRequest::default()).await.is_ok(), "the worker lives");
    let _ = before;

    // A disk that is pulled does not come back to those who have it open.
    let (pki, ours) = (Arc::clone(&worker.pki), worker.state().path().to_str().expect("UTF-8").to_owned());
    worker.signal(Signal::SIGKILL);
    worker.ended();
    census::processes_with(&ours).into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
    until("all are gone", || census::processes_with(&ours).is_empty().then_some(()));
    Disk::mount_again();
    worker = Worker::builder().pki(&pki).state(&state).cgroup(&subtree.path()).start();
    drop(state);
    let mut client = worker.admin().await;
    assert_eq!(status(&mut client, &before.id).await, before);
    let lost = wait(&mut client, &job.id).await.expect("the job is finished");
    assert_eq!(outcome(&lost).cause(), Cause::Lost, "{lost:#?}");
    let seen = output(&mut client, everything(&job.id)).await.expect("the output is there");
    assert!(seen.merged.starts_with(b"line 0\nline 1\nline 2\n"), "{seen:?}");
    drop(worker);
}

/// Bytes that a process has written so far.
fn io_written(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("it runs");
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("proc(5)");
    line.parse().expect("a number")
}
