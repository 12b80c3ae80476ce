//! A worker's engine over a folder of jobs in memory, for what only it can reach.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use jobworker::identity::ClientIdentity;
use jobworker::job::census::Census;
use jobworker::job::engine::Engine;
use jobworker::job::folder::{Folder, JobsDir, SPEC, STATE};
use jobworker::job::spec::FORMAT_VERSION;
use jobworker::job::state::Finished;
use jobworker::job::{ByteStr, JobId, JobRequest, Outcome, Owner, Phase, Spec, State};
use jobworker::output::hub::Hub;
use jobworker::policy::action::Action;
use jobworker::policy::{Permit, Policy};
use jobworker::spawner::client::SpawnerClient;
use jobworker::spawner::protocol::Attached;
use jobworker::tasks::Tasks;
use jobworker_limits::{Limits, LimitsInForce, OutputLimit, Usage};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// An engine, and the folder that it looks at.
pub struct Worker {
    pub engine: Engine,
    pub jobs: JobsDir,
    pub runtime: Runtime,
    admin: Arc<ClientIdentity>,
    _state_dir: TempDir,
}

impl Worker {
    pub fn new() -> Self {
        let state_dir = TempDir::new_in("/dev/shm").unwrap();
        let jobs = JobsDir::new(state_dir.path());
        let socket = state_dir.path().join("spawner.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || attach(&listener));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let engine = runtime.block_on(async {
            let (spawner, _attached) = SpawnerClient::attach(&socket).await.unwrap();
            let (hub, shutdown) = (Hub::new(&Tasks::default()).unwrap(), CancellationToken::new());
            let census = Census::start(jobs.clone(), Vec::new(), &Tasks::default()).unwrap();
            Engine::new(jobs.clone(), spawner, hub, OutputLimit::DEFAULT, shutdown, census)
        });
        Self { engine, jobs, runtime, admin: Arc::new(admin()), _state_dir: state_dir }
    }

    pub fn permit<A: Action>(&self, action: A) -> Permit<A> {
        Policy::built_in().decide(&self.admin, action, None).unwrap()
    }

    /// A job's folder with its spec and state, and no output yet.
    pub fn add(&self, id: JobId, finished: bool) -> Folder {
        let folder = self.jobs.folder(id);
        fs::create_dir_all(folder.path()).unwrap();
        fs::write(folder.file(SPEC), serde_json::to_vec(&spec(id)).unwrap()).unwrap();
        fs::write(folder.file(STATE), serde_json::to_vec(&state(finished)).unwrap()).unwrap();
        folder
    }
}

/// All that a spawner has to say to a worker that starts no job. The connections stay open.
fn attach(listener: &UnixListener) {
    let mut workers = Vec::new();
    for worker in listener.incoming() {
        let mut worker = BufReader::new(worker.unwrap());
        worker.read_line(&mut String::new()).unwrap();
        let (version, format) = (String::new(), FORMAT_VERSION);
        let attached = Attached { version, format, base: None, unavailable: Default::default() };
        let line = serde_json::to_string(&attached).unwrap() + "\n";
        worker.get_mut().write_all(line.as_bytes()).unwrap();
        workers.push(worker);
    }
}

fn admin() -> ClientIdentity {
    ClientIdentity {
        name: "alice".to_owned(),
        common_name: "alice".to_owned(),
        role: Ok("admin".to_owned()),
        serial: "1".to_owned(),
        fingerprint_sha256: "0".repeat(64),
        uris: Vec::new(),
        dns_names: Vec::new(),
        not_after_unix_sec: i64::MAX,
    }
}

fn spec(id: JobId) -> Spec {
    let text = |text: &str| ByteStr::new(text).unwrap();
    let request = JobRequest {
        command: text("make"),
        args: Vec::new(),
        limits: Limits::default(),
        user: None,
        env: Vec::new(),
        workdir: text("/"),
        name: None,
        timeout_msec: None,
        output_limit: None,
    };
    let owner = Owner {
        name: "alice".to_owned(),
        common_name: "alice".to_owned(),
        role: "admin".to_owned(),
        serial: "1".to_owned(),
        fingerprint_sha256: "0".repeat(64),
    };
    Spec { version: FORMAT_VERSION, id, request, owner, created_unix_usec: 1, output_limit: None }
}

fn state(finished: bool) -> State {
    let outcome = Outcome::Exited { code: 0 };
    let usage = Usage::default();
    let end = Finished {
        outcome,
        at_unix_usec: 3,
        ran_usec: None,
        escaped: None,
        usage,
        output_bytes: None,
        output_lost_bytes: 0,
    };
    State {
        version: FORMAT_VERSION,
        phase: if finished { Phase::Finished(Box::new(end)) } else { Phase::Running },
        // Numbers that no process has: beyond the kernel's largest pid, 4194304.
        pid: 5_000_000,
        shim_pid: 5_000_001,
        boot_id: String::new(),
        user: "nobody".to_owned(),
        cgroup: None,
        started_unix_usec: 2,
        birth: None,
        limits_in_force: LimitsInForce::default(),
    }
}
