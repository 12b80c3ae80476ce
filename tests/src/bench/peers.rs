//! What people use instead. Each of them is set up for itself alone, and one that is not there is said to be missing.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::User;
use serde_json::json;
use tempfile::TempDir;

use super::floor::{Birthplace, Program};

/// Why there is no such peer here.
pub(super) type Missing = String;

/// Where programs are that only root calls.
const FOLDERS: [&str; 5] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// The path of an installed program.
fn installed(name: &str) -> Result<PathBuf, Missing> {
    let paths = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    let found = paths.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} is not installed"))
}

/// A program that has run once, so that it can.
fn that_runs(words: &[&str]) -> Result<Birthplace, Missing> {
    let path = installed(words[0])?;
    let output = Command::new(&path).args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{} can't be executed: {error}", words[0]))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
        return Err(format!("{} does not run here ({}): {said}", words[0], output.status));
    }
    let rest = words[1..].iter().map(OsStr::new);
    Ok(Birthplace::new(Program::new([path.as_os_str()].into_iter().chain(rest))))
}

/// Peers that need no server, by what is shown of them.
pub(super) fn programs(folder: &Path) -> Vec<(&'static str, Result<Birthplace, Missing>)> {
    let bwrap = ["bwrap", "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "/bin/true"];
    let systemd_run = ["systemd-run", "--quiet", "--wait", "--pipe", "-p", "MemoryMax=64M", "/bin/true"];
    vec![
        ("bwrap, own pid namespace", that_runs(&bwrap)),
        ("crun run, own namespaces", container("crun", folder)),
        ("runc run, own namespaces", container("runc", folder)),
        ("systemd-run --wait --pipe", that_runs(&systemd_run)),
        // It answers when the task is queued, not when it has run.
        ("pueue add", that_runs(&["pueue", "add", "--", "true"])),
    ]
}

/// `/bin/true` in a container whose root is the host's, read only.
fn container(runtime: &str, folder: &Path) -> Result<Birthplace, Missing> {
    installed(runtime)?;
    let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
    let config = json!({
        "ociVersion": "1.0.2",
        "root": { "path": "/", "readonly": true },
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "cwd": "/",
            "args": ["/bin/true"], "env": ["PATH=/usr/bin:/bin"],
        },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": namespaces },
    });
    let bundle = folder.join(runtime);
    let state = bundle.join("state");
    let written =
        fs::create_dir_all(&state).and_then(|()| fs::write(bundle.join("config.json"), config.to_string()));
    written.map_err(|error| format!("{}: {error}", bundle.display()))?;
    let (bundle, state) = (bundle.to_string_lossy().into_owned(), state.to_string_lossy().into_owned());
    let mut words = vec![runtime, "--root", &state];
    if runtime == "crun" {
        words.extend(["--cgroup-manager", "disabled"]);
    }
    words.extend(["run", "--bundle", &bundle, "bench"]);
    that_runs(&words)
}

/// sshd on loopback, with keys of its own and nobody's configuration.
pub(super) struct Ssh {
    folder: TempDir,
    server: Child,
    port: u16,
    user: String,
}

impl Ssh {
    pub(super) fn start() -> Result<Self, Missing> {
        let sshd = installed("sshd")?;
        installed("ssh")?;
        let keygen = installed("ssh-keygen")?;
        let failed = |error: &dyn std::fmt::Display| format!("sshd can't be set up: {error}");
        let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
        for key in ["host", "client"] {
            let mut command = Command::new(&keygen);
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join(key));
            command.stdin(Stdio::null()).status().map_err(|error| failed(&error))?;
        }
        let port = free_port().map_err(|error| failed(&error))?;
        let path = folder.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {path}/host\nAuthorizedKeysFile {path}/client.pub\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nUseDNS no\n\
             LogLevel ERROR\nPrintMotd no\nMaxStartups 100\n\
             # Neither bash.bashrc nor ~/.bashrc is read by a shell that is not the first.\n\
             SetEnv SHLVL=1\n"
        );
        fs::write(folder.path().join("config"), config).map_err(|error| failed(&error))?;
        if nix::unistd::geteuid().is_root() {
            // Where Debian's sshd, started by root, locks up its unprivileged half. Its service makes it as well.
            fs::create_dir_all("/run/sshd").map_err(|error| failed(&error))?;
        }
        let user = User::from_uid(nix::unistd::geteuid()).ok().flatten().ok_or("this user has no name")?;
        let mut command = Command::new(sshd);
        command.args(["-D", "-e", "-f"]).arg(folder.path().join("config"));
        let server = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let server = server.map_err(|error| failed(&error))?;
        let mut ssh = Self { folder, server, port, user: user.name };
        ssh.wait_until_it_works()?;
        Ok(ssh)
    }

    fn wait_until_it_works(&mut self) -> Result<(), Missing> {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let has_ended = self.server.try_wait().ok().flatten().is_some();
            if has_ended || started.elapsed() > Duration::from_secs(20) {
                let _ = self.server.kill();
                let said = self.server.stderr.take().and_then(|said| BufReader::new(said).lines().next());
                return Err(format!(
                    "sshd does not run here: {}",
                    said.and_then(Result::ok).unwrap_or_default()
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut first = Birthplace::new(self.program(&[], &["true"]));
        first.run().map(drop).map_err(|error| format!("ssh does not log in here: {error:#}"))
    }

    /// A call of ssh that runs a command: on a connection of its own, unless the options say otherwise.
    pub(super) fn program(&self, options: &[&str], command: &[&str]) -> Program {
        let path = self.folder.path().display();
        let (port, login) = (self.port.to_string(), format!("{}@127.0.0.1", self.user));
        let settings = [
            format!("IdentityFile={path}/client"),
            format!("UserKnownHostsFile={path}/known"),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=no".to_owned(),
            "BatchMode=yes".to_owned(),
            "LogLevel=ERROR".to_owned(),
        ];
        let ssh = installed("ssh").unwrap_or_else(|_| PathBuf::from("/usr/bin/ssh"));
        let mut words = vec![ssh.to_string_lossy().into_owned()];
        words.extend(["-F", "/dev/null", "-p", &port].map(str::to_owned));
        words.extend(settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]));
        words.extend(options.iter().map(|option| (*option).to_owned()));
        words.push(login);
        words.extend(command.iter().map(|word| (*word).to_owned()));
        Program::new(words.iter().map(OsStr::new))
    }

    /// A connection that is kept open; and the options of calls that use it. Ends with the server.
    pub(super) fn master(&self) -> Result<Vec<String>, Missing> {
        let path = format!("ControlPath={}/control", self.folder.path().display());
        let options = ["-o", "ControlMaster=yes", "-o", &path, "-o", "ControlPersist=600", "-N", "-f"];
        let mut first = Birthplace::new(self.program(&options, &[]));
        first.run().map_err(|error| format!("no ControlMaster: {error:#}"))?;
        Ok(["-o", "ControlMaster=no", "-o", &path].map(str::to_owned).into())
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let control = self.folder.path().join("control");
        if control.exists() {
            let mut exit = Command::new("ssh");
            exit.args(["-F", "/dev/null", "-O", "exit", "-S"]).arg(control).arg("127.0.0.1");
            let _ = exit.stdin(Stdio::null()).stderr(Stdio::null()).status();
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
