//! The spawner: a small single-threaded process that forks a shim for each job.
//!
//! The only privileged process where jobs run as other users. It lives in the delegated subtree, listens on a unix
//! socket of mode 0600 for the worker, and decides as whom jobs may run. It does not interpret jobs: the shim does.
//! Restarting the worker does not touch it, and a new spawner finds what an old one left ([`recover`]).

mod children;
pub mod client;
pub mod defaults;
mod fork;
pub mod handover;
pub mod host;
mod lock;
mod pending;
pub mod protocol;
mod quota;
pub mod recover;
mod remove;
mod server;
pub mod users;

use std::ffi::CStr;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use nix::sys::prctl::set_name;
use nix::unistd::ForkResult;

use self::defaults::{DefaultRlimit, JobDefaults, OomScoreAdj};
use self::host::Host;
use self::server::{Fate, Server};
use crate::shim::attributes::Attributes;
use crate::shim::inherited;
use crate::{notify, shim};

/// `jobworker spawner`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Folder of the jobs' folders.
    #[arg(long, value_name = "DIR", env = "JOBWORKER_STATE_DIR", default_value = "/var/lib/jobworker")]
    pub state_dir: PathBuf,
    /// Unix socket to listen on for the worker [default: spawner.sock in the state folder].
    #[arg(long, value_name = "PATH", env = "JOBWORKER_SPAWNER_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Delegated cgroup v2 subtree for the jobs' groups [default: the group that the spawner is started in].
    #[arg(long, value_name = "PATH", env = "JOBWORKER_CGROUP")]
    pub cgroup: Option<PathBuf>,
    /// OS user that the worker runs as: may connect, and reads the jobs' folders [default: the spawner's own].
    #[arg(long, value_name = "USER", env = "JOBWORKER_WORKER_USER")]
    pub worker_user: Option<String>,
    /// OS user of jobs that name none [default: the spawner's own; a spawner that is root has none].
    #[arg(long, value_name = "USER", env = "JOBWORKER_DEFAULT_USER")]
    pub default_user: Option<String>,
    /// Another OS user that jobs may run as; repeatable.
    #[arg(long, value_name = "USER", env = "JOBWORKER_ALLOW_USER", value_delimiter = ',')]
    pub allow_user: Vec<String>,
    /// Limit of setrlimit(2) that jobs begin with, in its units: NOFILE=1024:524288 (soft and hard), CORE=unlimited; repeatable
    /// [default: as README's table says].
    #[arg(long, value_name = "NAME=SOFT:HARD", env = "JOBWORKER_DEFAULT_RLIMIT", value_delimiter = ',')]
    pub default_rlimit: Vec<DefaultRlimit>,
    /// How soon the kernel's out-of-memory killer takes jobs' processes, from -1000 (never) to 1000; their users can't lower
    /// it [default: 0].
    #[arg(long, value_name = "N", env = "JOBWORKER_DEFAULT_OOM_SCORE_ADJ", allow_hyphen_values = true)]
    pub default_oom_score_adj: Option<OomScoreAdj>,
    /// End when no worker is attached and no job runs.
    #[arg(long)]
    pub exit_when_idle: bool,
}

impl Args {
    /// What jobs begin with. Says in the log what of it they don't get.
    ///
    /// # Errors
    /// When something was asked for that they can't be given.
    fn attributes(&self) -> anyhow::Result<Attributes> {
        let attributes =
            Attributes::new(&JobDefaults::new(self.default_rlimit.clone(), self.default_oom_score_adj)?)?;
        let lacking = attributes.try_out()?;
        if !lacking.is_empty() {
            tracing::info!("not allowed to give jobs {}: they get what comes next to it", lacking.join(", "));
        }
        Ok(attributes)
    }
}

/// Serves until SIGTERM or SIGINT; jobs go on under their shims then. Writes the line `ready` to stdout once a worker
/// can connect.
///
/// # Errors
/// When the socket, the state folder or the users are not to be had.
pub fn run(args: &Args) -> anyhow::Result<()> {
    call_oneself(c"jobworker-spawn");
    let socket = args.socket.clone().unwrap_or_else(|| args.state_dir.join("spawner.sock"));
    inherited::reset();
    let host = Host::prepare(args)?;
    host.describe();
    let mut server = Server::bind(&socket, &host, args.exit_when_idle)
        .with_context(|| format!("can't listen for the worker on {}", socket.display()))?;
    server.adopt(recover::scan(&host));
    tell_ready().context("can't say that the spawner is ready on stdout")?;
    notify::ready_unwatched();
    let leftovers = remove::leftovers(&host);
    if !leftovers.is_empty()
        && let Ok(ForkResult::Child) = fork::fork()
    {
        drop(server);
        call_oneself(c"jobworker-remov");
        remove::clear(&host, &leftovers);
        return Ok(());
    }
    match server.serve(&host)? {
        Fate::End => {
            notify::stopping();
            server.remove_socket();
            server.dismiss_spare();
            Ok(())
        }
        // In a child: what the spawner holds open must not live on in it.
        Fate::Spare { orders } => {
            drop(server);
            Ok(shim::spare::wait(&orders, &host)?)
        }
        Fate::Shim { connection, spec } => {
            drop(server);
            Ok(shim::run(connection, &spec, &host)?)
        }
        Fate::Recoverer { loss } => {
            drop(server);
            call_oneself(c"jobworker-recov");
            recover::recover(&host, *loss);
            Ok(())
        }
        Fate::Remover { mut connection, job } => {
            drop(server);
            call_oneself(c"jobworker-remov");
            shim::answer(&mut connection, &remove::remove(&host, job));
            Ok(())
        }
    }
}

/// What `ps -o comm` shows, of at most 15 bytes: the command line is the spawner's, in all that it forks.
pub(crate) fn call_oneself(name: &CStr) {
    // For people only.
    let _ = set_name(name);
}

fn tell_ready() -> io::Result<()> {
    let mut stdout = io::stdout();
    match stdout.write_all(b"ready\n").and_then(|()| stdout.flush()) {
        // Nobody listens: a service manager's closed stdout.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
