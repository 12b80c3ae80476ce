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

impl ProcessStatus {
    /// The main process of a job. `None` when it is gone, even if its number belongs to another process by now;
    /// `members`: the processes in the job's group, where it has one.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn of(state: &State, members: Option<&[i32]>) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(format!("/proc/{}/status", state.pid)) {
            Ok(text) => text,
            // ESRCH: it ended between the opening and the reading.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let is_child = field(&text, "PPid:").and_then(|ppid| ppid.parse().ok()) == Some(state.shim_pid);
        let is_main = members.map_or(is_child, |members| is_child && members.contains(&state.pid));
        Ok(if is_main { Self::parse(&text) } else { None })
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
        let status = ProcessStatus::of(&own, None).unwrap().unwrap();
        assert!("RSD".contains(status.state), "{status:?}");
        assert!(status.threads >= 2 && status.resident_bytes > 100_000, "{status:?}");
        assert!(ProcessStatus::of(&own, Some(&[own.pid])).unwrap().is_some());
    }

    #[test]
    fn a_number_that_another_process_has_is_not_the_job() {
        assert_eq!(ProcessStatus::of(&state(std::process::id(), std::process::id()), None).unwrap(), None);
        let own = state(std::process::id(), parent_id());
        assert_eq!(ProcessStatus::of(&own, Some(&[])).unwrap(), None);
        assert_eq!(ProcessStatus::of(&state(u32::MAX >> 1, parent_id()), None).unwrap(), None);
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
