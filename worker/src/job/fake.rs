//! For tests: a job's folder, written by hand as a shim writes it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jobworker_limits::{Limits, LimitsInForce, Usage};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::folder::{CONTROL, Folder, INDEX, JobsDir, OUTPUT, SPEC, STATE};
use super::spec::FORMAT_VERSION;
use super::state::Finished;
use super::{ByteStr, JobId, JobRequest, Outcome, Owner, Phase, Spec, State};
use crate::output::index::{HEADER, Kept, Kind, Record};
use crate::shim::control::Control;

/// A spec that `owner` asked for.
pub(crate) fn spec(id: JobId, owner: &str) -> Spec {
    let text = |text: &str| ByteStr::new(text).unwrap();
    let request = JobRequest {
        command: text("make"),
        args: vec![text("-j4")],
        limits: Limits::default(),
        user: None,
        env: Vec::new(),
        workdir: text("/"),
        name: None,
        timeout_msec: None,
        output_limit: None,
    };
    let owner = Owner {
        name: owner.to_owned(),
        common_name: owner.to_owned(),
        role: "admin".to_owned(),
        serial: "1".to_owned(),
        fingerprint_sha256: "0".repeat(64),
    };
    let version = FORMAT_VERSION;
    Spec { version, id, request, owner, created_unix_usec: 1_000_000, output_limit: None }
}

/// Writes what a shim would.
pub(crate) struct FakeShim {
    folder: Folder,
    output: File,
    index: File,
    end: u64,
}

impl FakeShim {
    /// A folder with its spec and FIFO; the job is starting.
    pub(crate) fn prepare(jobs: &JobsDir, spec: &Spec) -> Folder {
        let folder = jobs.folder(spec.id);
        fs::create_dir_all(folder.path()).unwrap();
        // Whatever the umask is: others may not write where a spawner works.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        mkfifo(&folder.file(CONTROL), Mode::S_IRWXU).unwrap();
        replace(&folder.file(SPEC), &serde_json::to_vec(spec).unwrap());
        folder
    }

    /// The empty output of a prepared job.
    pub(crate) fn open(folder: &Folder) -> Self {
        let create = |name| File::create_new(folder.file(name)).unwrap();
        let (output, mut index) = (create(OUTPUT), create(INDEX));
        index.write_all(&[HEADER, Kept::default().encode()].concat()).unwrap();
        Self { folder: folder.clone(), output, index, end: 0 }
    }

    /// A job that has just started.
    pub(crate) fn start(jobs: &JobsDir, spec: &Spec) -> Self {
        let shim = Self::open(&Self::prepare(jobs, spec));
        shim.set(Phase::Running);
        shim
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(crate) fn append(&mut self, kind: Kind, time_unix_usec: u64, bytes: &[u8]) {
        self.output.write_all(bytes).unwrap();
        self.record(kind, time_unix_usec, bytes.len());
    }

    /// Bytes that were lost: a hole.
    pub(crate) fn lose(&mut self, time_unix_usec: u64, length: usize) {
        self.output.write_all(&vec![0; length]).unwrap();
        self.record(Kind::Gap, time_unix_usec, length);
    }

    /// Bytes that were lost, and the disk takes no record of that.
    pub(crate) fn lose_untold(&mut self, length: u64) {
        self.end += length;
    }

    /// A record, whether or not its bytes are there.
    pub(crate) fn record(&mut self, kind: Kind, time_unix_usec: u64, length: usize) {
        let length = u32::try_from(length).unwrap();
        let record = Record { offset: self.end, time_unix_usec, length, kind };
        self.index.write_all(&record.encode()).unwrap();
        self.end = record.end();
    }

    /// The beginning of a record, as a shim leaves it that is killed while it writes.
    pub(crate) fn half_a_record(&mut self) {
        self.index.write_all(&[7; 11]).unwrap();
    }

    /// The end of a job whose output somebody else has written.
    pub(crate) fn end(folder: &Folder, outcome: Outcome) {
        let open = |name| File::open(folder.file(name)).unwrap();
        let end = crate::output::Extent::read(folder).unwrap().bytes;
        Self { folder: folder.clone(), output: open(OUTPUT), index: open(INDEX), end }.finish(outcome);
    }

    pub(crate) fn finish(&self, outcome: Outcome) {
        let finished = Finished {
            outcome,
            at_unix_usec: 2_000_000,
            ran_usec: None,
            escaped: None,
            usage: Usage::default(),
            output_bytes: Some(self.end),
            output_lost_bytes: 0,
        };
        self.set(Phase::Finished(Box::new(finished)));
    }

    pub(crate) fn exit(&self, code: i32) {
        self.finish(Outcome::Exited { code });
    }

    pub(crate) fn set(&self, phase: Phase) {
        let state = State {
            version: FORMAT_VERSION,
            phase,
            // Numbers that no process has: beyond the kernel's largest pid, 4194304.
            pid: 5_000_000,
            shim_pid: 5_000_001,
            boot_id: "a".to_owned(),
            user: "nobody".to_owned(),
            cgroup: None,
            started_unix_usec: 1_500_000,
            birth: None,
            limits_in_force: LimitsInForce::default(),
            real_time_signals: true,
        };
        replace(&self.folder.file(STATE), &serde_json::to_vec(&state).unwrap());
    }

    /// The reading side of the FIFO; opened at once, so that writers find a reader.
    pub(crate) fn requests(&self) -> impl Iterator<Item = Control> + Send + use<> {
        let fifo = OpenOptions::new().read(true).write(true).open(self.folder.file(CONTROL)).unwrap();
        BufReader::new(fifo).lines().map(|line| Control::decode(line.unwrap().as_bytes()).unwrap())
    }
}

fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("json.new");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, path).unwrap();
}
