//! Groups on this host's kernel, with no controller needed: any cgroup v2 that this user may write will do.

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Subtree, eventually, read, start};
use jobworker_limits::{
    Base, BaseError, Controller, DiskError, Group, GroupError, Limits, LimitsInForce, OomEvents,
    SignalNumber, enter_leaf, resolve_disk,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const LONG: Duration = Duration::from_secs(10);

fn prepare(subtree: &Subtree) -> Base {
    Base::prepare(subtree.path()).expect("prepare")
}

fn job(base: &Base) -> Group {
    base.create_group("job-1", &Limits::default(), Path::new("/")).expect("create a group without limits")
}

fn limits(json: &str) -> Limits {
    serde_json::from_str(json).expect(json)
}

#[test]
fn prepare_makes_the_leaves_and_enters_its_own() {
    let subtree = Subtree::new();
    let base = prepare(&subtree);
    assert_eq!(base.path(), subtree.path());
    assert!(base.jobs().is_dir());
    let shims = read(&subtree.path().join("shims"), "cgroup.procs");
    assert!(shims.lines().any(|pid| pid == std::process::id().to_string()), "{shims}");
    assert_eq!(Base::find(None).expect("find"), subtree.path(), "from inside shims/");
    prepare(&subtree);
    enter_leaf(subtree.path(), "worker").expect("enter");
    assert_eq!(Base::find(None).expect("find"), subtree.path(), "from inside worker/");
}

#[test]
fn what_is_no_group_is_refused_as_base() {
    for path in ["/proc", "/tmp"] {
        let error = Base::prepare(Path::new(path)).unwrap_err();
        assert!(matches!(error, BaseError::NotAGroup { .. }), "{error}");
        Base::find(Some(Path::new(path))).unwrap_err();
    }
    let error = Base::find(Some(Path::new("/nonexistent"))).unwrap_err().to_string();
    assert_eq!(error, "cannot open /nonexistent: No such file or directory (os error 2)");
}

/// Runs itself once more as an unprivileged user.
#[test]
fn a_subtree_that_is_not_delegated_is_refused_with_the_remedy() {
    const BASE: &str = "LIMITS_TEST_UNDELEGATED_BASE";
    if let Some(base) = std::env::var_os(BASE) {
        let error = Base::prepare(Path::new(&base)).unwrap_err();
        assert!(matches!(error, BaseError::NotDelegated { .. }), "{error}");
        assert!(error.to_string().contains("Delegate=yes"), "{error}");
        return;
    }
    let subtree = Subtree::new();
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("test");
    fs::copy(std::env::current_exe().expect("own path"), &program).expect("copy");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("open the folder");
    let mut command = Command::new(program);
    command.args(["--exact", "a_subtree_that_is_not_delegated_is_refused_with_the_remedy"]);
    let status =
        command.env(BASE, subtree.path()).current_dir("/").uid(65534).gid(65534).status().expect("start");
    assert!(status.success(), "{status}");
    assert!(!subtree.path().join("jobs").exists());
}

#[test]
fn each_limit_without_its_controller_is_refused_and_creates_nothing() {
    let subtree = Subtree::new();
    // The group above hands nothing down, whatever this host has.
    let inner = subtree.path().join("inner");
    fs::create_dir(&inner).expect("create");
    let base = Base::prepare(&inner).expect("prepare");
    assert!(base.unavailable().keys().copied().eq(Controller::ALL));
    for (json, name) in [
        (r#"{"cpu":"1"}"#, "cpu"),
        (r#"{"cpu_weight":"50"}"#, "cpu"),
        (r#"{"memory":"64MiB"}"#, "memory"),
        (r#"{"memory_high":"64MiB"}"#, "memory"),
        (r#"{"swap":"0"}"#, "memory"),
        (r#"{"pids":"8"}"#, "pids"),
        (r#"{"io":["1M"]}"#, "io"),
    ] {
        let error = base.create_group("job", &limits(json), Path::new("/")).unwrap_err();
        assert!(matches!(&error, GroupError::ControllerMissing { group, .. } if *group == inner), "{error}");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("the {name} controller is not available in {}", inner.display())),
            "{text}"
        );
        assert!(text.contains("Delegate=yes") || text.contains("unified_cgroup_hierarchy=1"), "{text}");
    }
    assert!(base.leftover_groups().expect("list").is_empty());
}

#[test]
fn names_stay_inside_jobs() {
    let subtree = Subtree::new();
    let base = prepare(&subtree);
    for name in ["", "..", ".", "a/b", "../shims", "a b", "ä", "a\0", &"a".repeat(256)] {
        let error = base.create_group(name, &Limits::default(), Path::new("/")).unwrap_err();
        assert!(matches!(error, GroupError::Name { .. }), "{error}");
    }
    job(&base);
    let error = base.create_group("job-1", &Limits::default(), Path::new("/")).unwrap_err().to_string();
    assert!(error.contains("job-1: File exists"), "{error}");
    assert_eq!(base.leftover_groups().expect("list"), ["job-1"]);
}

#[test]
fn kill_ends_what_escaped_its_session_and_what_hides_in_sub_groups() {
    let subtree = Subtree::new();
    let base = prepare(&subtree);
    let group = job(&base);
    let hidden = group.path().join("a/b");
    fs::create_dir_all(&hidden).expect("sub-groups");
    let mut outer = start(group.path(), "trap '' TERM; setsid sleep 1000 & sleep 1000 & wait");
    let mut inner = start(&hidden, "exec sleep 1000");
    eventually("three processes outside, one inside", || group.process_count().expect("count") == 4);
    assert!(matches!(group.remove().unwrap_err(), GroupError::Busy { .. }));
    assert!(!group.wait_empty(Duration::from_millis(50)).expect("wait"), "it is not empty");
    group.kill().expect("kill");
    assert!(group.wait_empty(LONG).expect("wait"), "still populated");
    assert_eq!(group.procs().expect("list"), [0; 0]);
    group.remove().expect("remove");
    group.remove().expect("remove what is gone");
    assert!(group.wait_empty(Duration::ZERO).expect("a removed group is empty"));
    group.kill().expect("a removed group has nothing to kill");
    outer.wait().expect("reap");
    inner.wait().expect("reap");
    assert!(base.leftover_groups().expect("list").is_empty());
}

#[test]
fn a_signal_reaches_every_process_of_the_group_and_no_other() {
    let subtree = Subtree::new();
    let base = prepare(&subtree);
    let group = job(&base);
    let other = base.create_group("job-2", &Limits::default(), Path::new("/")).expect("create");
    // More than are signalled in one go.
    let mut child = start(group.path(), "for i in $(seq 150); do sleep 1000 & done; exec sleep 1000");
    let mut outsider = start(other.path(), "exec sleep 1000");
    eventually("151 processes", || group.process_count().expect("count") == 151);
    eventually("all are sleep", || {
        let is_sleep =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
        group.procs().expect("list").iter().all(is_sleep)
    });
    assert_eq!(group.signal(SignalNumber::SIGTERM).expect("signal"), 151);
    assert!(group.wait_empty(LONG).expect("wait"), "still populated");
    assert_eq!(group.signal(SignalNumber::SIGTERM).expect("signal nobody"), 0);
    assert_eq!(other.process_count().expect("count"), 1);
    other.kill().expect("kill");
    child.wait().expect("reap");
    outsider.wait().expect("reap");
}

#[test]
fn poll_wakes_when_the_last_process_ends() {
    let subtree = Subtree::new();
    let base = prepare(&subtree);
    let group = job(&base);
    let mut child = start(group.path(), "exec sleep 1000");
    let mut events = group.events().expect("events");
    assert!(events.populated().expect("read"));
    let poll_for = |timeout: u16| {
        poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], PollTimeout::from(timeout))
            .expect("poll")
    };
    assert_eq!(poll_for(0), 0, "nothing has changed");
    group.kill().expect("kill");
    assert_eq!(poll_for(10_000), 1, "the change");
    assert!(!events.populated().expect("read"));
    child.wait().expect("reap");
    group.remove().expect("remove");
    assert!(!events.populated().expect("of a removed group"));
}

#[test]
fn frozen_processes_stand_still_until_thawed_and_can_be_killed() {
    let subtree = Subtree::new();
    let base = prepare(&subtree);
    let group = job(&base);
    let mut child = start(group.path(), "while :; do :; done");
    let mut events = group.events().expect("events");
    group.freeze().expect("freeze");
    eventually("frozen", || events.frozen().expect("read"));
    let used = || group.usage().expect("usage").cpu_usec;
    let before = used();
    assert!(!group.wait_empty(Duration::from_millis(100)).expect("wait"));
    assert_eq!(used(), before);
    group.thaw().expect("thaw");
    eventually("running again", || used() > before);
    group.freeze().expect("freeze");
    group.kill().expect("kill");
    assert!(group.wait_empty(LONG).expect("wait"), "still populated");
    child.wait().expect("reap");
}

#[test]
fn without_controllers_cpu_time_is_counted_and_the_rest_is_unknown() {
    let subtree = Subtree::new();
    let inner = subtree.path().join("inner");
    fs::create_dir(&inner).expect("create");
    let base = Base::prepare(&inner).expect("prepare");
    let group = job(&base);
    let status =
        start(group.path(), "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").wait().expect("reap");
    assert!(status.success());
    let usage = group.usage().expect("usage");
    assert!(usage.cpu_usec.is_some_and(|usec| usec > 0), "{usage:?}");
    assert_eq!((usage.memory_peak_bytes, usage.pids_peak, usage.io.len()), (None, None, 0));
    assert_eq!(group.limits_in_force().expect("limits"), LimitsInForce::default());
    assert_eq!(group.oom().expect("oom"), OomEvents::default());
}

#[test]
fn a_path_on_a_file_system_without_a_disk_is_refused() {
    let error = resolve_disk(Path::new("/dev/shm")).unwrap_err();
    assert!(matches!(&error, DiskError::NoDisk { file_system, .. } if file_system == "tmpfs"), "{error}");
}

#[test]
fn a_missing_group_is_an_error_to_read() {
    let subtree = Subtree::new();
    let missing = subtree.path().join("missing");
    let error = Group::open(&missing).unwrap_err().to_string();
    assert!(error.contains("missing: No such file"), "{error}");
}
