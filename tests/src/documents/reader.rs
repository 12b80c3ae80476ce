//! Somebody who types a document's commands, block by block, and looks whether they work.

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{Block, Kind};
use crate::binaries::binary;
use crate::wait::until;

/// Where the documents' workers listen.
const ADDRESS: &str = "127.0.0.1:50051";

/// A reader with an empty folder, which is also their home. What a block exports, the next ones have.
pub struct Reader {
    folder: TempDir,
    served: Option<Served>,
}

/// The last command of a background block, in a process group of its own.
struct Served(Child);

impl Default for Reader {
    fn default() -> Self {
        Self { folder: TempDir::new().expect("a folder below /tmp"), served: None }
    }
}

impl Reader {
    /// Where they type.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Types a block.
    ///
    /// # Panics
    /// With what it has printed, if a command of it fails, takes longer than a minute, or does not begin to serve.
    pub fn types(&mut self, block: &Block) {
        match block.kind {
            Kind::Shell { is_background: false, .. } => self.runs(block),
            Kind::Shell { is_background: true, .. } => self.serves(block),
            other => panic!("line {}: {other:?} is nothing to type", block.line),
        }
    }

    fn runs(&self, block: &Block) {
        // Killed by `timeout` rather than waited for without end.
        let mut shell = self.shell(&["timeout", "60", "/bin/sh", "-exc"]);
        shell.arg(format!("{}\nexport -p >.exported", self.with_exported(&block.text)));
        let output = shell.output().expect("a shell");
        assert!(
            output.status.success(),
            "line {}: the commands fail ({}):\n{}\n{}{}",
            block.line,
            output.status,
            block.text,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
    }

    fn serves(&mut self, block: &Block) {
        self.served = None;
        until("what was served before has ended", || TcpStream::connect(ADDRESS).is_err().then_some(()));
        let said = self.folder().join(".served");
        // A new file: the spawner of what was served before may still write into the old one.
        let _ = fs::remove_file(&said);
        let stderr = File::create_new(&said).expect("a writable folder");
        let mut shell = self.shell(&["/bin/sh", "-ec"]);
        shell.arg(self.with_exported(&block.text)).stdout(Stdio::null()).stderr(stderr).process_group(0);
        let served = self.served.insert(Served(shell.spawn().expect("a shell")));
        until("the block serves", || {
            let ended = served.0.try_wait().expect("our own child");
            assert!(
                ended.is_none(),
                "line {}: the command ends ({ended:?}):\n{}\n{}",
                block.line,
                block.text,
                fs::read_to_string(&said).unwrap_or_default()
            );
            TcpStream::connect(ADDRESS).ok()
        });
    }

    fn shell(&self, words: &[&str]) -> Command {
        let programs = binary("jobworker");
        let programs = programs.parent().expect("a file in a folder");
        let mut path = vec![programs.to_owned()];
        path.extend(env::split_paths("/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().stdin(Stdio::null());
        command.env("PATH", env::join_paths(path).expect("no colon in them"));
        command.env("HOME", self.folder()).current_dir(self.folder());
        command
    }

    fn with_exported(&self, commands: &str) -> String {
        format!("[ ! -e .exported ] || . ./.exported\n{commands}")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id().cast_signed());
        let _ = killpg(group, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
