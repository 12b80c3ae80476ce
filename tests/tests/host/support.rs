//! What several of these tests need: jobctl's answers, a refusal's details, and what a worker has of jobs.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jobworker_tests::api::stream_response::Event;
use jobworker_tests::api::{Job, StatusRequest};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{everything, output, shell, spec, start, wait};
use jobworker_tests::wait::{PATIENCE, until};
use jobworker_tests::{Client, Worker, census};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::Status;
use tonic_types::StatusExt;

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The exit code; none after a signal.
    pub(crate) code: Option<i32>,
    /// stdout, as text.
    pub(crate) stdout: String,
    /// stderr, as text.
    pub(crate) stderr: String,
}

impl Answer {
    /// The answer of a command, whose stdout and stderr must be pipes.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the command can be executed");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// The same, with its exit code checked.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// The same, with all these words found on stderr.
    #[track_caller]
    pub(crate) fn saying(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not on stderr: {self:#?}");
        }
        self
    }
}

/// `jobctl` as the admin.
pub(crate) fn jobctl(worker: &Worker, args: &[&str]) -> Answer {
    jobctl_as(worker, "alice", args)
}

/// `jobctl` as somebody.
pub(crate) fn jobctl_as(worker: &Worker, name: &str, args: &[&str]) -> Answer {
    Answer::of(&mut worker.jobctl_as(name, args))
}

/// Starts a script with jobctl and returns the job's id.
#[track_caller]
pub(crate) fn start_script(worker: &Worker, script: &str) -> String {
    jobctl(worker, &["start", "--", "sh", "-c", script]).with_code(0).stdout.trim_end().to_owned()
}

/// A command that runs beside the test, its lines gathered as they come.
pub(crate) struct Running {
    /// The process.
    pub(crate) child: Child,
    stdout: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// Starts a command, whose stdout and stderr must be pipes.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the command can be executed");
        let stdout = gather(child.stdout.take().expect("a pipe"));
        let stderr = gather(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    /// Waits for a line on stdout with this text in it.
    pub(crate) fn wait_for_stdout(&self, text: &str) {
        until(&format!("{text:?} on stdout"), || has(&self.stdout, text));
    }

    /// Waits for a line on stderr with this text in it.
    pub(crate) fn wait_for_stderr(&self, text: &str) {
        until(&format!("{text:?} on stderr"), || has(&self.stderr, text));
    }

    /// The lines on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().expect("no writer panics").join("\n")
    }

    /// Waits for the end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("the command has ended", || self.child.try_wait().expect("our own child"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(pipe: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let gathered = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            gathered.lock().expect("no reader panics").push(line);
        }
    });
    lines
}

fn has(lines: &Mutex<Vec<String>>, text: &str) -> Option<()> {
    lines.lock().expect("no writer panics").iter().any(|line| line.contains(text)).then_some(())
}

/// The machine-readable part of a refusal: the `ErrorInfo`'s reason, and the fields of the `BadRequest`.
pub(crate) fn details(status: &Status) -> (String, Vec<String>) {
    let reason = status.get_details_error_info().map(|info| {
        assert_eq!(info.domain, "jobworker");
        info.reason
    });
    let fields = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
    (reason.unwrap_or_default(), fields.into_iter().map(|violation| violation.field).collect())
}

/// What there is of jobs: nothing of it may be more after a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Belongings {
    folders: BTreeSet<PathBuf>,
    groups: BTreeSet<PathBuf>,
    processes: Vec<u32>,
}

impl Belongings {
    /// A worker's, as of now.
    pub(crate) fn of(worker: &Worker) -> Self {
        let groups = worker.cgroup().map(|base| census::folders(&base.join("jobs"))).unwrap_or_default();
        let folders = census::job_folders(&worker.jobs_dir());
        Self { folders, groups, processes: census::descendants(worker.spawner_pid()) }
    }

    /// None at all.
    pub(crate) fn none() -> Self {
        Self { folders: BTreeSet::new(), groups: BTreeSet::new(), processes: Vec::new() }
    }
}

/// What the worker and the spawner hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// The worker's, open.
    pub(crate) worker_descriptors: usize,
    worker_threads: usize,
    spawner_descriptors: usize,
    processes: usize,
    groups: usize,
}

impl Held {
    /// By a worker and its spawner, as of now.
    pub(crate) fn by(worker: &Worker) -> Self {
        Self {
            worker_descriptors: census::descriptors(worker.pid()),
            worker_threads: census::threads(worker.pid()),
            spawner_descriptors: census::descriptors(worker.spawner_pid()),
            processes: census::descendants(worker.spawner_pid()).len(),
            groups: worker.cgroup().map_or(0, |base| census::folders(&base.join("jobs")).len()),
        }
    }

    /// Whether nothing of it has grown.
    pub(crate) fn is_no_more_than(&self, before: &Self) -> bool {
        self.worker_descriptors <= before.worker_descriptors
            && self.worker_threads <= before.worker_threads
            && self.spawner_descriptors <= before.spawner_descriptors
            && self.processes <= before.processes
            && self.groups <= before.groups
    }
}

/// Runs a job that writes these pieces (to stream 1 or 2) in turn, each when a reader has the one before: without that,
/// nobody can tell in which order two pipes were written to.
pub(crate) async fn write_in_turn(client: &mut Client, pieces: &[(u8, String)]) -> Job {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = |number: usize| folder.path().join(number.to_string());
    let script: String = pieces
        .iter()
        .enumerate()
        .map(|(number, (stream, text))| {
            format!("printf '{text}' >&{stream}; {}\n", wait_for_file(&gate(number)))
        })
        .collect();
    let job = start(client, shell(&script)).await.expect("a job");
    let mut stream = client.stream(everything(&job.id)).await.expect("its output").into_inner();
    let mut got = String::new();
    for (number, (_, text)) in pieces.iter().enumerate() {
        while !got.ends_with(&text.replace("\\n", "\n")) {
            match stream.message().await.expect("no error").expect("not the end").event.expect("an event") {
                Event::Chunk(chunk) => got.push_str(&String::from_utf8_lossy(&chunk.data)),
                other => panic!("not output: {other:?}"),
            }
        }
        fs::write(gate(number), "").expect("a writable folder");
    }
    wait(client, &job.id).await.expect("it ends")
}

/// A file that a script waits for: `while [ ! -e FILE ]; do sleep 0.01; done`.
pub(crate) fn wait_for_file(path: &Path) -> String {
    format!("while [ ! -e {} ]; do sleep 0.01; done", path.display())
}

/// A well-behaved client that goes on using the worker while others misbehave: connects, starts a job, asks for its
/// status and reads its output, byte for byte, again and again.
pub(crate) struct Bystander {
    rounds: Arc<AtomicUsize>,
    done: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Bystander {
    /// Begins.
    pub(crate) fn of(worker: &Arc<Worker>) -> Self {
        let (rounds, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (worker, counted, told) = (Arc::clone(worker), Arc::clone(&rounds), Arc::clone(&done));
        let task = tokio::spawn(async move {
            while !told.load(Ordering::Acquire) {
                use_everything(&worker).await;
                counted.fetch_add(1, Ordering::Release);
            }
        });
        Self { rounds, done, task }
    }

    /// Waits until it was served once from beginning to end, from now on.
    pub(crate) async fn is_served(&self) {
        let (before, began) = (self.rounds.load(Ordering::Acquire), Instant::now());
        // The round that goes on now may have begun before.
        while self.rounds.load(Ordering::Acquire) < before + 2 {
            assert!(!self.task.is_finished(), "it was not served; its panic is above");
            assert!(began.elapsed() < PATIENCE, "it is served no more");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends, with everything served.
    pub(crate) async fn end(self) {
        self.done.store(true, Ordering::Release);
        self.task.await.expect("it was served to the end");
    }
}

async fn use_everything(worker: &Worker) {
    const BYTES: usize = 300_000;
    let mut client = worker.admin().await;
    let actor = binary("actor");
    let command = spec(&[actor.to_str().expect("a UTF-8 path"), "random", &BYTES.to_string(), "7"]);
    let job = start(&mut client, command).await.expect("it is started").id;
    let request = StatusRequest { job: job.clone() };
    let status = client.status(request).await.expect("its status is told").into_inner();
    assert_eq!(status.job.expect("a job").id, job);
    let found = output(&mut client, everything(&job)).await.expect("its output is told");
    let hash: String = Sha256::digest(&found.stdout).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((found.stdout.len(), found.gap_bytes), (BYTES, 0));
    assert_eq!(String::from_utf8_lossy(&found.stderr).trim_end(), hash, "the writer's own hash");
}

/// This process opens many connections; the usual soft limit is 1024 (getrlimit(2)).
pub(crate) fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit can be raised");
}

/// Waits until a worker holds no more than before: threads that waited for a disk stay for some seconds.
pub(crate) fn expect_no_more_held(worker: &Worker, before: &Held) {
    let mut now = Held::by(worker);
    let started = Instant::now();
    while !now.is_no_more_than(before) {
        assert!(started.elapsed() < PATIENCE, "before: {before:?}, still {now:?}");
        thread::sleep(Duration::from_millis(20));
        now = Held::by(worker);
    }
}
