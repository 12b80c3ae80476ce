//! The worker under fire: killed, restarted, moved, always on the same port, state folder and subtree.

use std::fs::{self, File, OpenOptions};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::Options;
use super::clock::Clock;
use super::disk::{Disk, Moments};
use crate::binaries::binary;
use crate::pki::Pki;
use crate::worker::clean;
use crate::{Subtree, census, scratch};

/// How long a worker may take to listen, and to end. Emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// jobworker, as it is given to be copied.
const PRISTINE: &str = "jobworker";
/// An older build of it, to begin with.
const OLDER: &str = "jobworker-older";
/// The worker's state folder.
const STATE: &str = "state";
/// What the jobs execute.
const ACTOR: &str = "actor";

/// Where the jobs' groups go.
enum Groups {
    /// A subtree with controllers; removes itself.
    Delegated(Subtree),
    /// Without; none where not even that can be made.
    Scratch(Option<PathBuf>),
}

pub(super) struct Victim {
    /// Unmounted before the root is removed.
    disk: Option<Disk>,
    clock: Option<Clock>,
    root: TempDir,
    pki: Arc<Pki>,
    groups: Groups,
    address: SocketAddr,
    binary: PathBuf,
    build: Build,
    copies: u32,
    process: Child,
}

/// Which build the worker is started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    /// The older one, from the beginning on.
    Older,
    /// The present one is to be next: its program is in place.
    Switching,
    /// The present one.
    Present,
}

impl Victim {
    pub(super) fn start(options: &Options) -> anyhow::Result<Self> {
        let root = tempfile::Builder::new().prefix("jwfaults").tempdir()?;
        fs::create_dir(root.path().join("ledgers"))?;
        // Copies, so that a build meanwhile changes nothing here.
        fs::copy(binary("jobworker"), root.path().join(PRISTINE)).context("copy jobworker")?;
        fs::copy(std::env::current_exe()?, root.path().join(ACTOR)).context("copy this program")?;
        let mut build = Build::Present;
        if let Some(older) = &options.older {
            fs::copy(older, root.path().join(OLDER)).with_context(|| format!("copy {}", older.display()))?;
            build = Build::Older;
        }
        let disk =
            options.disk.as_ref().map(|disk| Disk::mount(disk, &root.path().join(STATE))).transpose()?;
        let groups = if options.controllers {
            Groups::Delegated(Subtree::new())
        } else {
            Groups::Scratch(scratch::group_for(root.path()))
        };
        let clock = options.clock.then(Clock::read);
        let pki = match &clock {
            Some(clock) => clock.in_the_past(Pki::new)?,
            None => Pki::new(),
        };
        let pki = Arc::new(pki);
        // Free a moment ago, and nobody here takes ports but us.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let copy = copy_program(root.path(), build, 0)?;
        let process = spawn(root.path(), &copy, address, &pki, groups.path().as_deref())?;
        let mut victim =
            Self { disk, clock, root, pki, groups, address, binary: copy, build, copies: 1, process };
        victim.wait_until_it_listens()?;
        Ok(victim)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn pki(&self) -> Arc<Pki> {
        Arc::clone(&self.pki)
    }

    pub(super) fn ledgers(&self) -> PathBuf {
        self.root.path().join("ledgers")
    }

    /// The program of the jobs.
    pub(super) fn actor(&self) -> PathBuf {
        self.root.path().join(ACTOR)
    }

    pub(super) fn jobs_dir(&self) -> PathBuf {
        self.state().join("jobs")
    }

    fn state(&self) -> PathBuf {
        self.root.path().join(STATE)
    }

    pub(super) fn disk_full(&self) -> Moments {
        self.disk.as_ref().map(Disk::moments).unwrap_or_default()
    }

    /// False when it is full already.
    pub(super) fn fill_disk(&mut self, moment: Duration) -> anyhow::Result<bool> {
        self.disk.as_mut().map_or(Ok(false), |disk| disk.fill(moment))
    }

    pub(super) fn wait_until_disk_is_free(&mut self) -> anyhow::Result<()> {
        self.disk.as_mut().map_or(Ok(()), Disk::wait_until_free)
    }

    pub(super) fn jump_clock(&self, chance: u64) -> anyhow::Result<()> {
        self.clock.as_ref().map_or(Ok(()), |clock| clock.jump(chance))
    }

    /// The program of the older build, while it runs; asked for at the beginning.
    pub(super) fn older(&self) -> Option<File> {
        File::open(&self.binary).ok().filter(|_| self.is_older())
    }

    pub(super) fn is_older(&self) -> bool {
        self.build == Build::Older
    }

    /// Whether the next worker is the first of the present build.
    pub(super) fn is_about_to_switch(&self) -> bool {
        self.build == Build::Switching
    }

    /// What programs are replaced by: the present build.
    fn next_build(&mut self) -> Build {
        if self.is_older() {
            self.build = Build::Switching;
        }
        self.build
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whoever listens on the spawner's socket.
    pub(super) fn spawner_pid(&self) -> Option<u32> {
        let connection = UnixStream::connect(self.state().join("spawner.sock")).ok()?;
        u32::try_from(getsockopt(&connection, PeerCredentials).ok()?.pid()).ok()
    }

    /// Every process of the worker, its spawners, shims and jobs.
    pub(super) fn processes(&self) -> Vec<u32> {
        census::processes_with(self.root.path().to_str().expect("a UTF-8 path"))
    }

    /// The jobs' groups that are there.
    pub(super) fn job_groups(&self) -> usize {
        self.groups.path().map_or(0, |base| census::folders(&base.join("jobs")).len())
    }

    /// A new worker, which may not listen yet.
    pub(super) fn spawn(&mut self) -> anyhow::Result<()> {
        if self.build == Build::Switching {
            self.build = Build::Present;
        }
        let base = self.groups.path();
        self.process = spawn(self.root.path(), &self.binary, self.address, &self.pki, base.as_deref())?;
        Ok(())
    }

    pub(super) fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("the worker ended ({status}); its log: {}", self.log_tail());
            }
            if started.elapsed() > PATIENCE {
                bail!("the worker does not listen after {PATIENCE:?}; its log: {}", self.log_tail());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().context("kill the worker")?;
        self.process.wait().context("reap the worker")?;
        Ok(())
    }

    /// SIGTERM, and the end. False when it did not come, and the worker had to be killed.
    pub(super) fn terminate(&mut self) -> anyhow::Result<bool> {
        kill(pid(self.pid()), Signal::SIGTERM).context("ask the worker to end")?;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if self.process.try_wait()?.is_some() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.kill()?;
        Ok(false)
    }

    /// A copy of the program in a place of its own; the old one's place is gone.
    pub(super) fn move_program(&mut self) -> anyhow::Result<()> {
        let build = self.next_build();
        let copy = copy_program(self.root.path(), build, self.copies)?;
        self.copies += 1;
        fs::remove_file(&self.binary).context("remove the old program")?;
        self.binary = copy;
        Ok(())
    }

    /// A copy of the program in the place of the one that runs, as an upgrade puts it there.
    pub(super) fn replace_program(&mut self) -> anyhow::Result<()> {
        let build = self.next_build();
        let copy = copy_program(self.root.path(), build, self.copies)?;
        self.copies += 1;
        fs::rename(&copy, &self.binary).context("replace the program")
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.root.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> =
            log.lines().rev().filter(|line| !line.contains(r#""controller""#)).take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Removes what it stood on; what is to be looked at stays, and is named.
    pub(super) fn bury(mut self, keep: bool) -> Option<PathBuf> {
        // What stands on a disk of its own stays there in any case.
        self.disk = None;
        if let Groups::Scratch(Some(group)) = &self.groups {
            for inner in ["jobs", "shims", "worker"] {
                let _ = fs::remove_dir(group.join(inner));
            }
            scratch::remove(group);
        }
        keep.then(|| self.root.keep())
    }
}

impl Groups {
    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Delegated(subtree) => Some(subtree.path()),
            Self::Scratch(path) => path.clone(),
        }
    }
}

fn copy_program(root: &Path, build: Build, number: u32) -> anyhow::Result<PathBuf> {
    let pristine = if build == Build::Older { OLDER } else { PRISTINE };
    let folder = root.join(format!("bin{number}"));
    fs::create_dir(&folder)?;
    let copy = folder.join("jobworker");
    fs::copy(root.join(pristine), &copy).context("copy the program")?;
    Ok(copy)
}

fn spawn(
    root: &Path,
    program: &Path,
    address: SocketAddr,
    pki: &Pki,
    cgroup: Option<&Path>,
) -> anyhow::Result<Child> {
    let log: File = OpenOptions::new().create(true).append(true).open(root.join("log"))?;
    let mut command = Command::new(program);
    clean(&mut command);
    command.args(["serve", "--log-format", "json", "--listen"]).arg(address.to_string());
    command.arg("--state-dir").arg(root.join(STATE)).arg("--ca").arg(pki.ca()).arg("--crl").arg(pki.crl());
    command.arg("--cert").arg(pki.server().cert).arg("--key").arg(pki.server().key);
    command.args(["--max-followers", "100000"]);
    if nix::unistd::geteuid().is_root() {
        command.args(["--default-user", "root"]);
    }
    if let Some(cgroup) = cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().with_context(|| format!("execute {}", program.display()))
}

pub(super) fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).expect("a pid"))
}
