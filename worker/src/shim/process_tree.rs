//! Processes below the shim, as `/proc` shows them: whose children they are, whether they live, how one ended.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use jobworker_limits::SignalNumber as Signal;
use nix::errno::Errno;
use nix::unistd::{Pid, SysconfVar, sysconf};
use rustix::process::{PidfdFlags, kill_process, pidfd_open, pidfd_send_signal};

use crate::job::Ended;
use crate::job::verdict::MainEnd;

/// The children of a process, of all its threads (proc_pid_task(5), `children`). Those of this process are complete: only
/// reaping takes one away. Of another's one may be missing while others exit.
///
/// # Errors
/// When `/proc` can't be read.
pub fn children(parent: Pid) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for thread in threads(parent)? {
        let text = read(&format!("/proc/{parent}/task/{thread}/children"))?.unwrap_or_default();
        found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw));
    }
    Ok(found)
}

/// Whether a process has exited with all its threads; it may have to be reaped still. A first thread that has exited says
/// little while others run.
///
/// # Errors
/// When `/proc` can't be read.
pub(super) fn has_exited(process: Pid) -> io::Result<bool> {
    // Of most that live, the first thread tells.
    if !is_dead(&format!("/proc/{process}/stat"))? {
        return Ok(false);
    }
    for thread in threads(process)? {
        if !is_dead(&format!("/proc/{process}/task/{thread}/stat"))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How a child of ours ended that has exited and can't be reaped, because a process that traces it, or one of its threads,
/// does not let go: by the exit code in `/proc/PID/stat`. Never guessed: the kernel shows a 0 there to those who may not
/// know.
pub(super) fn end_of_held(process: Pid) -> MainEnd {
    let tracer = tracers(process);
    let status = read(&format!("/proc/{process}/stat")).ok().flatten().and_then(|stat| exit_code(&stat));
    match status {
        // The same right as for the exit code is needed for `io`.
        Some(status) if status != 0 || may_inspect(process) => {
            tracing::warn!(main = %process, tracer, "the main process is held by a tracer; its exit code is read from /proc");
            MainEnd::Known(ended(status))
        }
        _ => MainEnd::Hidden {
            reason: format!(
                "its main process has exited, and {tracer}, which traces it, keeps how from its shim"
            ),
        },
    }
}

/// Sends a signal to everything below a process, from the leaves up, so that no parent has had the time to start what
/// would be missed.
///
/// # Errors
/// When `/proc` can't be read, or a process can't be signalled.
pub(super) fn signal_below(parent: Pid, signal: Signal) -> io::Result<()> {
    for child in children(parent)? {
        signal_below(child, signal)?;
        if parent == Pid::this() {
            signal_child(child, signal)?;
        } else {
            signal_child_of(parent, child, signal)?;
        }
    }
    Ok(())
}

/// Sends a signal to a child of ours. Nobody else has its number before we reap it. One that became somebody else's needs
/// no signal.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn signal_child(child: Pid, signal: Signal) -> io::Result<()> {
    match send(child, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends a signal to a process that can't be another's by now. nix's `kill` takes no real-time signals.
///
/// # Errors
/// The kernel's.
pub(super) fn send(process: Pid, signal: Signal) -> rustix::io::Result<()> {
    let process = rustix::process::Pid::from_raw(process.as_raw()).ok_or(rustix::io::Errno::SRCH)?;
    kill_process(process, signal.to_rustix())
}

/// As [`signal_child`], to a child of another.
fn signal_child_of(parent: Pid, child: Pid, signal: Signal) -> io::Result<()> {
    let Some(pidfd) = pin_child(parent, child)? else { return Ok(()) };
    match pidfd_send_signal(pidfd, signal.to_rustix()) {
        Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Everything below a process, pinned: as much as there is at one moment.
///
/// # Errors
/// When `/proc` can't be read.
pub fn pin_below(parent: Pid) -> io::Result<Vec<OwnedFd>> {
    let mut pinned = Vec::new();
    for child in children(parent)? {
        pinned.extend(pin_child(parent, child)?);
        pinned.extend(pin_below(child)?);
    }
    Ok(pinned)
}

/// The child of another may be gone, and its number taken: pinned first, it is then seen to be the child. `None` where it is
/// not.
fn pin_child(parent: Pid, child: Pid) -> io::Result<Option<OwnedFd>> {
    let Some(pidfd) = pin(child) else { return Ok(None) };
    let stat = read(&format!("/proc/{child}/stat"))?.unwrap_or_default();
    let is_child = field(&stat, PPID).and_then(|ppid| ppid.parse().ok()) == Some(parent.as_raw());
    Ok(Some(pidfd).filter(|_| is_child))
}

/// Pins the process that has this number and was born between two times, in microseconds since the host's boot: no other
/// can have had it then. `None` when that one is gone, or has exited.
///
/// # Errors
/// When `/proc` can't be read.
pub fn pin_born_between(process: Pid, after_usec: u64, before_usec: u64) -> io::Result<Option<OwnedFd>> {
    let Some(pidfd) = pin(process) else { return Ok(None) };
    let ticks_per_sec =
        sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
    let stat = read(&format!("/proc/{process}/stat"))?.unwrap_or_default();
    let is_it = was_born_between(&stat, 1_000_000 / ticks_per_sec.max(1), after_usec, before_usec);
    Ok(Some(pidfd).filter(|_| is_it && !has_exited(process).unwrap_or(false)))
}

/// `stat` counts in ticks, rounded down.
fn was_born_between(stat: &str, tick_usec: u64, after_usec: u64, before_usec: u64) -> bool {
    let born = field(stat, START_TIME).and_then(|ticks| ticks.parse::<u64>().ok());
    born.map(|ticks| ticks.saturating_mul(tick_usec))
        .is_some_and(|born| born.saturating_add(tick_usec) > after_usec && born <= before_usec)
}

fn pin(process: Pid) -> Option<OwnedFd> {
    pidfd_open(rustix::process::Pid::from_raw(process.as_raw())?, PidfdFlags::empty()).ok()
}

/// The numbers of a process's threads; none when it is gone.
fn threads(process: Pid) -> io::Result<Vec<Pid>> {
    // This one, and most others of a shim's, have one.
    if process == Pid::this() {
        return Ok(vec![process]);
    }
    let entries = match fs::read_dir(format!("/proc/{process}/task")) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(numbers.map(Pid::from_raw).collect())
}

fn is_dead(stat: &str) -> io::Result<bool> {
    Ok(read(stat)?.is_none_or(|stat| field(&stat, STATE).is_none_or(|state| state == "Z" || state == "X")))
}

/// Whose tracing holds it, in words.
fn tracers(process: Pid) -> String {
    let threads = threads(process).unwrap_or_default();
    let tracer = threads.into_iter().find_map(|thread| {
        let status = read(&format!("/proc/{process}/task/{thread}/status")).ok()??;
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim().to_owned();
        Some(tracer).filter(|tracer| tracer != "0")
    });
    tracer.map_or_else(|| "a process".to_owned(), |tracer| format!("process {tracer}"))
}

fn may_inspect(process: Pid) -> bool {
    File::open(format!("/proc/{process}/io")).and_then(|mut io| io.read(&mut [0])).is_ok()
}

/// Fields of proc_pid_stat(5), counted from behind the command's name, which may hold anything: 3 is 0.
const STATE: usize = 0;
const PPID: usize = 1;
const START_TIME: usize = 19;
const EXIT_CODE: usize = 49;

fn field(stat: &str, number: usize) -> Option<&str> {
    stat.rsplit_once(") ")?.1.split_ascii_whitespace().nth(number)
}

fn exit_code(stat: &str) -> Option<i32> {
    field(stat, EXIT_CODE)?.parse().ok()
}

/// As waitpid(2) has it.
fn ended(status: i32) -> Ended {
    match status & 0x7f {
        0 => Ended::Exited((status >> 8) & 0xff),
        signal => Ended::Signaled(signal),
    }
}

/// A file of `/proc`; `None` when the process is gone.
fn read(path: &str) -> io::Result<Option<String>> {
    match fs::read(path) {
        // A process calls itself what it likes.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// ESRCH: it was reaped between the opening and the reading.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;
    use crate::shim::clock;

    #[test]
    fn an_exit_code_is_read_as_waitpid_has_it() {
        assert_eq!(ended(0), Ended::Exited(0));
        assert_eq!(ended(137 << 8), Ended::Exited(137));
        assert_eq!(ended(9), Ended::Signaled(9));
        assert_eq!(ended(11 | 0x80), Ended::Signaled(11), "with a core");
        let stat = format!("77 (a) b) c) Z 1 {}1280\n", "0 ".repeat(47));
        assert_eq!(
            (field(&stat, STATE), field(&stat, PPID), exit_code(&stat)),
            (Some("Z"), Some("1"), Some(1280))
        );
    }

    /// A zombie that nobody has reaped looks as one that a tracer holds.
    #[test]
    fn the_end_of_a_process_that_is_not_reaped_can_be_read() {
        for (script, expected) in [
            ("exit 0", Ended::Exited(0)),
            ("exit 5", Ended::Exited(5)),
            ("kill -KILL $$", Ended::Signaled(9)),
            ("kill -TERM $$", Ended::Signaled(15)),
        ] {
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = Pid::from_raw(child.id().cast_signed());
            let id = WaitId::Pid(rustix::process::Pid::from_raw(pid.as_raw()).unwrap());
            waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
            assert!(has_exited(pid).unwrap());
            assert_eq!(end_of_held(pid), MainEnd::Known(expected), "{script}");
            child.wait().unwrap();
            assert!(has_exited(pid).unwrap(), "gone is exited, too");
        }
    }

    #[test]
    fn a_process_is_known_by_its_number_and_birth() {
        let stat = format!("77 (x) S 1 {}500 0 0", "0 ".repeat(17));
        let born = |after, before| was_born_between(&stat, 10_000, after, before);
        assert!(born(5_000_000, 5_000_001) && born(5_009_999, 5_010_000) && born(4_990_000, 6_000_000));
        assert!(!born(5_010_000, 6_000_000) && !born(0, 4_999_999));
        assert!(!was_born_between("", 10_000, 0, u64::MAX));

        let before = clock::boot_usec();
        let mut child = Command::new("sleep").arg("1060").spawn().unwrap();
        let (pid, after) = (Pid::from_raw(child.id().cast_signed()), clock::boot_usec());
        assert!(pin_born_between(pid, before, after).unwrap().is_some());
        assert!(pin_born_between(pid, 0, before.saturating_sub(20_000)).unwrap().is_none());
        assert!(pin_born_between(pid, after + 20_000, u64::MAX).unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pin_born_between(pid, before, after).unwrap().is_none());
    }

    #[test]
    fn one_that_lives_has_not_exited() {
        assert!(!has_exited(Pid::this()).unwrap());
    }
}
