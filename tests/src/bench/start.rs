//! Starts: one after the other, with limits, after gaps, from a worker that is big, and many at a time.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinSet;

use super::Settings;
use super::floor::Birthplace;
use super::line::{Bound, Figure, Line, Unit};
use super::parts;
use super::stats::{Summary, interleave};
use super::subject::Subject;
use super::weight::{HELD, Weight};
use crate::api::{JobSpec, Limits};
use crate::client::{limited, spec};

/// Between two starts where they are not back to back.
const GAP: Duration = Duration::from_millis(30);

const BARE: &str = "bare clone";

fn job() -> JobSpec {
    spec(&["/bin/true"])
}

fn usec(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn figure(name: &str, summary: Summary) -> Figure {
    Figure::new(name, Unit::Usec, summary)
}

/// A start, and a start with its end, against the floor.
pub(super) fn start(settings: Settings) -> anyhow::Result<Vec<Line>> {
    let subject = Subject::new(settings)?;
    let client = subject.connect()?;
    let mut bare = Birthplace::of_true();
    let mut ended = Vec::new();
    // Beside the jobs' folders: on the same file system.
    let folders = subject.worker.state().path().join("by-hand");
    fs::create_dir(&folders)?;
    let mut made = 0;
    let [started, floor, files] = interleave(
        settings.rounds(500),
        [
            &mut || {
                let (started, end) = subject.run(&client, job())?;
                ended.push(usec(end));
                Ok(usec(started))
            },
            &mut || Ok(usec(bare.run()?)),
            &mut || {
                made += 1;
                make_files(&folders.join(made.to_string())).map(usec)
            },
        ],
    )?;
    let ended = Summary::of(&ended[1..]).context("samples")?;
    let floor = figure(BARE, floor);
    let start = Line::new("start", "Start → reply, no limits", figure("Start", started), Some(floor.clone()));
    let wait = Line::new(
        "start-wait",
        "Start → finished, seen by Wait",
        figure("Start + Wait", ended),
        Some(floor.clone()),
    );
    Ok(vec![
        start.goal(Bound::AtMost(2.0)).stretch(Bound::AtMost(1.5)),
        wait.goal(Bound::AtMost(3.5)).stretch(Bound::AtMost(2.5)),
        Line::new(
            "start",
            "of it: a folder and seven files, made by hand",
            figure("file system", files),
            Some(floor),
        ),
    ])
}

/// What the file system takes for a job's folder and the files in it that are made before the job runs: no part of the floor,
/// but of every start, and more than all else where many files were deleted lately (ext4 looks at each of them).
fn make_files(folder: &Path) -> anyhow::Result<Duration> {
    let started = Instant::now();
    fs::create_dir(folder)?;
    for name in ["lock", "control", "spec.json", "state.json.reserve", "output", "index", "state.json"] {
        fs::File::create_new(folder.join(name))?;
    }
    Ok(started.elapsed())
}

/// A start with limits against one without.
pub(super) fn limits(settings: Settings) -> anyhow::Result<Vec<Line>> {
    const WHAT: &str = "Start → reply, with cpu, memory and pids limits";
    if !settings.controllers {
        return Ok(vec![Line::missing(
            "start-limits",
            WHAT,
            "no cgroup v2 controllers to use; --vm has them",
        )]);
    }
    let subject = Subject::new(settings)?;
    let client = subject.connect()?;
    let limits = Limits {
        cpu: "1.5".to_owned(),
        memory: "64MiB".to_owned(),
        pids: "32".to_owned(),
        ..Limits::default()
    };
    let [with, without] = interleave(
        settings.rounds(300),
        [&mut || Ok(usec(subject.run(&client, limited(job(), limits.clone()))?.0)), &mut || {
            Ok(usec(subject.run(&client, job())?.0))
        }],
    )?;
    let line = Line::new("start-limits", WHAT, figure("with", with), Some(figure("without", without)));
    Ok(vec![line.goal(Bound::AtMost(1.3))])
}

/// Starts after gaps, when the machine has gone to rest, and from a worker of 1 GiB with 200 threads: against starts back to
/// back from a small one.
pub(super) fn gaps(settings: Settings) -> anyhow::Result<Vec<Line>> {
    let small = Subject::new(settings)?;
    let small_client = small.connect()?;
    // The async runtime's own variable: the product has no setting for this.
    let big = Subject::with(settings, &HELD, &[("TOKIO_WORKER_THREADS", "200")])?;
    let mut weight = Weight::of(&big);
    weight.load(1 << 20)?;
    let big_client = big.connect()?;
    let mut parent = BigParent::start()?;
    let [mut bare, mut bare_after_gap] = [(); 2].map(|()| Birthplace::of_true());
    let small_start = || small.run(&small_client, job());
    let big_start = || big.run(&big_client, job());
    let [own, gap, big_own, big_gap, floor, floor_gap, parent_gap] = interleave(
        settings.rounds(100),
        [
            &mut || small_start().and_then(|_| Ok(usec(small_start()?.0))),
            &mut || rest(|| Ok(usec(small_start()?.0))),
            &mut || big_start().and_then(|_| Ok(usec(big_start()?.0))),
            &mut || rest(|| Ok(usec(big_start()?.0))),
            &mut || bare.run().and_then(|_| Ok(usec(bare.run()?))),
            &mut || rest(|| Ok(usec(bare_after_gap.run()?))),
            &mut || rest(|| parent.birth().map(usec)),
        ],
    )?;
    let (is_big, threads) = (big.kib("RssAnon")? >= f64::from(1 << 20), big.threads());
    ensure!(is_big && threads >= 200, "the big worker did not stay big: {threads} threads");
    let back_to_back = figure("back to back", own);
    let held_against = |what, summary| {
        Line::new("start-gaps", what, figure("Start", summary), Some(back_to_back.clone()))
            .goal(Bound::AtMost(1.2))
            .stretch(Bound::AtMost(1.1))
    };
    let floor_line = |what, summary| {
        Line::new("start-gaps", what, figure(BARE, summary), Some(figure("back to back", floor)))
    };
    Ok(vec![
        held_against("Start → reply, 30 ms gaps", gap),
        held_against("the same, worker of 1 GiB and 200 threads, no gaps", big_own),
        held_against("the same, worker of 1 GiB and 200 threads", big_gap),
        floor_line("bare clone, 30 ms gaps", floor_gap),
        floor_line("bare clone, 30 ms gaps, parent as big", parent_gap),
    ])
}

fn rest(then: impl FnOnce() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    thread::sleep(GAP);
    then()
}

/// A process of 1 GiB and 200 threads that bears children.
struct BigParent {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl BigParent {
    fn start() -> anyhow::Result<Self> {
        let mut command = parts::command(&["big-parent", "1024", "200"])?;
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let asks = process.stdin.take().context("a pipe")?;
        let answers = BufReader::new(process.stdout.take().context("a pipe")?);
        Ok(Self { process, asks, answers })
    }

    fn birth(&mut self) -> anyhow::Result<Duration> {
        self.asks.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(Duration::from_nanos(line.trim().parse().context("the big parent ended")?))
    }
}

impl Drop for BigParent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts per second of sixteen clients that start one job after the other.
pub(super) fn rate(settings: Settings) -> anyhow::Result<Vec<Line>> {
    const CLIENTS: usize = 16;
    let subject = Subject::new(settings)?;
    let clients = (0..CLIENTS).map(|_| subject.connect()).collect::<Result<Vec<_>, _>>()?;
    let each = settings.rounds(40);
    let mut finished = Vec::new();
    let [answered, floor] = interleave(
        settings.rounds(10),
        [
            &mut || {
                let asked = Instant::now();
                subject.runtime.block_on(start_all(&clients, each))?;
                let answered = asked.elapsed();
                subject.settle(0)?;
                let jobs = f64::from(u32::try_from(CLIENTS * each)?);
                finished.push(jobs / asked.elapsed().as_secs_f64());
                Ok(jobs / answered.as_secs_f64())
            },
            &mut || births_by_two_threads(CLIENTS * each / 2),
        ],
    )?;
    let finished = Summary::of(&finished[1..]).context("samples")?;
    let per_second = |name: &str, summary| Figure::new(name, Unit::PerSec, summary);
    let floor = per_second("bare clone, two threads", floor);
    let answered = per_second("answered", answered);
    Ok(vec![
        Line::new("start-rate", "starts per second, 16 clients", answered, Some(floor.clone()))
            .goal(Bound::AtLeast(0.45))
            .stretch(Bound::AtLeast(0.6)),
        Line::new(
            "start-rate",
            "the same, until the last has ended",
            per_second("ended", finished),
            Some(floor),
        ),
    ])
}

async fn start_all(clients: &[crate::Client], each: usize) -> anyhow::Result<()> {
    let mut starting = JoinSet::new();
    for client in clients {
        let mut client = client.clone();
        starting.spawn(async move {
            for _ in 0..each {
                crate::client::start(&mut client, job()).await?;
            }
            Ok::<_, tonic::Status>(())
        });
    }
    while let Some(done) = starting.join_next().await {
        done??;
    }
    Ok(())
}

fn births_by_two_threads(each: usize) -> anyhow::Result<f64> {
    let bear = move || -> anyhow::Result<()> {
        let mut bare = Birthplace::of_true();
        (0..each).try_for_each(|_| bare.run().map(drop))
    };
    let started = Instant::now();
    let threads = [thread::spawn(bear), thread::spawn(bear)];
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    Ok(f64::from(u32::try_from(2 * each)?) / started.elapsed().as_secs_f64())
}

/// Writes to `cgroup.procs` on the way of a start: each takes a lock that stops the whole system's forks and exits.
pub(super) fn moves(settings: Settings) -> anyhow::Result<Vec<Line>> {
    const WHAT: &str = "writes to cgroup.procs in 20 starts";
    let missing = |reason| Ok(vec![Line::missing("start-moves", WHAT, reason)]);
    if Command::new("strace").arg("-V").output().is_err() {
        return missing("strace is not installed");
    }
    let subject = Subject::new(settings)?;
    if subject.worker.cgroup().is_none() {
        return missing("no writable cgroup v2 here; --vm has one");
    }
    let client = subject.connect()?;
    let folder = tempfile::tempdir()?;
    let calls = folder.path().join("calls");
    let mut command = Command::new("strace");
    command.args(["-f", "-q", "-y", "-e", "trace=openat,write,writev,pwrite64,clone3", "-o"]).arg(&calls);
    // The spare shim, too: the first job begins in it.
    let spawner = subject.worker.spawner_pid();
    for pid in [spawner, subject.worker.pid()].into_iter().chain(crate::census::children(spawner)) {
        command.arg("-p").arg(pid.to_string());
    }
    let mut strace = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
    crate::wait::until("strace has attached", || {
        let tracer = crate::census::status_line(subject.worker.spawner_pid(), "TracerPid")?;
        (tracer != "0").then_some(())
    });
    let done = (0..20).try_for_each(|_: i32| subject.run(&client, job()).map(drop));
    // SIGTERM: strace lets go of the processes, which a kill would take along.
    kill(Pid::from_raw(i32::try_from(strace.id())?), Signal::SIGTERM)?;
    strace.wait()?;
    done?;
    let calls = fs::read_to_string(&calls)?;
    // That it was seen at all: the job is born in its group by this call.
    ensure!(calls.matches("CLONE_INTO_CGROUP").count() == 20, "strace did not see 20 jobs' births");
    let moves = calls.lines().filter(|line| is_move(line)).inspect(|line| eprintln!("bench: {line}")).count();
    let moves = Figure::counted("product", Unit::Count, f64::from(u32::try_from(moves)?));
    Ok(vec![Line::new("start-moves", WHAT, moves, None).goal(Bound::AtMost(0.0))])
}

/// A line of strace's: a file of that name opened for writing, or written to. What is read from it is no move.
fn is_move(call: &str) -> bool {
    let writes = ["write(", "writev(", "pwrite64(", "O_WRONLY", "O_RDWR"];
    call.contains("/cgroup.procs") && writes.iter().any(|word| call.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_a_move_and_a_look_is_none() {
        for call in [
            r#"7 write(5</sys/fs/cgroup/x/cgroup.procs>, "1", 1) = 1"#,
            r#"7 openat(AT_FDCWD</>, "/sys/fs/cgroup/x/cgroup.procs", O_WRONLY|O_CLOEXEC <unfinished ...>"#,
        ] {
            assert!(is_move(call), "{call}");
        }
        for call in [
            r#"7 openat(AT_FDCWD</>, "/sys/fs/cgroup/x/cgroup.procs", O_RDONLY|O_CLOEXEC) = 5"#,
            r"7 <... openat resumed>) = 5</sys/fs/cgroup/x/cgroup.procs>",
            r#"7 write(5</tmp/x>, "1", 1) = 1"#,
        ] {
            assert!(!is_move(call), "{call}");
        }
    }
}
