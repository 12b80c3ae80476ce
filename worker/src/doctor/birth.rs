//! A process born in a group under limits, as a job's is, and killed there.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jobworker_limits::{Base, Group, Limits};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe};

use super::Subject;
use super::finding::Finding;
use super::scratch::Scratch;
use crate::config::Spawner;
use crate::shim::birth::{Credentials, Image, Stdio, birth};
use crate::spawner::users::AllowedUsers;

const SUBJECT: &str = "birth";
/// How long a killed process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tries it, and tells.
pub(super) fn attempt(base: &Base, subject: &Subject) -> Finding {
    match live_and_die(base, credentials(subject)) {
        Ok(()) => Finding::ok(
            SUBJECT,
            "a process was born in a group (CLONE_INTO_CGROUP) and killed by cgroup.kill",
        ),
        Err(error) => Finding::fail(
            SUBJECT,
            format!("{error:#}"),
            "boot Linux 5.14 or newer; in a container, allow clone3 and close_range (seccomp) and give it /bin/sh",
        ),
    }
}

/// The default user's, where that is for us to say; the check of users tells if there is none.
fn credentials(subject: &Subject) -> Option<Credentials> {
    let Spawner::Own(settings) = &subject.config.spawner else { return None };
    let users = AllowedUsers::new(settings.default_user.clone(), Vec::new()).ok()?;
    users.resolve(None).ok()?.credentials
}

fn live_and_die(base: &Base, user: Option<Credentials>) -> anyhow::Result<()> {
    let scratch = Scratch::create(base, &Limits::default(), Path::new("/"))?;
    let (input, held) = pipe().context("can't make a pipe")?;
    let null = File::options().write(true).open("/dev/null").context("can't open /dev/null")?;
    let image = Image {
        programs: vec![c"/bin/sh".to_owned()],
        argv: vec![c"sh".to_owned(), c"-c".to_owned(), c"read line".to_owned()],
        env: Vec::new(),
        workdir: c"/".to_owned(),
        settings: Vec::new(),
        user,
        // Nobody would end it if this process were killed now.
        die_with_parent: true,
    };
    let stdio = Stdio { stdin: input.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
    let born = birth(&image, Some(scratch.group().dir()), &stdio);
    let main = born.map_err(|error| anyhow::anyhow!("can't {}: {}", error.step.call(&image), error.errno))?;
    let checked = check(scratch.group(), main);
    // Also where something is wrong: it has nothing to read any more, and ends.
    drop(held);
    let ended = waitpid(main, None).context("can't reap a process")?;
    checked?;
    ensure!(
        matches!(ended, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
        "it was killed, and ended so: {ended:?}"
    );
    scratch.remove().context("can't remove the group afterwards")
}

fn check(group: &Group, main: Pid) -> anyhow::Result<()> {
    let members = group.procs()?;
    ensure!(members == [main.as_raw()], "pid {main} was born, and in the group are {members:?}");
    let path = format!("/proc/{main}/cgroup");
    let own = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    let name = group.path().file_name().context("a group has a name")?.to_string_lossy();
    if !own.lines().any(|line| line.starts_with("0::") && line.ends_with(&format!("/{name}"))) {
        bail!("{path} does not tell of the group {name}: {own:?}");
    }
    group.kill()?;
    ensure!(group.wait_empty(PATIENCE)?, "a process outlived cgroup.kill by {} s", PATIENCE.as_secs());
    Ok(())
}
