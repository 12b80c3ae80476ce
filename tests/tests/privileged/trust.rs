//! What the root spawner trusts: nobody but root. The worker's user, as one that was taken over, can lead it to no file and
//! keep it from no work; and nothing that only root can see shows in an answer.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, JobSpec, Limits};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{limited, shell, spec, start};
use jobworker_tests::wait::until;
use jobworker_tests::worker::clean;
use jobworker_tests::{Pki, census};
use serde_json::json;
use tempfile::TempDir;
use tonic::Code;

use crate::jobs::{assert_ended, assert_refused, finish, start_until, stop};
use crate::setup::{Setup, Turn};
use crate::unprivileged::{Spawner, WORKER};

const JOB: &str = "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f";

/// A place for a state folder, and a file that is root's alone.
struct Place {
    folder: TempDir,
    state: PathBuf,
    secret: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("our own folder");
        let (state, secret) = (folder.path().join("above/state"), folder.path().join("secret"));
        fs::create_dir_all(state.join("jobs")).expect("a writable folder");
        fs::write(&secret, "root's own, 0600").expect("a writable folder");
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("our own file");
        Self { folder, state, secret }
    }

    fn spawner(&self, more: &[&str]) -> Command {
        let mut command = Command::new(binary("jobworker"));
        clean(&mut command);
        command.args(["spawner", "--worker-user", "jobworker", "--state-dir"]).arg(&self.state);
        if !more.contains(&"--socket") {
            command.arg("--socket").arg(self.folder.path().join("socket"));
        }
        command.args(more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Expects that a spawner does not start, and says why and what to do. One that does is used as an attacker would.
    #[track_caller]
    fn expect_refusal(&self, more: &[&str], words: &[&str]) {
        let mut process = self.spawner(more).spawn().expect("jobworker can be executed");
        let mut said = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut said).expect("text");
        if said == "ready\n" {
            let mut attacker = Command::new(binary("actor"));
            attacker.arg("ask").arg(self.folder.path().join("socket")).uid(WORKER).gid(WORKER);
            attacker.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut attacker = attacker.spawn().expect("the actor can be executed");
            let mut line = attacker.stdin.take().expect("a pipe");
            writeln!(line, "{}", json!({ "remove": JOB })).expect("it reads");
            drop(line);
            let answer = attacker.wait_with_output().expect("our own child").stdout;
            let _ = process.kill();
            let _ = process.wait();
            let secret = fs::read_to_string(&self.secret).expect("our own file");
            panic!(
                "it started; asked for a removal it said {}, and root's file is {secret:?}",
                String::from_utf8_lossy(&answer)
            );
        }
        let output = process.wait_with_output().expect("our own child");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "no {word:?} in {stderr}");
        }
        assert_eq!(fs::read_to_string(&self.secret).expect("our own file"), "root's own, 0600");
    }
}

fn give_to_worker(path: &Path) {
    chown(path, Some(WORKER), Some(WORKER)).expect("root may");
}

#[tokio::test]
async fn a_state_folder_that_the_worker_can_change_is_refused_and_roots_files_stay_as_they_are() {
    let _turn = Turn::shared().await;
    let user = ["--default-user", "bob"];
    // As README's way without the package left it: all is the worker's, and the lock is root's file.
    let place = Place::new();
    let job = place.state.join("jobs").join(JOB);
    fs::create_dir(&job).expect("a writable folder");
    symlink(&place.secret, job.join("lock")).expect("a writable folder");
    for path in [&place.state, &place.state.join("jobs"), &job] {
        give_to_worker(path);
    }
    let state = place.state.display().to_string();
    place.expect_refusal(
        &user,
        &[&format!("{state} belongs to jobworker"), &format!("chown root {state} && chmod go-w")],
    );

    // Only `jobs/` is.
    chown(&place.state, Some(0), Some(0)).expect("root may");
    let jobs = format!("{state}/jobs");
    place.expect_refusal(&user, &[&format!("{jobs} belongs to jobworker"), &format!("chown root {jobs}")]);

    // A folder that anybody may write to, a link in the place of `jobs/`, and a way there that is the worker's.
    let place = Place::new();
    fs::set_permissions(&place.state, Permissions::from_mode(0o777)).expect("our own folder");
    place.expect_refusal(&user, &["has mode 0777", "chmod go-w"]);
    let place = Place::new();
    fs::remove_dir(place.state.join("jobs")).expect("it is empty");
    symlink(place.folder.path(), place.state.join("jobs")).expect("our own folder");
    place.expect_refusal(&user, &["/state/jobs is a symbolic link"]);
    let place = Place::new();
    give_to_worker(&place.folder.path().join("above"));
    place.expect_refusal(&user, &["above can be changed by jobworker, the worker's user"]);

    // Nor where its socket is, which it gives to the worker.
    let place = Place::new();
    let run = place.folder.path().join("run");
    fs::create_dir(&run).expect("a writable folder");
    give_to_worker(&run);
    let socket = run.join("socket").display().to_string();
    place.expect_refusal(&[&user[..], &["--socket", &socket]].concat(), &["run can be changed by jobworker"]);
}

#[tokio::test]
async fn links_below_the_state_folder_are_followed_neither_at_a_start_nor_at_a_removal() {
    let _turn = Turn::shared().await;
    let spawner = Spawner::start();
    let secret = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(secret.path(), "root's own, 0600").expect("our own file");
    let ask = |job: &str| {
        let output = spawner.ask_as(WORKER, &json!({ "remove": job }));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Of a time when the folder was the worker's: links in a job's folder, the folder itself one, and one that is not root's.
    let folder = spawner.jobs().join(JOB);
    fs::create_dir(&folder).expect("root's folder");
    for name in ["lock", "state.json", "state.json.reserve.new", "spec.json", "index", "output"] {
        symlink(secret.path(), folder.join(name)).expect("root's folder");
    }
    let answer = ask(JOB);
    assert!(answer.contains("failed") && answer.contains("is a symbolic link"), "{answer}");
    give_to_worker(&folder);
    fs::remove_file(folder.join("lock")).expect("root's folder");
    let answer = ask(JOB);
    assert!(answer.contains("belongs to jobworker") && answer.contains("chown root"), "{answer}");
    let other = "4f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f";
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    symlink(elsewhere.path(), spawner.jobs().join(other)).expect("root's folder");
    let answer = ask(other);
    assert!(answer.contains("is a symbolic link"), "{answer}");
    assert_eq!(fs::read_dir(elsewhere.path()).expect("our own folder").count(), 0);
    assert_eq!(fs::read_to_string(secret.path()).expect("our own file"), "root's own, 0600");
}

#[tokio::test]
async fn nobody_but_the_spawner_can_hold_a_jobs_lock() {
    let _turn = Turn::shared().await;
    let spawner = Spawner::start();
    let worker = spawner.worker();
    let mut client = worker.admin().await;
    let job = start_until(&mut client, shell("echo up; exec sleep 1014"), "up").await;
    let folder = spawner.jobs().join(&job.id);
    let found = fs::metadata(folder.join("lock")).expect("a lock");
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o600, 0));
    let as_worker = |path: &Path| {
        let mut command = Command::new("cat");
        command.arg(path).uid(WORKER).gid(WORKER).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().expect("cat can be executed").success()
    };
    assert!(!as_worker(&folder.join("lock")), "who can open it can hold it");
    for name in ["state.json", "spec.json", "output", "index"] {
        assert!(as_worker(&folder.join(name)), "{name}");
    }
    stop(&mut client, &job.id, Some(0)).await;
}

#[tokio::test]
async fn root_that_has_not_been_told_as_whom_jobs_run_does_not_start() {
    let _turn = Turn::shared().await;
    let place = Place::new();
    place.expect_refusal(&[], &["needs --default-user NAME", "`--default-user root`", "can leave its group"]);
    let pki = Pki::new();
    let mut serve = Command::new(binary("jobworker"));
    clean(&mut serve);
    serve
        .args(["serve", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(&place.state)
        .arg("--ca")
        .arg(pki.ca());
    serve.arg("--cert").arg(pki.server().cert).arg("--key").arg(pki.server().key);
    let mut serve =
        serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("jobworker");
    let (mut lines, mut said) = (BufReader::new(serve.stderr.take().expect("a pipe")), String::new());
    while !said.contains("listening on") && lines.read_line(&mut said).expect("text") > 0 {}
    let _ = serve.kill();
    let status = serve.wait().expect("our own child");
    assert!(!said.contains("listening on") && status.code() == Some(1), "{said}");
    assert!(said.contains("needs --default-user NAME") && said.contains("`--default-user root`"), "{said}");
}

#[tokio::test]
async fn a_root_job_is_told_of_in_its_status() {
    let setup = Setup::new().await;
    let (job, _) = finish(&mut setup.worker.admin().await, shell(":")).await;
    let status = setup.worker.jobctl(&["status", &job.id]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("root (a root job can leave its group and its limits)"), "{text}");
}

#[tokio::test]
async fn what_is_told_of_a_path_does_not_depend_on_what_only_root_can_see() {
    let _turn = Turn::shared().await;
    let spawner = Spawner::start();
    let worker = spawner.worker();
    let mut client = worker.admin().await;
    let hidden = tempfile::tempdir_in("/data").expect("a writable /data");
    fs::set_permissions(hidden.path(), Permissions::from_mode(0o700)).expect("our own folder");
    fs::create_dir(hidden.path().join("there")).expect("our own folder");
    let hidden = hidden.path().display().to_string();
    let io = |limit: String| {
        let limits = Limits { io: vec![limit], ..Limits::default() };
        JobSpec { user: "alice".to_owned(), ..limited(shell("echo ran"), limits) }
    };
    let in_folder = |path: String, io: &[&str]| {
        let limits = Limits { io: io.iter().map(|limit| (*limit).to_owned()).collect(), ..Limits::default() };
        JobSpec { workdir: path.into_bytes(), user: "alice".to_owned(), ..limited(shell("echo ran"), limits) }
    };
    let command = |path: String| JobSpec { user: "alice".to_owned(), ..spec(&[&path]) };
    let kinds: [(&str, &dyn Fn(String) -> JobSpec); 4] = [
        ("limits.io", &|path| io(format!("{path}:10M"))),
        ("workdir", &|path| in_folder(path, &[])),
        ("workdir as the disk of limits.io", &|path| in_folder(path, &["10M"])),
        ("command", &command),
    ];
    for (what, make) in kinds {
        let mut told = Vec::new();
        for name in ["there", "absent"] {
            let path = format!("{hidden}/{name}");
            let refused = start(&mut client, make(path)).await.expect_err("alice can't see it");
            told.push((refused.code(), refused.message().replace(name, "NAME")));
        }
        assert_eq!(told[0], told[1], "{what}");
        assert!(told[0].1.contains("ermission denied"), "{what}: {told:?}");
    }
    // What she can see she can limit, by a group of hers, too.
    let hers = tempfile::tempdir_in("/data").expect("a writable /data");
    fs::set_permissions(hers.path(), Permissions::from_mode(0o750)).expect("our own folder");
    chown(hers.path(), Some(0), Some(2001)).expect("root may");
    fs::write(hers.path().join("file"), "x").expect("our own folder");
    let (job, output) = finish(&mut client, io(format!("{}/file:10M", hers.path().display()))).await;
    assert_eq!(output, "ran\n");
    assert_ended(&job, Cause::Exited, Ended::ExitCode(0));
    let refused = start(&mut client, io("/tmp:1M".to_owned())).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", &["spec.limits.io", "tmpfs"]);
}

/// A program that does what a worker would that was taken over, and says when it has done it.
struct Attacker(Child);

impl Attacker {
    fn new(args: &[&str], word: &str) -> Self {
        let mut command = Command::new(binary("actor"));
        command.args(args).uid(WORKER).gid(WORKER).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the actor can be executed");
        let mut said = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut said).expect("text");
        assert!(said.starts_with(word), "{said:?}");
        Self(process)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Clock ticks of 10 ms in one second that a spawner spends with nothing to do.
fn busy_ticks(spawner: &Spawner) -> u64 {
    let before = census::cpu_ticks(spawner.pid());
    thread::sleep(Duration::from_secs(1));
    census::cpu_ticks(spawner.pid()) - before
}

#[tokio::test]
async fn a_flood_neither_fills_the_spawner_nor_keeps_it_busy_nor_keeps_others_out() {
    let _turn = Turn::alone().await;
    let spawner = Spawner::start();
    let worker = spawner.worker();
    let socket = spawner.socket().display().to_string();
    let mut client = worker.admin().await;
    finish(&mut client, shell(":")).await;

    let flood = Attacker::new(&["flood", &socket, "30", "15"], "flooded");
    let peak_kib: u64 = census::status_line(spawner.pid(), "VmHWM")
        .and_then(|text| text.trim_end_matches(" kB").parse().ok())
        .expect("a spawner that lives");
    assert!(peak_kib < 160 << 10, "{} MiB", peak_kib >> 10);
    finish(&mut client, shell(":")).await;
    drop(flood);

    let attached: Vec<_> = (0..2).map(|_| Attacker::new(&["attach", &socket, "750"], "attached")).collect();
    // The last of them are dealt with by then.
    spawner.ask_as(WORKER, &json!("attach"));
    let open = census::descriptors(spawner.pid());
    assert!(open < 100, "{open} descriptors");
    let ticks = busy_ticks(&spawner);
    assert!(ticks < 30, "busy for {ticks} of 100 ticks");
    finish(&mut client, shell(":")).await;
    drop((client, worker));
    // Another worker gets in beside them.
    let worker = spawner.worker();
    finish(&mut worker.admin().await, shell(":")).await;
    drop(attached);
}

#[tokio::test]
async fn out_of_descriptors_the_spawner_waits_and_goes_on_later() {
    let _turn = Turn::alone().await;
    let place = Place::new();
    let inner = place.spawner(&["--default-user", "bob"]);
    let mut command = Command::new("/bin/sh");
    clean(&mut command);
    command.args(["-c", "ulimit -n 24; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    let log = fs::File::create(place.folder.path().join("log")).expect("a writable folder");
    let mut spawner = command.stdout(Stdio::piped()).stderr(log).spawn().expect("a shell");
    let mut said = String::new();
    BufReader::new(spawner.stdout.take().expect("a pipe")).read_line(&mut said).expect("text");
    assert_eq!(said, "ready\n");
    let socket = place.folder.path().join("socket").display().to_string();
    let attached = Attacker::new(&["attach", &socket, "60"], "attached");
    let log = || fs::read_to_string(place.folder.path().join("log")).expect("our own file");
    until("it is out of descriptors", || (census::descriptors(spawner.id()) >= 23).then_some(()));
    let before = census::cpu_ticks(spawner.id());
    thread::sleep(Duration::from_secs(1));
    let ticks = census::cpu_ticks(spawner.id()) - before;
    assert!(ticks < 30, "busy for {ticks} of 100 ticks");
    drop(attached);
    let mut actor = Command::new(binary("actor"));
    let mut asking = actor
        .arg("ask")
        .arg(&socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the actor");
    asking.stdin.take().expect("a pipe").write_all(b"\"attach\"\n").expect("it reads");
    let answer = asking.wait_with_output().expect("our own child").stdout;
    assert!(String::from_utf8_lossy(&answer).contains("version"), "{}", log());
    let _ = spawner.kill();
    let _ = spawner.wait();
}
