//! What several of these tests need: jobctl's answers, a refusal's details, and what a worker has of jobs.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;

use jobworker_tests::api::Job;
use jobworker_tests::api::stream_response::Event;
use jobworker_tests::client::{everything, shell, start, wait};
use jobworker_tests::wait::until;
use jobworker_tests::{Client, Worker, census};
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
        let folders = census::folders(&worker.jobs_dir());
        Self { folders, groups, processes: census::descendants(worker.spawner_pid()) }
    }

    /// None at all.
    pub(crate) fn none() -> Self {
        Self { folders: BTreeSet::new(), groups: BTreeSet::new(), processes: Vec::new() }
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
