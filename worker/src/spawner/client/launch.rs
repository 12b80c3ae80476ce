//! A spawner of the worker's own, where no service manager has started one.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use jobworker_limits::{Base, enter_leaf};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::{Settings, SpawnerError};
use crate::job::engine::blocking;
use crate::spawner::users::AllowedUsers;

/// The name of the group, below the subtree, that the worker goes into to make room for the jobs' groups.
const OWN_LEAF: &str = "worker";

/// This very program, though an upgrade may have put another in its place on the disk, or none (proc_pid_exe(5)).
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Starts this program as a spawner and returns when it listens. It is in a process group of its own, so that a
/// Ctrl-C for the worker is none for the jobs, and outlives the worker while a job runs.
pub(super) async fn launch(settings: &Settings) -> Result<(), SpawnerError> {
    // Said here as well: its own words are a line of the log further up.
    AllowedUsers::new(settings.default_user.clone(), settings.allow_users.clone())?;
    let cgroup = settings.cgroup.clone();
    blocking(move || make_room(cgroup.as_deref())).await;
    start(command(Path::new(OWN_PROGRAM), settings)).await
}

/// A group with controllers for jobs may hold no processes itself, and the spawner can't move the worker.
fn make_room(cgroup: Option<&Path>) {
    // Where there is no subtree, or it may not be changed, the spawner says so.
    let Ok(own) = Base::find(None) else { return };
    if cgroup.is_none_or(|cgroup| cgroup == own)
        && let Err(error) = enter_leaf(&own, OWN_LEAF)
    {
        tracing::debug!(%error, "the worker stays in its group");
    }
}

async fn start(mut command: Command) -> Result<(), SpawnerError> {
    let program = PathBuf::from(command.as_std().get_program());
    let failed = |reason| SpawnerError::Launch { program: program.clone(), reason };
    let mut child = command.spawn().map_err(failed)?;
    if !is_ready(&mut child).await.map_err(failed)? {
        return Err(SpawnerError::Ended(child.wait().await.map_err(failed)?));
    }
    // Reaped when it ends; the attachment tells of it.
    tokio::spawn(async move { child.wait().await });
    Ok(())
}

fn command(program: &Path, settings: &Settings) -> Command {
    let Settings { state_dir, socket, cgroup, default_user, allow_users, defaults, log } = settings;
    let mut command = Command::new(program);
    command.arg0("jobworker").arg("spawner").arg("--exit-when-idle");
    command.arg("--state-dir").arg(state_dir).arg("--socket").arg(socket);
    if let Some(cgroup) = cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    if let Some(user) = default_user {
        command.arg("--default-user").arg(user);
    }
    for user in allow_users {
        command.arg("--allow-user").arg(user);
    }
    for rlimit in defaults.rlimits() {
        command.arg(format!("--default-rlimit={rlimit}"));
    }
    if let Some(badness) = defaults.oom_score_adj() {
        command.arg(format!("--default-oom-score-adj={badness}"));
    }
    command.args(log.to_args());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    command
}

/// Waits for the spawner's line, or for its end.
async fn is_ready(child: &mut Child) -> io::Result<bool> {
    let mut line = Vec::new();
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut stdout = stdout.take(b"ready\n".len() as u64);
    while stdout.read_buf(&mut line).await? > 0 {}
    Ok(line == b"ready\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::log;
    use crate::spawner::defaults::JobDefaults;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    #[tokio::test]
    async fn ready_is_when_it_says_so() {
        start(shell("echo ready")).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_ends_instead_tells_its_status() {
        let error = start(shell("exit 3")).await.unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        assert!(matches!(start(shell("echo read")).await, Err(SpawnerError::Ended(_))));
    }

    #[tokio::test]
    async fn a_program_that_can_not_be_executed_is_named() {
        let mut command = Command::new("/no/such/jobworker");
        command.stdout(Stdio::piped());
        let error = start(command).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/jobworker"), "{error}");
    }

    #[test]
    fn settings_become_arguments() {
        let settings = Settings {
            state_dir: "/var/lib/jobworker".into(),
            socket: "/run/s.sock".into(),
            cgroup: Some("/sys/fs/cgroup/x".into()),
            default_user: Some("nobody".to_owned()),
            allow_users: vec!["alice".to_owned(), "bob".to_owned()],
            defaults: JobDefaults::new(vec!["CORE=0".parse().unwrap()], "-5".parse().ok()).unwrap(),
            log: log::Settings::default(),
        };
        let command = command(Path::new("/bin/jobworker"), &settings);
        let arguments: Vec<_> =
            command.as_std().get_args().map(|argument| argument.to_str().unwrap()).collect();
        assert_eq!(
            arguments.join(" "),
            "spawner --exit-when-idle --state-dir /var/lib/jobworker --socket /run/s.sock --cgroup /sys/fs/cgroup/x \
             --default-user nobody --allow-user alice --allow-user bob --default-rlimit=CORE=0:0 \
             --default-oom-score-adj=-5 --log-format=text --log-level=info"
        );
    }
}
