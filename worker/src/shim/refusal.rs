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
    // Whatever the kernel wanted memory for was in the job's group.
    if let (Errno::ENOMEM, Some(limit)) = (errno, request.limits.memory) {
        let message = format!(
            "spec.limits.memory: {} bytes are too few to start {command:?} in: {errno}; a program takes some hundred KiB \
             or more",
            limit.bytes()
        );
        return refused(RefusalKind::InvalidField, "spec.limits.memory", message);
    }
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
            let message = format!(
                "spec.args: the kernel refuses arguments and environment of this size, more than a quarter of the \
                 job's soft RLIMIT_STACK, or one of more than 128 KiB: {errno}"
            );
            refused(RefusalKind::InvalidField, "spec.args", message)
        }
        (Step::Exec, Errno::EAGAIN) => not_executable(&format!(
            "the user has as many processes as RLIMIT_NPROC allows (the spawner's --default-rlimit): {errno}"
        )),
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
        (Step::Setting(_), Errno::EDQUOT) => {
            let message = format!(
                "can't {} for {}: {errno}; raise kernel.keys.maxkeys and maxbytes, or root_maxkeys and root_maxbytes",
                step.call(image),
                user.name
            );
            StartReply::Refused(Refusal { kind: RefusalKind::Host, field: None, message })
        }
        _ => {
            let message = format!("can't start the job's process, to {}: {errno}", step.call(image));
            StartReply::Refused(Refusal { kind: RefusalKind::Host, field: None, message })
        }
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

#[cfg(test)]
mod tests {
    use jobworker_limits::Limits;

    use super::*;
    use crate::job::{JobId, fake};
    use crate::shim::attributes::Setting;

    fn message(step: Step, errno: Errno, limits: Limits) -> Refusal {
        let mut spec = fake::spec(JobId::random(), "alice");
        spec.request.limits = limits;
        let user = OsUser { name: "alice".to_owned(), home: "/".into(), credentials: None };
        let mut image = environment::image(&spec.request, &user, Vec::new(), true);
        image.settings = vec![Setting::IoPriority, Setting::Keyring];
        match birth_refusal(&BirthError { step, errno }, &spec, &user, &image) {
            StartReply::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_job_without_enough_memory_is_told_of_its_own_limit() {
        let limits = Limits { memory: "4KiB".parse().ok(), ..Limits::default() };
        for step in [Step::Exec, Step::Setting(0), Step::Clone] {
            let refusal = message(step, Errno::ENOMEM, limits.clone());
            assert_eq!(refusal.field.as_deref(), Some("spec.limits.memory"));
            assert!(refusal.message.contains("4096 bytes are too few") && refusal.message.contains("ENOMEM"));
        }
        let refusal = message(Step::Exec, Errno::ENOMEM, Limits::default());
        assert_eq!(refusal.field.as_deref(), Some("spec.command"), "the host's memory, not the job's");
    }

    #[test]
    fn what_failed_before_the_command_is_named_with_its_errno() {
        for (step, part) in [
            (Step::Clone, "(clone3 with CLONE_INTO_CGROUP): EPERM"),
            (Step::Session, "(setsid): EPERM"),
            (Step::Descriptors, "(close_range with CLOSE_RANGE_CLOEXEC): EPERM"),
            (Step::Setting(1), "to give it a session keyring of its own: EPERM"),
        ] {
            let refusal = message(step, Errno::EPERM, Limits::default());
            assert_eq!((refusal.kind, refusal.field), (RefusalKind::Host, None));
            assert!(refusal.message.contains(part), "{}", refusal.message);
        }
        let refusal = message(Step::Setting(1), Errno::EDQUOT, Limits::default());
        assert!(refusal.message.contains("kernel.keys.maxkeys"), "{}", refusal.message);
    }
}
