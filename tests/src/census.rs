//! Counting what must not be left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The pids of the processes whose command line has `text` in it.
pub fn processes_with(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).replace('\0', " ").contains(text) && pid != std::process::id() {
            found.push(pid);
        }
    }
    found
}

/// The children of a process, and theirs; but for the spare shim, which has no job.
pub fn descendants(pid: u32) -> Vec<u32> {
    let children: Vec<u32> = children(pid).into_iter().filter(|child| !is_spare(*child)).collect();
    let deeper: Vec<u32> = children.iter().flat_map(|child| descendants(*child)).collect();
    [children, deeper].concat()
}

/// The children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process is a shim that waits for its job, or one that was forked this moment and has the spawner's name
/// still.
pub fn is_spare(pid: u32) -> bool {
    has_name(pid, "jobworker-spare") || has_name(pid, "jobworker-spawn")
}

/// Whether a process is called that (`ps -o comm`).
pub fn has_name(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
}

/// The names of the jobs' folders in the folder of all; what else is there but the folder of a spare shim, too.
pub fn job_folders(jobs: &Path) -> BTreeSet<PathBuf> {
    let is_spares = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix(".new.shim.").and_then(|pid| pid.parse().ok()).is_some_and(is_spare)
    };
    folders(jobs).into_iter().filter(|path| !is_spares(path)).collect()
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or(0)
}

/// The numbers of a process's threads.
pub fn thread_ids(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// How many threads a process has.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map(Iterator::count).unwrap_or(0)
}

/// The names of the folders in a folder; none where it is not there.
pub fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return BTreeSet::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// A line of `/proc/<pid>/status`, without its name.
pub fn status_line(pid: u32, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

/// Bytes of memory that a process has in use now (`VmRSS`).
pub fn resident_bytes(pid: u32) -> u64 {
    let text = status_line(pid, "VmRSS").unwrap_or_default();
    text.trim_end_matches(" kB").parse().map_or(0, |kib: u64| kib << 10)
}

/// How long a process has had a CPU, in clock ticks of 10 ms (proc_pid_stat(5), fields 14 and 15).
pub fn cpu_ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Bytes of memory that a process has to itself (`smaps_rollup`): none of it is another's, too.
pub fn private_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let private = text.lines().filter(|line| line.starts_with("Private_"));
    private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).map(|kib| kib << 10).sum()
}
