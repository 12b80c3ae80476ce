//! A group's interface files, with any text in them.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use jobworker_limits::{Group, LimitsInForce, Usage};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// Every file that is read of a group. Each gets its part of the input, parted by NUL bytes.
const FILES: [&str; 18] = [
    "cgroup.events",
    "cgroup.procs",
    "cpu.max",
    "cpu.stat",
    "cpu.weight",
    "io.max",
    "io.stat",
    "memory.current",
    "memory.events",
    "memory.events.local",
    "memory.high",
    "memory.max",
    "memory.peak",
    "memory.swap.max",
    "pids.current",
    "pids.events",
    "pids.max",
    "pids.peak",
];

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new_in("/dev/shm").unwrap());

fuzz_target!(|bytes: &[u8]| {
    let path: &Path = FOLDER.path();
    let mut texts = bytes.split(|byte| *byte == 0);
    for file in FILES {
        match texts.next() {
            Some(text) => fs::write(path.join(file), text).unwrap(),
            None => _ = fs::remove_file(path.join(file)),
        }
    }
    let group = Group::open(path).unwrap();
    if let Ok(usage) = group.usage() {
        jobworker_fuzz::json::<Usage>(&serde_json::to_vec(&usage).unwrap()).unwrap();
    }
    if let Ok(limits) = group.limits_in_force() {
        jobworker_fuzz::json::<LimitsInForce>(&serde_json::to_vec(&limits).unwrap()).unwrap();
    }
    let _ = group.oom();
    if let Ok(members) = group.procs() {
        assert!(members.is_sorted() && members.iter().all(|pid| *pid > 0));
    }
    if let Ok(mut events) = group.events() {
        let _ = (events.populated(), events.frozen());
        if let Ok(false) = events.populated() {
            assert!(events.wait_empty(Duration::ZERO).unwrap());
        }
    }
});
