//! The spawner that runs under a configuration, where one does: asked as a worker asks it, and left as it is.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Uid;

use super::Subject;
use super::finding::Finding;
use crate::config::{Config, Spawner};
use crate::job::spec::FORMAT_VERSION;
use crate::spawner::protocol::{Attached, MAX_LINE_BYTES, Request};

const SUBJECT: &str = "spawner";
/// How long it may take to answer. It never waits for a job.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is behind the spawner's socket.
pub(super) enum Neighbour {
    /// One that answers.
    Runs {
        /// What it says of the host.
        attached: Attached,
        /// Held for as long as anything is tried in its subtree: a worker's own spawner must not end meanwhile.
        connection: UnixStream,
    },
    /// Nobody.
    Absent,
    /// One that does not answer us.
    Silent(io::Error),
}

impl Neighbour {
    pub(super) fn find(config: &Config) -> Self {
        match UnixStream::connect(socket(config)) {
            Ok(connection) => match ask(&connection) {
                Ok(attached) => Self::Runs { attached, connection },
                Err(error) => Self::Silent(error),
            },
            // A socket file without a listener is left by one that was killed.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
                ) =>
            {
                Self::Absent
            }
            Err(error) => Self::Silent(error),
        }
    }
}

impl Neighbour {
    /// The user that it runs as, where it runs.
    pub(super) fn uid(&self) -> Option<Uid> {
        let Self::Runs { connection, .. } = self else { return None };
        getsockopt(connection, PeerCredentials).ok().map(|peer| Uid::from_raw(peer.uid()))
    }
}

fn socket(config: &Config) -> &Path {
    match &config.spawner {
        Spawner::Running(socket) => socket,
        Spawner::Own(settings) => &settings.socket,
    }
}

fn ask(mut connection: &UnixStream) -> io::Result<Attached> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&Request::Attach)?;
    line.push(b'\n');
    connection.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(connection.take(MAX_LINE_BYTES as u64)).read_line(&mut answer)?;
    if answer.is_empty() {
        let reason = "it closed the connection: it admits root, its own user and that of --worker-user";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    Ok(serde_json::from_str(&answer)?)
}

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let path = socket(&subject.config);
    let is_own = matches!(subject.config.spawner, Spawner::Own(_));
    vec![match &subject.spawner {
        Neighbour::Runs { attached, .. } => judge(path, attached),
        Neighbour::Absent if is_own => Finding::ok(SUBJECT, "none runs: the worker starts one itself"),
        Neighbour::Absent => Finding::fail(
            SUBJECT,
            format!("nobody listens on {}", path.display()),
            "start it (systemctl start jobworker-spawner, or jobworker spawner --socket …), or leave --spawner-socket \
             out: the worker starts one itself then",
        ),
        Neighbour::Silent(error) => {
            let text = format!("the one on {} does not answer us: {error}", path.display());
            Finding::fail(
                SUBJECT,
                text,
                format!("run this as root or as the worker's user: {}", behind("sudo")),
            )
        }
    }]
}

fn judge(path: &Path, attached: &Attached) -> Finding {
    let Attached { version, format, base, .. } = attached;
    let group = base.as_ref().map_or_else(|| "no subtree".to_owned(), |base| base.display().to_string());
    let text = format!("{version} listens on {}, jobs' groups: {group}", path.display());
    if *format < FORMAT_VERSION || version != env!("CARGO_PKG_VERSION") {
        let remedy = "systemctl restart jobworker-spawner; running jobs go on under their shims";
        return Finding::warn(SUBJECT, format!("{text}; it is of another build than this"), remedy);
    }
    Finding::ok(SUBJECT, text)
}

/// This very command, behind another that gives it what it lacks.
pub(super) fn behind(prefix: &str) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("jobworker"));
    let args: Vec<_> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    format!("{prefix} {} {}", program.display(), args.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    fn attached(version: &str, format: u32) -> Attached {
        let base = Some("/sys/fs/cgroup/x".into());
        Attached { version: version.to_owned(), format, base, unavailable: Default::default() }
    }

    #[test]
    fn an_older_builds_spawner_is_told() {
        let now = env!("CARGO_PKG_VERSION");
        let judge = |attached| judge(Path::new("/run/s.sock"), &attached);
        assert_eq!(judge(attached(now, FORMAT_VERSION)).level, Level::Ok);
        for old in [attached(now, FORMAT_VERSION - 1), attached("0.0.1", FORMAT_VERSION)] {
            let finding = judge(old);
            assert_eq!(finding.level, Level::Warn);
            assert!(finding.text.contains("/run/s.sock") && finding.text.contains("/sys/fs/cgroup/x"));
        }
    }
}
