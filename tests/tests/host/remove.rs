//! Ended jobs are removed, by hand and by retention: whole, only ended ones, and whatever happens meanwhile.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use jobworker_tests::api::stream_response::Event;
use jobworker_tests::api::{
    Job, JobState, ListRequest, RemoveRequest, StartRequest, StatusRequest, StopRequest,
};
use jobworker_tests::client::{everything, output, run, shell, spec, start, wait};
use jobworker_tests::wait::{PATIENCE, until, until_equal};
use jobworker_tests::{Client, Worker, census};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::{Code, Status};

use crate::support::{Running, details, jobctl, jobctl_as, start_script};

const ID: &str = "0b5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11";

async fn remove(client: &mut Client, job: &str) -> Result<Job, Status> {
    let request = RemoveRequest { job: job.to_owned() };
    Ok(client.remove(request).await?.into_inner().job.expect("Remove answers with a job"))
}

async fn list(client: &mut Client) -> Vec<String> {
    let jobs = client.list(ListRequest::default()).await.expect("a list").into_inner().jobs;
    jobs.into_iter().map(|job| job.id).collect()
}

#[track_caller]
fn expect_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, reason: &str) -> String {
    let refused = answer.expect_err(reason);
    assert_eq!((refused.code(), details(&refused).0.as_str()), (code, reason), "{refused}");
    refused.message().to_owned()
}

/// In the folder of the jobs' folders: what a removal that was cut off leaves.
fn leftovers(worker: &Worker) -> Vec<PathBuf> {
    let is_old =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    census::job_folders(&worker.jobs_dir()).into_iter().filter(is_old).collect()
}

/// It may end with the job, or be told that there is none; but it has to end.
#[track_caller]
fn expect_end(ended: Result<Option<JobState>, Status>) {
    match ended {
        Ok(state) => assert_eq!(state, Some(JobState::Finished)),
        Err(error) => assert_eq!(error.code(), Code::NotFound, "{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_job_is_removed_whole_and_its_id_is_free_again() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trace = folder.path().join("trace");
    let script = format!("echo executed >> {}; echo out", trace.display());
    let request = || StartRequest { id: ID.to_owned(), spec: Some(shell(&script)) };
    admin.start(request()).await.expect("a job");
    let ended = wait(&mut admin, ID).await.expect("its end");
    let other = run(&mut admin, spec(&["true"])).await.expect("another job").id;

    assert_eq!(remove(&mut admin, ID).await.expect("removed"), ended, "the job as it was");
    let expected = [worker.jobs_dir().join(&other)].into();
    assert_eq!(census::job_folders(&worker.jobs_dir()), expected, "nothing of it, and nothing else is gone");
    assert_eq!(list(&mut admin).await, [other]);
    let status = admin.status(StatusRequest { job: ID.to_owned() }).await;
    expect_refused(status, Code::NotFound, "JOB_NOT_FOUND");
    expect_refused(output(&mut admin, everything(ID)).await, Code::NotFound, "JOB_NOT_FOUND");
    expect_refused(remove(&mut admin, ID).await, Code::NotFound, "JOB_NOT_FOUND");

    admin.start(request()).await.expect("a new job");
    let anew = wait(&mut admin, ID).await.expect("its end");
    assert_ne!(anew.created_unix_usec, ended.created_unix_usec);
    assert_eq!(fs::read_to_string(&trace).expect("written by the jobs"), "executed\nexecuted\n");
    assert_eq!(output(&mut admin, everything(ID)).await.expect("its output").stdout, b"out\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_job_is_refused_and_lives_on() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let job = start(&mut admin, shell("echo up; exec sleep 300")).await.expect("a job");
    let words = expect_refused(remove(&mut admin, &job.id).await, Code::FailedPrecondition, "JOB_NOT_ENDED");
    assert_eq!(words, format!("job {} is running; stop it first", job.id));
    let status = admin.status(StatusRequest { job: job.id.clone() }).await.expect("it is there").into_inner();
    assert_eq!(status.job.expect("a job").pid, job.pid);
    // Nor by one whose state can't be read: its shim holds the lock.
    let state = worker.jobs_dir().join(&job.id).join("state.json");
    let whole = fs::read(&state).expect("its state");
    fs::write(&state, "{").expect("our own file");
    expect_refused(remove(&mut admin, &job.id).await, Code::FailedPrecondition, "JOB_NOT_ENDED");
    fs::write(&state, whole).expect("our own file");
    admin.stop(StopRequest { job: job.id.clone(), ..StopRequest::default() }).await.expect("stopped");
    remove(&mut admin, &job.id).await.expect("at once after its end");
    assert!(census::job_folders(&worker.jobs_dir()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_may_not_and_the_audit_log_tells_both() {
    let worker = Worker::start();
    let (mut admin, mut user) = (worker.admin().await, worker.user().await);
    let job = run(&mut admin, spec(&["true"])).await.expect("a job").id;
    expect_refused(remove(&mut user, &job).await, Code::PermissionDenied, "DENIED");
    jobctl_as(&worker, "bob", &["remove", &job]).with_code(1).saying(&["\"user\" may not remove"]);
    assert!(worker.jobs_dir().join(&job).exists());
    remove(&mut admin, &job[..8]).await.expect("an admin may");
    let removals = || worker.audit().into_iter().filter(|line| line["action"] == "remove");
    until_equal("a line for each", &3, || removals().count());
    let told: Vec<_> = removals().map(|line| (line["client"].clone(), line["decision"].clone())).collect();
    let told: Vec<_> =
        told.iter().map(|(who, what)| (who.as_str().unwrap(), what.as_str().unwrap())).collect();
    assert_eq!(told, [("bob", "denied"), ("bob", "denied"), ("alice", "allowed")]);
    assert_eq!(removals().next_back().expect("a line")["job"], job.as_str(), "the whole id");
}

#[test]
fn jobctl_removes_all_that_can_be() {
    let worker = Worker::start();
    let [first, second] = [0, 1].map(|code| start_script(&worker, &format!("exit {code}")));
    let running = start_script(&worker, "exec sleep 300");
    for (code, job) in [&first, &second].into_iter().enumerate() {
        jobctl(&worker, &["wait", job]).with_code(i32::try_from(code).expect("small"));
    }
    let answer = jobctl(&worker, &["remove", &first[..13], &running, &first, &second]).with_code(1);
    assert_eq!(answer.stdout, format!("{first}\n{second}\n"), "{answer:?}");
    let answer =
        answer.saying(&[&format!("job {running} is running; stop it first"), &format!("no job {first}")]);
    assert_eq!(answer.stderr.lines().count(), 2, "{answer:?}");
    jobctl(&worker, &["stop", &running]).with_code(0);
    assert_eq!(jobctl(&worker, &["remove", &running]).with_code(0).stdout, format!("{running}\n"));
    assert!(census::job_folders(&worker.jobs_dir()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_job_can_be_removed() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let job = run(&mut admin, spec(&["true"])).await.expect("a job").id;
    let folder = worker.jobs_dir().join(&job);
    // Beside one that can't be read, nobody can tell whether a shim that lives has ended its job.
    let lock = File::open(folder.join("lock")).expect("a lock");
    until("its shim has ended", || lock.try_lock().ok());
    drop(lock);
    fs::write(folder.join("state.json"), "{").expect("our own file");
    fs::write(folder.join("spec.json"), "").expect("our own file");
    expect_refused(admin.status(StatusRequest { job: job.clone() }).await, Code::Internal, "INTERNAL");
    let removed = remove(&mut admin, &job).await.expect("removed");
    assert_eq!(removed, Job { id: job, ..Job::default() }, "all that is known of it");
    assert!(census::job_folders(&worker.jobs_dir()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_removals_at_once_one_is_told_of_success() {
    let worker = Worker::start();
    let job = run(&mut worker.admin().await, spec(&["true"])).await.expect("a job").id;
    let lock = File::open(worker.jobs_dir().join(&job).join("lock")).expect("our own file");
    // As its shim does, which may live for a moment after it has recorded the end.
    until("its shim has ended", || lock.try_lock().ok());
    let mut removals = Vec::new();
    for _ in 0..10 {
        let (mut client, job) = (worker.admin().await, job.clone());
        removals.push(tokio::spawn(async move { remove(&mut client, &job).await }));
    }
    until_equal("all of them wait for it", &10, || census::descendants(worker.spawner_pid()).len());
    lock.unlock().expect("our own lock");
    let mut removed = 0;
    for removal in removals {
        match removal.await.expect("no panic") {
            Ok(job) => removed += usize::from(job.state() == JobState::Finished),
            Err(error) => assert_eq!(error.code(), Code::NotFound, "{error}"),
        }
    }
    assert_eq!(removed, 1);
    assert!(census::job_folders(&worker.jobs_dir()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_an_ended_job_reads_it_to_its_end() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    // More than the windows of the connection hold.
    let job = run(&mut admin, shell("head -c 60000000 /dev/zero")).await.expect("a job");
    let mut stream = worker.user().await.stream(everything(&job.id)).await.expect("its output").into_inner();
    let first = stream.message().await.expect("no error").expect("a first piece");
    remove(&mut admin, &job.id).await.expect("removed");
    assert!(census::job_folders(&worker.jobs_dir()).is_empty());
    let (mut bytes, mut message) = (0, Some(first));
    let end = loop {
        match message.expect("not the end").event.expect("an event") {
            Event::Chunk(chunk) => bytes += chunk.data.len(),
            Event::Gap(gap) => panic!("{gap:?}"),
            Event::End(job) => break job,
        }
        message = stream.message().await.expect("no error");
    };
    assert_eq!((bytes, end), (60_000_000, job));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_waits_or_follows_when_a_job_is_removed_gets_an_end() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    for _ in 0..10 {
        let job = start(&mut admin, shell("echo up; exec sleep 300")).await.expect("a job").id;
        let (mut waiter, mut follower, mut stopper) =
            (worker.user().await, worker.user().await, worker.admin().await);
        let id = job.clone();
        let waiting = tokio::spawn(async move { Ok(Some(wait(&mut waiter, &id).await?.state())) });
        let id = job.clone();
        let following = tokio::spawn(async move {
            Ok(output(&mut follower, everything(&id)).await?.end.map(|job| job.state()))
        });
        let stop = StopRequest { job: job.clone(), ..StopRequest::default() };
        let stopping =
            tokio::spawn(
                async move { Ok(stopper.stop(stop).await?.into_inner().job.map(|job| job.state())) },
            );
        let removing = async {
            while let Err(error) = remove(&mut admin, &job).await {
                assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
            }
        };
        tokio::time::timeout(PATIENCE, removing).await.expect("it ends and is removed");
        for ending in [waiting, following, stopping] {
            let ended = tokio::time::timeout(PATIENCE, ending).await.expect("nobody hangs");
            expect_end(ended.expect("no panic"));
        }
    }
    assert!(census::job_folders(&worker.jobs_dir()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_the_id_of_a_job_that_is_being_removed_gets_a_job() {
    let worker = Worker::start();
    let (mut admin, mut remover) = (worker.admin().await, worker.admin().await);
    let request = || StartRequest { id: ID.to_owned(), spec: Some(shell("echo out")) };
    let (mut old, mut new) = (0, 0);
    admin.start(request()).await.expect("a job");
    for _ in 0..20 {
        let before = wait(&mut admin, ID).await.expect("its end");
        let (started, removed) = tokio::join!(admin.start(request()), remove(&mut remover, ID));
        let started = started.expect("a job, the old or a new one").into_inner().job.expect("a job");
        if let Err(error) = removed {
            assert_eq!(error.code(), Code::FailedPrecondition, "the new one runs: {error}");
        }
        if started.created_unix_usec == before.created_unix_usec {
            old += 1;
            admin.start(request()).await.expect("the next");
        } else {
            new += 1;
        }
        let end = wait(&mut admin, ID).await.expect("its end");
        let read = output(&mut admin, everything(ID)).await.expect("its output");
        assert_eq!((read.stdout.as_slice(), read.end), (&b"out\n"[..], Some(end)));
    }
    println!("{old} times the old job, {new} times a new one");
    assert!(leftovers(&worker).is_empty());
}

/// Puts so much into a job's folder that its deletion takes a while.
fn stuff(folder: &Path, files: u32) {
    for number in 0..files {
        File::create(folder.join(format!("{number}.new"))).expect("our own folder");
    }
}

/// The spawner and its children.
fn spawners(worker: &Worker) -> Vec<u32> {
    let all = census::processes_with(worker.state().path().to_str().expect("UTF-8"));
    all.into_iter().filter(|pid| *pid != worker.pid()).collect()
}

#[test]
fn a_removal_that_is_cut_off_by_kill_9_is_finished_by_the_next_spawner() {
    let worker = Worker::start();
    let mut files = 10_000;
    // Until one is cut off: a fast disk may be faster than the kill.
    let job = until("a removal is cut off", || {
        let job = start_script(&worker, "exit 0");
        jobctl(&worker, &["wait", &job]).with_code(0);
        stuff(&worker.jobs_dir().join(&job), files);
        files *= 2;
        let mut removing = Running::start(worker.jobctl_as("alice", &["remove", &job]));
        until("it has begun", || (!worker.jobs_dir().join(&job).exists()).then_some(()));
        // So that it starts no other spawner meanwhile.
        worker.signal(Signal::SIGSTOP);
        for pid in spawners(&worker) {
            // One that has just ended is fine.
            let _ = kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL);
        }
        until("they are gone", || spawners(&worker).is_empty().then_some(()));
        let is_cut_off = !leftovers(&worker).is_empty();
        worker.signal(Signal::SIGCONT);
        // It is asked again, and the job is gone.
        assert_eq!(removing.ended().code(), Some(0));
        is_cut_off.then_some(job)
    });
    jobctl(&worker, &["status", &job]).with_code(1).saying(&["no job"]);
    assert!(!jobctl(&worker, &["list"]).with_code(0).stdout.contains(&job[..8]), "half a job is none");
    until("the next spawner finishes it", || leftovers(&worker).is_empty().then_some(()));
    let next = start_script(&worker, "exit 0");
    jobctl(&worker, &["status", &next]).with_code(0);
    jobctl(&worker, &["status", &job]).with_code(1).saying(&["no job"]);
}

fn retention_lines(worker: &Worker) -> Vec<(String, String)> {
    let text = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let lines = worker.audit().into_iter().filter(|line| line["by"] == "retention");
    lines.map(|line| (text(&line, "job"), text(&line, "rule"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_removes_what_ended_long_enough_ago_and_nothing_that_runs() {
    let worker = Worker::builder().args(&["--keep-ended-for", "300ms"]).start();
    let mut admin = worker.admin().await;
    let running = start(&mut admin, shell("echo up; exec sleep 300")).await.expect("a job").id;
    let mut ended = Vec::new();
    for _ in 0..3 {
        ended.push(start(&mut admin, spec(&["true"])).await.expect("a job").id);
    }
    let running_only = [worker.jobs_dir().join(&running)].into();
    until_equal("only the running one is left", &running_only, || census::job_folders(&worker.jobs_dir()));
    assert_eq!(list(&mut admin).await, [running.as_str()]);
    let removed = |line: &String| line.contains("retention has removed an ended job");
    until_equal("a log line each", &3, || worker.log().iter().filter(|line| removed(line)).count());
    let mut told = retention_lines(&worker);
    told.sort();
    ended.sort();
    let rule = "retention: --keep-ended-for 300ms".to_owned();
    assert_eq!(told, ended.into_iter().map(|job| (job, rule.clone())).collect::<Vec<_>>());

    admin.stop(StopRequest { job: running.clone(), ..StopRequest::default() }).await.expect("it runs still");
    until_equal("it goes too, after its end", &0, || census::job_folders(&worker.jobs_dir()).len());
    // The line was written before; who reads the log may be behind.
    until_equal("its line", &Some((running, rule)), || retention_lines(&worker).pop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_removes_the_oldest_of_what_is_too_much_on_the_disk() {
    let mut worker = Worker::start();
    let mut admin = worker.admin().await;
    let running =
        start(&mut admin, shell("head -c 9000000 /dev/zero; exec sleep 300")).await.expect("a job").id;
    let mut ended = Vec::new();
    for _ in 0..4 {
        ended.push(run(&mut admin, shell("head -c 2000000 /dev/zero")).await.expect("a job").id);
    }
    worker.signal(Signal::SIGTERM);
    worker.ended();
    let args = ["--keep-ended-bytes", "5MB", "--keep-ended-for", "1h"];
    let next = Worker::builder().pki(&worker.pki).state(worker.state()).args(&args).start();
    let expected: Vec<_> = [running.clone()].into_iter().chain(ended.drain(2..)).collect();
    let mut admin = next.admin().await;
    until("two are left, and the one that runs", || {
        (census::job_folders(&next.jobs_dir()).len() <= 3).then_some(())
    });
    assert_eq!(list(&mut admin).await, expected, "the youngest");
    let rule = "retention: --keep-ended-bytes 5000000".to_owned();
    let told = ended.into_iter().map(|job| (job, rule.clone())).collect::<Vec<_>>();
    until_equal("the oldest first", &told, || retention_lines(&next));
    let status = admin.status(StatusRequest { job: running }).await.expect("it is there").into_inner();
    assert_eq!(status.job.expect("a job").state(), JobState::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_keeps_what_is_young_and_little_and_is_not_there_unless_asked_for() {
    let plain = Worker::builder().args(&["--log-level", "debug"]).start();
    let job = run(&mut plain.admin().await, spec(&["true"])).await.expect("a job").id;
    assert!(
        plain.log().iter().all(|line| !line.contains("retention")),
        "it would have said so before it listened"
    );
    let args = ["--keep-ended-for", "1h", "--keep-ended-bytes", "1GB", "--log-level", "debug"];
    let keeping = Worker::builder().pki(&plain.pki).state(plain.state()).args(&args).start();
    let looked = |line: &String| line.contains("retention has looked at all jobs");
    let line = until("its first sweep", || keeping.log().into_iter().find(looked));
    assert!(line.contains("\"ended\":1") && line.contains("\"too_many\":0"), "{line}");
    assert_eq!(list(&mut keeping.admin().await).await, [job]);
}
