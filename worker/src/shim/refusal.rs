//! What went wrong before a job's birth, in words for the caller of `Start`: the field, the value, what would be right.

use std::io;
use std::path::Path;

use jobworker_limits::GroupError;
use nix::errno::Errno;

use super::as_user::as_user;
use super::birth::{BirthError, Image, Step};
use super::environment;
use crate::job::{ByteStr, Spec};
use crate::spawner::protocol::{Refusal, RefusalKind, StartReply};
use crate::spawner::users::OsUser;

pub(super) fn group_refusal(error: &GroupError) -> Refusal {
    let (kind, field) = match error {
        GroupError::ControllerMissing { .. } => (RefusalKind::ControllerMissing, Some("spec.limits")),
        GroupError::Disk(_) | GroupError::SameDisk { .. } | GroupError::IoRefused { .. } => {
            (RefusalKind::InvalidField, Some("spec.limits.io"))
        }
        GroupError::NoSwapAccounting { .. } => (RefusalKind::InvalidField, Some("spec.limits.swap")),
        _ => (RefusalKind::Host, None),
    };
    let words = chain(error);
    let message = field.map(|field| format!("{field}: {words}")).unwrap_or(words);
    Refusal { kind, field: field.map(str::to_owned), message }
}

pub(super) fn birth_refusal(error: &BirthError, spec: &Spec, user: &OsUser, image: &Image) -> StartReply {
    let request = &spec.request;
    let BirthError { step, errno } = error;
    let command = &request.command;
    let not_executable = |why: &str| {
        let message = format!("spec.command: can't execute {command:?} as {}: {why}", user.name);
        refused(RefusalKind::CommandNotExecutable, "spec.command", message)
    };
    match (step, errno) {
        // As the user, though the child was that, too: the name may be another file's by now.
        (Step::Exec, Errno::ENOENT)
            if as_user(user, || environment::exists(command, &request.workdir)).unwrap_or(false) =>
        {
            not_executable("it is there, but the interpreter that it names is not (ENOENT)")
        }
        (Step::Exec, Errno::ENOENT | Errno::ENOTDIR) => {
            let tried =
                image.programs.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(", ");
            let hint = line_for_a_shell(command).unwrap_or_default();
            let message =
                format!("spec.command: {command:?} not found: no such file (ENOENT): {tried}{hint}");
            refused(RefusalKind::CommandNotFound, "spec.command", message)
        }
        (Step::Exec, Errno::E2BIG) => {
            let message =
                format!("spec.args: the kernel refuses arguments and environment of this size: {errno}");
            refused(RefusalKind::InvalidField, "spec.args", message)
        }
        (Step::Exec, errno) => not_executable(&errno.to_string()),
        (Step::Workdir, errno) => {
            let workdir = &request.workdir;
            let message = format!("spec.workdir: {} can't enter {workdir:?}: {errno}", user.name);
            refused(RefusalKind::InvalidField, "spec.workdir", message)
        }
        (Step::User, errno) => {
            let message = format!("spec.user: can't become {}: {errno}", user.name);
            refused(RefusalKind::Host, "spec.user", message)
        }
        (Step::Clone | Step::Setup, errno) => host_failed(
            "start a process in the job's group (clone3 with CLONE_INTO_CGROUP and close_range need Linux 5.11)",
            &(*errno).into(),
        ),
    }
}

/// Of a command that looks like a whole line: no shell takes it apart.
fn line_for_a_shell(command: &ByteStr) -> Option<String> {
    let line = command.to_string();
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let [program, arguments @ ..] = &words[..] else { return None };
    if arguments.is_empty() {
        return None;
    }
    let quoted = line.replace('\'', r"'\''");
    let words = arguments.iter().fold(format!("{program:?}"), |words, word| format!("{words} {word:?}"));
    Some(format!(
        "; arguments are separate words, as in {words}, or a shell takes the line apart: sh -c '{quoted}'"
    ))
}

pub(super) fn refused(kind: RefusalKind, field: &str, message: String) -> StartReply {
    StartReply::Refused(Refusal { kind, field: Some(field.to_owned()), message })
}

pub(super) fn host_failed(operation: &str, error: &io::Error) -> StartReply {
    let message = format!("can't {operation}: {error}");
    StartReply::Refused(Refusal { kind: RefusalKind::Host, field: None, message })
}

/// What could not be done in a job's folder: the folder is named, and what its disk said.
pub(super) fn disk_failed(operation: &str, folder: &Path, error: &io::Error) -> StartReply {
    let kind = match error.raw_os_error().map(Errno::from_raw) {
        Some(
            Errno::EROFS | Errno::EIO | Errno::ESHUTDOWN | Errno::EUCLEAN | Errno::ENODEV | Errno::ENXIO,
        ) => RefusalKind::DiskUnusable,
        _ => RefusalKind::Host,
    };
    let message = format!("can't {operation} in the state folder ({}): {error}", folder.display());
    StartReply::Refused(Refusal { kind, field: None, message })
}

/// An error with its causes, for the far end of a socket.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    let mut text = error.to_string();
    for cause in causes {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
