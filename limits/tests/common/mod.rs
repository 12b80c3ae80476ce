//! A throw-away cgroup subtree for the tests, and processes born into its groups.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jobworker_limits::{Base, Group};

/// `Base::prepare` moves the whole test process, so only one test at a time may have a subtree.
static TURN: Mutex<()> = Mutex::new(());

/// A fresh group below this process's own; at the end this process goes back and everything in it is removed.
pub(crate) struct Subtree {
    home: PathBuf,
    path: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Subtree {
    /// Panics where there is no cgroup v2 that this user may write: these tests never skip.
    pub(crate) fn new() -> Subtree {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let home = Base::find(None).expect("these tests need cgroup v2");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = home.join(format!("limits-test-{}-{number}", std::process::id()));
        fs::create_dir(&path)
            .expect("these tests need a cgroup v2 subtree that they may write (run as root)");
        Subtree { home, path, _turn: turn }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Subtree {
    fn drop(&mut self) {
        // This process may be in it: home first, then all that is left is the test's.
        fs::write(self.home.join("cgroup.procs"), "0").expect("go home");
        let group = Group::open(&self.path).expect("open the subtree");
        group.kill().expect("kill the subtree");
        assert!(
            group.wait_empty(Duration::from_secs(10)).expect("wait for the subtree"),
            "processes are left"
        );
        group.remove().expect("remove the subtree");
    }
}

/// Starts `sh -c SCRIPT` inside a group, and returns when it is there.
pub(crate) fn start(group: &Path, script: &str) -> Child {
    let enter = "echo 0 >\"$0/cgroup.procs\" && echo entered && exec sh -c \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", enter]).arg(group).arg(script).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("sh");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read from sh");
    assert_eq!(line, "entered\n", "sh could not enter {}", group.display());
    child
}

/// Waits until a condition holds, at most ten seconds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn read(group: &Path, file: &str) -> String {
    fs::read_to_string(group.join(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"))
        .trim_end()
        .to_owned()
}
