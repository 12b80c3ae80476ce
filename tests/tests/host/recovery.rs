//! A new start over whatever an old one left: files of earlier and later builds, broken folders, a host that was
//! restarted, a disk that takes no outcome.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, Job, JobState, ListRequest, Outcome, StatusRequest};
use jobworker_tests::client::{everything, output, shell, start, wait};
use jobworker_tests::wait::{PATIENCE, until, until_equal};
use jobworker_tests::{Client, Worker, census};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tonic::Code;

use crate::support::{Running, jobctl};

fn kill_9(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("it runs");
    until("it is dead", || {
        census::status_line(pid, "State").is_none_or(|state| state.starts_with('Z')).then_some(())
    });
}

/// Worker and spawner, at one stroke.
fn kill_both(worker: &mut Worker) {
    let spawner = worker.spawner_pid();
    worker.signal(Signal::SIGKILL);
    worker.ended();
    if census::status_line(spawner, "State").is_some() {
        kill_9(spawner);
    }
}

fn next(worker: &Worker) -> Worker {
    Worker::builder().pki(&worker.pki).state(worker.state()).start()
}

fn folder(worker: &Worker, job: &str) -> PathBuf {
    worker.jobs_dir().join(job)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

fn shim_of(worker: &Worker, job: &Job) -> u32 {
    let pid = json(&folder(worker, &job.id).join("state.json"))["shim_pid"].as_u64().expect("a pid");
    u32::try_from(pid).expect("a pid")
}

/// The lines of the log with all these words in them.
fn lines(worker: &Worker, words: &[&str]) -> Vec<String> {
    let mut lines = worker.log();
    lines.retain(|line| words.iter().all(|word| line.contains(word)));
    lines
}

async fn status(client: &mut Client, job: &str) -> Job {
    let request = StatusRequest { job: job.to_owned() };
    client.status(request).await.expect("the job is there").into_inner().job.expect("a job")
}

/// A job once it has ended.
async fn ended(client: &mut Client, job: &str) -> Job {
    let ended = tokio::time::timeout(PATIENCE, wait(client, job)).await;
    ended.expect("in time").expect("it is there")
}

async fn listed(client: &mut Client) -> Vec<String> {
    let jobs = client.list(ListRequest::default()).await.expect("a list").into_inner().jobs;
    let mut ids: Vec<_> = jobs.into_iter().map(|job| job.id).collect();
    ids.sort();
    ids
}

fn outcome(job: &Job) -> &Outcome {
    job.outcome.as_ref().unwrap_or_else(|| panic!("not finished: {job:#?}"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a writable folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_format_1_are_served() {
    let state = std::sync::Arc::new(tempfile::tempdir().expect("a temporary folder"));
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../worker/tests/fixtures/format-1");
    copy(&fixtures, state.path());
    let worker = Worker::builder().state(&state).start();
    drop(state);
    let mut admin = worker.admin().await;
    let (greeting, stopped, both) = (
        "96b24eea-6952-483f-9262-5e5cbc087e96",
        "5b0c2f4e-6a1d-4e83-9c7f-0d2e8a4b6c10",
        "9fce5a67-8189-4995-845d-8339c1523a2f",
    );
    assert_eq!(listed(&mut admin).await, [stopped, greeting, both]);
    let job = status(&mut admin, greeting).await;
    assert_eq!((job.state(), outcome(&job).ended), (JobState::Finished, Some(Ended::ExitCode(3))));
    assert_eq!(job.spec.expect("a spec").name, "greeting");
    let job = status(&mut admin, stopped).await;
    assert_eq!((outcome(&job).cause(), &*outcome(&job).stopped_by), (Cause::Stopped, "alice"));
    assert_eq!(outcome(&job).ended, Some(Ended::Signal(15)));
    let seen = output(&mut admin, everything(both)).await.expect("its output");
    assert_eq!((&*seen.stdout, &*seen.stderr), (&b"first\nthird"[..], &b"second\n"[..]));
    assert_eq!(seen.merged, b"first\nsecond\nthird");
    for (job, text) in [(greeting, "hello\n"), (stopped, "up\n")] {
        assert_eq!(jobctl(&worker, &["stream", job]).with_code(0).stdout, text);
    }
    assert_eq!(lines(&worker, &["job's folder"]), [""; 0], "nothing is wrong with them");
}

/// What a new start makes of a folder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is listed, and its output can't be read.
    Listed,
    /// It stays where it is, and status says why it is not shown.
    Left(&'static str),
    /// It is out of the way.
    SetAside,
}

/// Each breaks the folder of a finished job.
#[expect(clippy::type_complexity, reason = "a table, used once")]
fn breakages() -> Vec<(Fate, &'static str, Box<dyn Fn(&Path)>)> {
    let write = |name: &'static str, text: &'static [u8]| {
        Box::new(move |folder: &Path| fs::write(folder.join(name), text).expect("our own folder"))
            as Box<dyn Fn(&Path)>
    };
    let newer = |name: &'static str| {
        Box::new(move |folder: &Path| {
            let mut value = json(&folder.join(name));
            value["version"] = 4_000_000_000_000u64.into();
            fs::write(folder.join(name), value.to_string()).expect("our own folder");
        }) as Box<dyn Fn(&Path)>
    };
    let in_place = |name: &'static str, make: fn(&Path)| {
        Box::new(move |folder: &Path| {
            fs::remove_file(folder.join(name)).expect("our own folder");
            make(&folder.join(name));
        }) as Box<dyn Fn(&Path)>
    };
    let newer_words = "written by a newer jobworker; this one reads up to";
    vec![
        (Fate::SetAside, "state.json", write("state.json", b"")),
        (Fate::SetAside, "state.json", write("state.json", b"{\"version\": 1, \"phase\"")),
        (Fate::SetAside, "state.json", write("state.json", &[0; 512])),
        (Fate::SetAside, "spec.json", write("spec.json", b"")),
        (Fate::SetAside, "spec.json", write("spec.json", b"\xff\xfe, not JSON")),
        (Fate::SetAside, "spec.json", in_place("spec.json", |_| {})),
        (Fate::Left(newer_words), "state.json", newer("state.json")),
        (Fate::Left(newer_words), "spec.json", newer("spec.json")),
        // An I/O error: EISDIR, ELOOP.
        (
            Fate::Left("can't read"),
            "state.json",
            in_place("state.json", |path| fs::create_dir(path).unwrap()),
        ),
        (Fate::Left("can't read"), "spec.json", in_place("spec.json", |path| symlink(path, path).unwrap())),
        (Fate::Listed, "index", write("index", b"")),
        (Fate::Listed, "index", write("index", &[0; 480])),
        (
            Fate::Listed,
            "index",
            write("index", b"jobworker index\0\x01\0\0\0\x18\0\0\0and what is no record at all"),
        ),
        (Fate::Listed, "index", in_place("index", |_| {})),
    ]
}

/// Copies of a finished job's folder, each under an id of its own, each broken.
fn break_copies(worker: &Worker, good: &str) -> Vec<(String, Fate, &'static str)> {
    let mut broken = Vec::new();
    for (fate, file, make) in breakages() {
        let id = uuid::Uuid::new_v4().to_string();
        let path = folder(worker, &id);
        copy(&folder(worker, good), &path);
        let mut spec = json(&path.join("spec.json"));
        spec["id"] = id.clone().into();
        fs::write(path.join("spec.json"), spec.to_string()).expect("our own folder");
        make(&path);
        broken.push((id, fate, file));
    }
    broken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_folders_keep_nobody_from_starting_and_good_jobs_are_served() {
    let mut worker = Worker::start();
    let mut admin = worker.admin().await;
    let living = start(&mut admin, shell("echo alive; exec sleep 300")).await.expect("a job");
    let good = start(&mut admin, shell("echo good; exit 7")).await.expect("a job").id;
    wait(&mut admin, &good).await.expect("it ends");
    // A living shim's folder stays, whatever is in it.
    let state = folder(&worker, &living.id).join("state.json");
    let intact = fs::read(&state).expect("a state");
    kill_both(&mut worker);
    fs::write(&state, "not now").expect("our own folder");
    let broken = break_copies(&worker, &good);

    let worker = next(&worker);
    let mut admin = worker.admin().await;
    assert_eq!(jobctl(&worker, &["wait", &good]).code, Some(7));
    assert_eq!(jobctl(&worker, &["stream", &good]).with_code(0).stdout, "good\n");
    let all = fs::read_dir(worker.jobs_dir()).expect("a folder").flatten().map(|entry| entry.file_name());
    let all: Vec<_> = all.map(|name| name.into_string().expect("UTF-8")).collect();
    for (id, fate, file) in &broken {
        let told = lines(&worker, &[id, file, "jobworker::spawner::recover"]);
        let refused = admin.status(StatusRequest { job: id.clone() }).await;
        match fate {
            Fate::SetAside => {
                let aside = format!(".unreadable.{id}.1");
                assert!(all.contains(&aside) && !all.contains(id), "{file}: {all:?}");
                assert_eq!(told.len(), 1, "{told:?}");
                assert!(told[0].contains("is set aside") && told[0].contains(&aside), "{told:?}");
                assert_eq!(refused.expect_err("no job").code(), Code::NotFound);
            }
            Fate::Left(words) => {
                assert!(all.contains(id), "{file}: {all:?}");
                assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
                let refused = refused.expect_err("it can't be shown");
                assert_eq!(refused.code(), Code::Internal, "{refused}");
                assert!(refused.message().contains(words) && refused.message().contains(id), "{refused}");
            }
            Fate::Listed => {
                let job = refused.expect("a status").into_inner().job.expect("a job");
                assert_eq!(outcome(&job).ended, Some(Ended::ExitCode(7)));
                let failed = output(&mut admin, everything(id)).await.expect_err("no output");
                assert_eq!(failed.code(), Code::Internal, "{failed}");
                assert!(failed.message().contains(&format!("{id}/index")), "{failed}");
            }
        }
    }
    let mut expected = vec![good.clone()];
    expected.extend(broken.iter().filter(|(_, fate, _)| *fate == Fate::Listed).map(|(id, ..)| id.clone()));
    expected.sort();
    assert_eq!(listed(&mut admin).await, expected);
    for (id, ..) in broken.iter().filter(|(_, fate, _)| matches!(fate, Fate::Left(_))) {
        assert_eq!(lines(&worker, &[id, "left out of the list"]).len(), 1);
    }
    // The next job starts, and the one that lived on is as it was.
    jobctl(&worker, &["run", "--", "true"]).with_code(0);
    assert!(all.contains(&living.id));
    fs::write(&state, intact).expect("our own folder");
    jobctl(&worker, &["stop", &living.id]).with_code(0);
    assert_eq!(jobctl(&worker, &["stream", &living.id]).with_code(0).stdout, "alive\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_host_jobs_are_lost_and_their_output_is_not() {
    let mut worker = Worker::start();
    let mut admin = worker.admin().await;
    let script = "printf before; exec sleep 300";
    let job = start(&mut admin, shell(script)).await.expect("a job");
    let mut stream = Running::start(worker.jobctl_as("bob", &["stream", "--no-reconnect", &job.id]));
    let path = folder(&worker, &job.id);
    until_equal("it has written", &72, || fs::metadata(path.join("index")).expect("an index").len());
    let shim = shim_of(&worker, &job);
    kill_both(&mut worker);
    stream.ended();
    kill_9(shim);
    // As another boot would find it, after a crash that left zeros where records were to come.
    let mut state = json(&path.join("state.json"));
    state["boot_id"] = "00000000-0000-4000-8000-000000000000".into();
    fs::write(path.join("state.json"), state.to_string()).expect("our own folder");
    let index = fs::read(path.join("index")).expect("an index");
    fs::write(path.join("index"), [&index[..], &[0; 4096]].concat()).expect("our own folder");

    let worker = next(&worker);
    let mut admin = worker.admin().await;
    let lost = ended(&mut admin, &job.id).await;
    assert_eq!((outcome(&lost).cause(), &*outcome(&lost).reason), (Cause::Lost, "the host was restarted"));
    let seen = output(&mut admin, everything(&job.id)).await.expect("its output");
    assert_eq!((&*seen.stdout, seen.gap_bytes, seen.end), (&b"before"[..], 0, Some(lost)));
    assert_eq!(fs::read(path.join("index")).expect("an index"), index);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_that_the_disk_does_not_take_is_told_as_soon_as_it_does() {
    let mut worker = Worker::start();
    let job = start(&mut worker.admin().await, shell("exec sleep 300")).await.expect("a job");
    let path = folder(&worker, &job.id);
    let shim = shim_of(&worker, &job);
    kill_both(&mut worker);
    kill_9(shim);
    // Neither a new state can be written, nor the one for which space was set aside.
    fs::remove_file(path.join("state.json.reserve.new")).expect("it was set aside");
    fs::create_dir(path.join("state.json.new")).expect("our own folder");

    // It starts all the same, and is of use.
    let worker = next(&worker);
    let mut admin = worker.admin().await;
    assert_eq!(status(&mut admin, &job.id).await.state(), JobState::Running);
    jobctl(&worker, &["run", "--", "true"]).with_code(0);
    let spawner = worker.spawner_pid();
    let recoverer = until("a recoverer is at work", || census::descendants(spawner).first().copied());
    kill_9(recoverer);
    let another =
        until("another follows", || census::descendants(spawner).into_iter().find(|pid| *pid != recoverer));
    until_equal("it has tried", &true, || {
        !lines(&worker, &["is lost: ", "tried again every second"]).is_empty()
    });
    assert_eq!(status(&mut admin, &job.id).await.state(), JobState::Running);
    fs::remove_dir(path.join("state.json.new")).expect("our own folder");
    let lost = ended(&mut admin, &job.id).await;
    assert_eq!(outcome(&lost).cause(), Cause::Lost);
    until("the recoverer has ended", || census::status_line(another, "State").is_none().then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spawner_that_is_killed_has_a_successor_though_nobody_starts_a_job() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let job = start(&mut admin, shell("exec sleep 300")).await.expect("a job");
    let shim = shim_of(&worker, &job);
    // At one stroke, so that the shim is gone before anybody else can watch it.
    let spawner = Pid::from_raw(i32::try_from(worker.spawner_pid()).expect("a pid"));
    kill(spawner, Signal::SIGSTOP).expect("it runs");
    kill_9(shim);
    kill(spawner, Signal::SIGKILL).expect("it runs");
    let lost = ended(&mut admin, &job.id).await;
    assert_eq!(outcome(&lost).cause(), Cause::Lost);
    assert!(outcome(&lost).reason.contains("was gone when the spawner started"), "{lost:#?}");
}

/// An idle spawner ends soon after its worker; a worker that starts in that moment waits for its place.
#[test]
fn a_spawner_that_is_ending_is_waited_for() {
    let state = Arc::new(tempfile::tempdir().expect("a folder"));
    let path = state.path().join("spawner.lock");
    let ending = fs::File::create(&path).expect("a file");
    let lock = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).expect("a small number"),
        l_whence: i16::try_from(libc::SEEK_SET).expect("a small number"),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&ending, FcntlArg::F_SETLK(&lock)).expect("nobody else has it");
    let started = thread::scope(|scope| {
        let start = scope.spawn(|| Worker::builder().state(&state).start());
        until("a spawner waits for the lock", || {
            let pids = census::processes_with(state.path().to_str().expect("UTF-8"));
            pids.into_iter().find(|pid| has_open(*pid, &path) && is_asleep(*pid))
        });
        drop(ending);
        start.join().expect("no panic")
    });
    jobctl(&started, &["run", "--", "true"]).with_code(0);
}

fn has_open(pid: u32, path: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|target| target == path)
}

fn is_asleep(pid: u32) -> bool {
    census::status_line(pid, "State").is_some_and(|state| state.starts_with('S'))
}
