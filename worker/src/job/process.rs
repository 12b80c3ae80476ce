//! A job's main process, as `/proc/PID/status` has it (proc_pid_status(5)).

use std::fs;
use std::io;

use super::State;

/// How a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStatus {
    /// `R` running, `S` sleeping, `D` waiting for a disk, `T` stopped, `Z` exited and not yet reaped, …
    pub state: char,
    /// Its threads.
    pub threads: u64,
    /// Its resident set; 0 for a process that has none any more.
    pub resident_bytes: u64,
}

/// A process of a job that is to end, and lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Its number.
    pub pid: i32,
    /// What it calls itself.
    pub name: String,
    /// As [`ProcessStatus::state`].
    pub state: char,
    /// The kernel's function in which it sleeps, where that is known: it takes the right to trace it.
    pub kernel_function: Option<String>,
    /// The process that traces it.
    pub tracer: Option<i32>,
    /// It is outside the job's group.
    pub is_outside: bool,
}

impl ProcessStatus {
    /// The main process of a job, in its group or outside. `None` when it is gone, even if its number belongs to another
    /// process by now.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn of(state: &State) -> io::Result<Option<Self>> {
        let Some(text) = status_of(state.pid)? else { return Ok(None) };
        let parent = field(&text, "PPid:").and_then(|ppid| ppid.parse().ok());
        Ok(if parent == Some(state.shim_pid) { Self::parse(&text) } else { None })
    }

    fn parse(text: &str) -> Option<Self> {
        let resident_kib: u64 = field(text, "VmRSS:").map_or(Some(0), |kib| kib.parse().ok())?;
        Some(Self {
            state: field(text, "State:")?.chars().next()?,
            threads: field(text, "Threads:")?.parse().ok()?,
            resident_bytes: resident_kib.saturating_mul(1024),
        })
    }
}

impl Remaining {
    /// A process; `None` when it is gone, or has exited and only waits to be reaped.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn of(pid: i32, is_outside: bool) -> io::Result<Option<Self>> {
        let Some(text) = status_of(pid)? else { return Ok(None) };
        let asleep = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        Ok(Self::parse(pid, is_outside, &text, &asleep))
    }

    fn parse(pid: i32, is_outside: bool, status: &str, wchan: &str) -> Option<Self> {
        let state = field(status, "State:")?.chars().next().filter(|state| !"ZX".contains(*state))?;
        let tracer =
            field(status, "TracerPid:").and_then(|tracer| tracer.parse().ok()).filter(|tracer| *tracer != 0);
        // 0: it is not asleep, or we may not know.
        let asleep = Some(wchan.trim()).filter(|wchan| !wchan.is_empty() && *wchan != "0");
        let name = status.lines().find_map(|line| line.strip_prefix("Name:"))?.trim().to_owned();
        Some(Self { pid, name, state, kernel_function: asleep.map(str::to_owned), tracer, is_outside })
    }
}

/// The children of a process with one thread: a shim (proc_pid_task(5)).
///
/// # Errors
/// When `/proc` can't be read.
pub fn children_of(shim_pid: i32) -> io::Result<Vec<i32>> {
    let text = read(&format!("/proc/{shim_pid}/task/{shim_pid}/children"))?.unwrap_or_default();
    Ok(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

fn status_of(pid: i32) -> io::Result<Option<String>> {
    read(&format!("/proc/{pid}/status"))
}

/// `None` when the process is gone.
fn read(path: &str) -> io::Result<Option<String>> {
    match fs::read(path) {
        // A process calls itself what it likes.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        // ESRCH: it ended between the opening and the reading.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The first word of a line's value.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::parent_id;

    use jobworker_limits::LimitsInForce;

    use super::*;
    use crate::job::Phase;

    fn state(pid: u32, shim_pid: u32) -> State {
        State {
            version: 1,
            phase: Phase::Running,
            pid: pid.cast_signed(),
            shim_pid: shim_pid.cast_signed(),
            boot_id: String::new(),
            user: "root".to_owned(),
            cgroup: None,
            started_unix_usec: 0,
            birth: None,
            limits_in_force: LimitsInForce::default(),
            real_time_signals: true,
        }
    }

    #[test]
    fn a_living_child_of_its_shim_is_read() {
        let own = state(std::process::id(), parent_id());
        let status = ProcessStatus::of(&own).unwrap().unwrap();
        assert!("RSD".contains(status.state), "{status:?}");
        assert!(status.threads >= 2 && status.resident_bytes > 100_000, "{status:?}");
    }

    #[test]
    fn a_number_that_another_process_has_is_not_the_job() {
        assert_eq!(ProcessStatus::of(&state(std::process::id(), std::process::id())).unwrap(), None);
        assert_eq!(ProcessStatus::of(&state(u32::MAX >> 1, parent_id())).unwrap(), None);
    }

    #[test]
    fn what_a_process_waits_for_is_read_where_it_lives() {
        let text = "Name:\tmy job\nState:\tD (disk sleep)\nPPid:\t7\nTracerPid:\t77\nThreads:\t1\n";
        let remaining = Remaining::parse(5, true, text, "folio_wait_bit\n").unwrap();
        let expected = Remaining {
            pid: 5,
            name: "my job".to_owned(),
            state: 'D',
            kernel_function: Some("folio_wait_bit".to_owned()),
            tracer: Some(77),
            is_outside: true,
        };
        assert_eq!(remaining, expected);
        let untraced = text.replace("77", "0");
        let unknown = Remaining { kernel_function: None, tracer: None, ..expected };
        for hidden in ["0", ""] {
            assert_eq!(Remaining::parse(5, true, &untraced, hidden), Some(unknown.clone()));
        }
        assert_eq!(Remaining::parse(5, true, &text.replace("D (disk sleep)", "Z (zombie)"), "0"), None);
        let own = Remaining::of(std::process::id().cast_signed(), false).unwrap().unwrap();
        assert!("RSD".contains(own.state), "{own:?}");
    }

    #[test]
    fn a_zombie_has_no_resident_set() {
        let text = "Name:\tx\nState:\tZ (zombie)\nPPid:\t7\nThreads:\t1\n";
        let zombie = ProcessStatus { state: 'Z', threads: 1, resident_bytes: 0 };
        assert_eq!(ProcessStatus::parse(text), Some(zombie));
        let text = format!("{text}VmRSS:\t     12 kB\n");
        assert_eq!(ProcessStatus::parse(&text), Some(ProcessStatus { resident_bytes: 12 << 10, ..zombie }));
    }
}
