use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use jobworker_limits::SignalNumber;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::*;
use crate::identity::ClientIdentity;
use crate::job::fake::{self, FakeShim};
use crate::job::spec::FORMAT_VERSION;
use crate::job::state::StopReason;
use crate::job::{Ended, JobRequest, Outcome, Phase, Spec};
use crate::policy::action::Action;
use crate::policy::{Among, Policy};
use crate::spawner::protocol::{Attached, Refusal, RefusalKind, RemoveReply, Request, StartReply};
use crate::tasks::Tasks;

type Answer = Box<dyn FnMut(&JobsDir, Spec) -> StartReply + Send>;

/// An engine beside a spawner that answers as the test wants it to.
struct Bench {
    _state_dir: TempDir,
    jobs: JobsDir,
    engine: Engine,
    shutdown: CancellationToken,
    asked: Arc<Mutex<Vec<Spec>>>,
}

impl Bench {
    async fn new(answer: impl FnMut(&JobsDir, Spec) -> StartReply + Send + 'static) -> Self {
        let state_dir = tempfile::tempdir().unwrap();
        let jobs = JobsDir::new(state_dir.path());
        let socket = state_dir.path().join("spawner.sock");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(spawner(listener, jobs.clone(), Arc::clone(&asked), Box::new(answer)));
        let (client, _) = SpawnerClient::attach(&socket).await.unwrap();
        let shutdown = CancellationToken::new();
        let census = Census::start(jobs.clone(), Vec::new(), &Tasks::default()).unwrap();
        let (hub, limit) = (Hub::new(&Tasks::default()).unwrap(), OutputLimit::DEFAULT);
        let engine = Engine::new(jobs.clone(), client, hub, limit, shutdown.clone(), census);
        Self { _state_dir: state_dir, jobs, engine, shutdown, asked }
    }

    /// Starts whatever it is asked to.
    async fn willing() -> Self {
        Self::new(|jobs, spec| {
            if jobs.folder(spec.id).path().exists() {
                return StartReply::Exists;
            }
            FakeShim::start(jobs, &spec);
            StartReply::Started
        })
        .await
    }

    fn running(&self) -> (JobId, FakeShim) {
        let id = JobId::random();
        (id, FakeShim::start(&self.jobs, &fake::spec(id, "alice")))
    }

    /// Until so many jobs are being waited for.
    async fn are_watched(&self, jobs: usize) {
        let watched = async {
            while self.engine.parts.hub.watched() != jobs {
                tokio::task::yield_now().await;
            }
        };
        soon(watched).await;
    }

    async fn status(&self, job: JobId) -> Result<JobView, EngineError> {
        self.engine.status(permit(action::Status { job })).await
    }
}

async fn spawner(listener: UnixListener, jobs: JobsDir, asked: Arc<Mutex<Vec<Spec>>>, mut answer: Answer) {
    let mut attached = Vec::new();
    while let Ok((connection, _)) = listener.accept().await {
        let mut connection = BufReader::new(connection);
        let mut line = String::new();
        connection.read_line(&mut line).await.unwrap();
        match serde_json::from_str(&line).unwrap() {
            Request::Attach => {
                let version = "1".to_owned();
                let answer = Attached { version, format: FORMAT_VERSION, base: None, unavailable: [].into() };
                reply(&mut connection, &answer).await;
                attached.push(connection);
            }
            Request::Start(spec) => {
                asked.lock().unwrap().push((*spec).clone());
                let answer = answer(&jobs, *spec);
                reply(&mut connection, &answer).await;
            }
            Request::Remove(job) => reply(&mut connection, &remove(&jobs.folder(job))).await,
        }
    }
}

/// As the spawner does, without its locks.
fn remove(folder: &Folder) -> RemoveReply {
    match folder.state() {
        Ok(Some(state)) if state.finished().is_none() => RemoveReply::NotEnded,
        _ if !folder.path().exists() => RemoveReply::NoSuchJob,
        _ => match fs::remove_dir_all(folder.path()) {
            Ok(()) => RemoveReply::Removed,
            Err(error) => RemoveReply::Failed(error.to_string()),
        },
    }
}

async fn reply(connection: &mut BufReader<UnixStream>, answer: &impl serde::Serialize) {
    let mut line = serde_json::to_vec(answer).unwrap();
    line.push(b'\n');
    connection.get_mut().write_all(&line).await.unwrap();
}

fn permit_of<A: Action>(name: &str, action: A) -> Permit<A> {
    let identity = ClientIdentity {
        name: name.to_owned(),
        common_name: name.to_owned(),
        role: Ok("admin".to_owned()),
        serial: "1f".to_owned(),
        fingerprint_sha256: "ab".repeat(32),
        uris: Vec::new(),
        dns_names: Vec::new(),
        not_after_unix_sec: i64::MAX,
    };
    Policy::built_in().decide(&Arc::new(identity), action, None).unwrap()
}

fn permit<A: Action>(action: A) -> Permit<A> {
    permit_of("alice", action)
}

fn request() -> JobRequest {
    fake::spec(JobId::random(), "").request
}

fn start_of(name: &str, id: JobId) -> Permit<action::Start> {
    permit_of(name, action::Start { id, request: request() })
}

fn stop(job: JobId) -> Permit<action::Stop> {
    permit(action::Stop { job, signal: SignalNumber::SIGTERM, grace: Duration::from_millis(1500) })
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("an answer in time")
}

#[tokio::test]
async fn a_job_is_started_with_its_owner() {
    let bench = Bench::willing().await;
    let id = JobId::random();
    let view = bench.engine.start(start_of("spiffe://x/alice", id)).await.unwrap();
    assert_eq!(view.spec.request, request());
    let owner = &view.spec.owner;
    assert_eq!(
        (owner.name.as_str(), owner.role.as_str(), owner.serial.as_str()),
        ("spiffe://x/alice", "admin", "1f")
    );
    assert!(view.spec.created_unix_usec > 1_700_000_000_000_000);
    assert_eq!(view.state.unwrap().phase, Phase::Running);
    assert_eq!(bench.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_same_start_again_is_the_same_job_and_another_is_refused() {
    let bench = Bench::willing().await;
    let id = JobId::random();
    let first = bench.engine.start(start_of("alice", id)).await.unwrap();
    let again = bench.engine.start(start_of("alice", id)).await.unwrap();
    assert_eq!(first.spec, again.spec);

    let other_owner = bench.engine.start(start_of("bob", id)).await.unwrap_err();
    assert!(matches!(other_owner, EngineError::Exists { id: there } if there == id), "{other_owner}");
    let request = JobRequest { name: Some("other".to_owned()), ..request() };
    let other_request = bench.engine.start(permit(action::Start { id, request })).await.unwrap_err();
    assert!(matches!(other_request, EngineError::Exists { .. }), "{other_request}");
}

#[tokio::test]
async fn a_repeated_start_waits_for_the_first() {
    let bench = Bench::new(|_, _| StartReply::Exists).await;
    let id = JobId::random();
    let mut spec = fake::spec(id, "alice");
    spec.request = request();
    let folder = FakeShim::prepare(&bench.jobs, &spec);
    let engine = bench.engine.clone();
    let starting = tokio::spawn(async move { engine.start(start_of("alice", id)).await });
    bench.are_watched(1).await;
    FakeShim::open(&folder).set(Phase::Running);
    assert_eq!(soon(starting).await.unwrap().unwrap().spec, spec);
}

#[tokio::test]
async fn a_repeated_start_takes_over_when_the_first_fails() {
    let mut calls = 0;
    let bench = Bench::new(move |jobs, spec| {
        calls += 1;
        match calls {
            1 => StartReply::Exists,
            _ => {
                FakeShim::start(jobs, &spec);
                StartReply::Started
            }
        }
    })
    .await;
    let id = JobId::random();
    let folder = FakeShim::prepare(&bench.jobs, &fake::spec(id, "alice"));
    let engine = bench.engine.clone();
    let starting = tokio::spawn(async move { engine.start(start_of("alice", id)).await });
    bench.are_watched(1).await;
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(soon(starting).await.unwrap().unwrap().state.is_some());
    assert_eq!(bench.asked.lock().unwrap().len(), 2);
}

fn not_found() -> StartReply {
    StartReply::Refused(Refusal {
        kind: RefusalKind::CommandNotFound,
        field: Some("spec.command".to_owned()),
        message: "spec.command: \"mkae\" not found".to_owned(),
    })
}

#[tokio::test]
async fn who_asks_right_behind_a_start_waits_for_it() {
    let id = JobId::random();
    let text = id.to_string();
    let both = async |bench: &Bench| {
        let (start, resolve) =
            (bench.engine.start(start_of("alice", id)), bench.engine.resolve(&text, Among::All, "alice"));
        soon(async { tokio::join!(biased; start, resolve) }).await
    };
    let (started, resolved) = both(&Bench::willing().await).await;
    assert_eq!((started.unwrap().spec.id, resolved.unwrap()), (id, id));
    let (refused, resolved) = both(&Bench::new(|_, _| not_found()).await).await;
    assert!(matches!(refused, Err(EngineError::Refused(_))));
    assert!(matches!(resolved, Err(EngineError::NotFound { .. })));
}

#[tokio::test]
async fn a_refusal_is_handed_on() {
    let bench = Bench::new(|_, _| not_found()).await;
    let id = JobId::random();
    let error = bench.engine.start(start_of("alice", id)).await.unwrap_err();
    assert_eq!(error.to_string(), "spec.command: \"mkae\" not found");
    assert!(matches!(error, EngineError::Refused(Refusal { kind: RefusalKind::CommandNotFound, .. })));
    assert!(matches!(bench.status(id).await, Err(EngineError::NotFound { .. })));
}

#[tokio::test]
async fn twenty_stops_at_once_get_the_same_answer() {
    let bench = Bench::willing().await;
    let (job, shim) = bench.running();
    // Open until the end is recorded, as a shim's is.
    let mut requests = shim.requests();
    let told = thread::spawn(move || {
        let first = requests.next();
        shim.set(Phase::Stopping(StopReason::Requested { by: "alice".to_owned() }));
        shim.finish(Outcome::Stopped { by: "alice".to_owned(), ended: Ended::Signaled(15) });
        drop(requests);
        first
    });
    let stops: Vec<_> = (0..20)
        .map(|_| {
            let engine = bench.engine.clone();
            tokio::spawn(async move { engine.stop(stop(job)).await })
        })
        .collect();
    let expected = Outcome::Stopped { by: "alice".to_owned(), ended: Ended::Signaled(15) };
    for stop in stops {
        let stopped = soon(stop).await.unwrap().unwrap();
        assert_eq!(stopped.view.state.unwrap().finished().unwrap().outcome, expected);
    }
    let control = Control::Stop { signal: 15, grace_msec: 1500, by: "alice".to_owned() };
    assert_eq!(told.join().unwrap(), Some(control));
    assert!(bench.engine.stop(stop(job)).await.unwrap().already_ended, "after the end too");
}

#[tokio::test]
async fn a_starting_job_is_stopped_once_it_runs() {
    let bench = Bench::willing().await;
    let job = JobId::random();
    let folder = FakeShim::prepare(&bench.jobs, &fake::spec(job, "alice"));
    let engine = bench.engine.clone();
    let stopping = tokio::spawn(async move { engine.stop(stop(job)).await });
    bench.are_watched(1).await;
    let shim = FakeShim::open(&folder);
    let mut requests = shim.requests();
    shim.set(Phase::Running);
    let told = thread::spawn(move || {
        assert!(requests.next().is_some());
        shim.exit(0);
    });
    assert!(soon(stopping).await.unwrap().unwrap().view.is_finished());
    told.join().unwrap();
}

#[tokio::test]
async fn a_job_whose_shim_is_gone_can_not_be_asked() {
    let bench = Bench::willing().await;
    let (job, shim) = bench.running();
    let error = soon(bench.engine.stop(stop(job))).await.unwrap_err();
    assert!(error.to_string().contains("its shim is gone"), "{error}");
    let signal = || permit(action::Signal { job, signal: SignalNumber::SIGHUP, all: false });
    assert!(matches!(bench.engine.signal(signal()).await, Err(EngineError::NotRunning { .. })));
    // As the spawner does that finds out.
    shim.finish(Outcome::Lost { reason: "its shim died".to_owned() });
    assert!(bench.engine.stop(stop(job)).await.unwrap().already_ended);
    let error = bench.engine.signal(signal()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("job {job} is not running: it was lost: its shim died"));
}

#[tokio::test]
async fn signals_reach_a_running_job_only() {
    let bench = Bench::willing().await;
    let (job, shim) = bench.running();
    let mut requests = shim.requests();
    let signal = || permit(action::Signal { job, signal: SignalNumber::SIGHUP, all: true });
    assert!(!bench.engine.signal(signal()).await.unwrap().is_finished());
    assert_eq!(requests.next(), Some(Control::Signal { signal: 1, all: true }));
    // The shim that still has its FIFO open takes no more requests.
    shim.exit(3);
    let error = bench.engine.signal(signal()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("job {job} is not running: it exited with code 3"));
}

#[tokio::test]
async fn only_an_ended_job_is_removed() {
    let bench = Bench::willing().await;
    let (job, shim) = bench.running();
    let remove = |job| bench.engine.remove(permit(action::Remove { job }));
    let error = remove(job).await.unwrap_err();
    assert!(matches!(error, EngineError::NotEnded { id } if id == job), "{error}");
    assert_eq!(error.to_string(), format!("job {job} is running; stop it first"));
    shim.exit(3);
    let removed = remove(job).await.unwrap();
    assert!(removed.id == job && removed.view.is_some_and(|view| view.is_finished()), "as it was");
    assert_eq!(remove(job).await.unwrap_err().to_string(), format!("no job {job}"));
}

#[tokio::test]
async fn a_job_that_can_not_be_read_can_be_removed() {
    let bench = Bench::willing().await;
    let (damaged, shim) = bench.running();
    fs::write(shim.folder().file("state.json"), "{").unwrap();
    let (empty, folder) = (JobId::random(), bench.jobs.folder(JobId::random()));
    fs::create_dir(bench.jobs.folder(empty).path()).unwrap();
    fs::create_dir(folder.path()).unwrap();
    for job in [damaged, empty] {
        let removed = bench.engine.remove(permit(action::Remove { job })).await.unwrap();
        assert!(removed.id == job && removed.view.is_none());
        assert!(!bench.jobs.folder(job).path().exists());
    }
    assert!(folder.path().exists(), "nothing else is");
}

#[tokio::test]
async fn wait_ends_with_the_job_the_folder_or_the_worker() {
    let bench = Bench::willing().await;
    let wait = |job| {
        let engine = bench.engine.clone();
        tokio::spawn(async move { engine.wait(permit(action::Wait { job })).await })
    };
    let ((a, ends), (b, vanishes), (c, _stays)) = (bench.running(), bench.running(), bench.running());
    let (of_a, of_b, of_c) = (wait(a), wait(b), wait(c));
    bench.are_watched(3).await;
    ends.exit(7);
    assert_eq!(soon(of_a).await.unwrap().unwrap().spec.id, a);
    fs::remove_dir_all(vanishes.folder().path()).unwrap();
    assert!(matches!(soon(of_b).await.unwrap(), Err(EngineError::NotFound { .. })));
    assert!(!of_c.is_finished());
    bench.shutdown.cancel();
    assert!(matches!(soon(of_c).await.unwrap(), Err(EngineError::ShuttingDown)));
    assert!(bench.status(c).await.is_ok(), "what can be answered at once still is");
}

/// The shim would drop it, and a stop would wait for ever.
#[tokio::test]
async fn a_shim_of_an_older_build_is_not_asked_for_real_time_signals() {
    let bench = Bench::willing().await;
    let (job, shim) = bench.running();
    let mut requests = shim.requests();
    let signal: SignalNumber = "RTMIN+3".parse().unwrap();
    let send = || permit(action::Signal { job, signal, all: false });
    bench.engine.signal(send()).await.unwrap();
    assert_eq!(requests.next(), Some(Control::Signal { signal: 37, all: false }));
    let path = shim.folder().file("state.json");
    let older = std::fs::read_to_string(&path).unwrap().replace(",\"real_time_signals\":true", "");
    std::fs::write(&path, older).unwrap();
    let stop = permit(action::Stop { job, signal, grace: Duration::from_secs(1) });
    for error in [
        bench.engine.signal(send()).await.map(drop).unwrap_err(),
        soon(bench.engine.stop(stop)).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, EngineError::OlderShim { .. }), "{error}");
        assert!(
            error.to_string().contains("SIGRTMIN+3") && error.to_string().contains("older build"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let bench = Bench::willing().await;
    let job = JobId::random();
    let errors = [
        bench.status(job).await.map(drop),
        bench.engine.wait(permit(action::Wait { job })).await.map(drop),
        bench.engine.stop(stop(job)).await.map(drop),
        bench
            .engine
            .signal(permit(action::Signal { job, signal: SignalNumber::SIGHUP, all: false }))
            .await
            .map(drop),
        bench.engine.stream(permit(action::Stream { job }), From::Start, None, true).await.map(drop),
        bench.engine.resolve(&job.to_string(), Among::All, "alice").await.map(drop),
    ];
    for error in errors {
        assert_eq!(error.unwrap_err().to_string(), format!("no job {job}"));
    }
}

#[tokio::test]
async fn the_list_is_oldest_first_and_passes_over_what_is_damaged() {
    let bench = Bench::willing().await;
    let mut specs: Vec<_> = (0..5).map(|_| fake::spec(JobId::random(), "alice")).collect();
    for (spec, age) in specs.iter_mut().zip([3, 1, 4, 5, 2]) {
        spec.created_unix_usec = age;
        FakeShim::start(&bench.jobs, spec).exit(0);
    }
    fs::write(bench.jobs.folder(specs[2].id).file("spec.json"), "{").unwrap();
    fs::create_dir(bench.jobs.folder(JobId::random()).path()).unwrap();
    let (listed, _) = bench.engine.list(permit(action::List), Page::default(), |view| view).await.unwrap();
    let ages: Vec<_> = listed.iter().map(|view| view.spec.created_unix_usec).collect();
    assert_eq!(ages, [1, 2, 3, 5]);
    let error = bench.status(specs[2].id).await.unwrap_err().to_string();
    assert!(error.contains("spec.json is not what jobworker writes"), "{error}");
}

#[tokio::test]
async fn a_stream_goes_through_the_permit_to_the_end() {
    let bench = Bench::willing().await;
    let (job, mut shim) = bench.running();
    shim.append(Kind::Stdout, 1, b"out");
    shim.append(Kind::Stderr, 2, b"err");
    shim.exit(0);
    let stream = permit(action::Stream { job });
    let mut follower = bench.engine.stream(stream, From::Start, Some(Kind::Stderr), true).await.unwrap();
    let first = soon(follower.next()).await.unwrap().unwrap();
    assert!(matches!(first, Event::Chunk { offset: 3, kind: Kind::Stderr, data, .. } if *data == *b"err"));
    assert!(matches!(soon(follower.next()).await, Some(Ok(Event::End(view))) if view.output.bytes == 6));
    assert!(soon(follower.next()).await.is_none());
}
