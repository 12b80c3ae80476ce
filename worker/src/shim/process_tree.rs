//! Processes below the shim, as `/proc` shows them: whose children they are, whether they live, how one ended.

use std::fs::{self, File};
use std::io::{self, Read};

use jobworker_limits::SignalNumber as Signal;
use nix::errno::Errno;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, kill_process, pidfd_open, pidfd_send_signal};

use crate::job::Ended;
use crate::job::verdict::MainEnd;

/// The children of a process, of all its threads (proc_pid_task(5), `children`). Those of this process are complete: only
/// reaping takes one away. Of another's one may be missing while others exit.
///
/// # Errors
/// When `/proc` can't be read.
pub(super) fn children(parent: Pid) -> io::Result<Vec<Pid>> {
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

/// As [`signal_child`], to a child of another. It may be gone, and its number taken: pinned first, it is then seen to be the child.
fn signal_child_of(parent: Pid, child: Pid, signal: Signal) -> io::Result<()> {
    let Some(pid) = rustix::process::Pid::from_raw(child.as_raw()) else { return Ok(()) };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    let stat = read(&format!("/proc/{child}/stat"))?.unwrap_or_default();
    if field(&stat, PPID).and_then(|ppid| ppid.parse().ok()) != Some(parent.as_raw()) {
        return Ok(());
    }
    match pidfd_send_signal(pidfd, signal.to_rustix()) {
        Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
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
    fn one_that_lives_has_not_exited() {
        assert!(!has_exited(Pid::this()).unwrap());
    }
}
