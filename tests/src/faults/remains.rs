//! What is left when all jobs have ended: it should be the jobs' folders, and nothing else.

use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};

use super::victim::{Victim, pid};
use super::world::World;
use crate::census;

/// How long the last of them may take to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts, and ends what is left.
pub(super) fn count(world: &World, mut victim: Victim) {
    let descriptors = extra_descriptors(world, &mut victim);
    if !victim.terminate().unwrap_or(false) {
        world.wrong_answer("the worker does not end after SIGTERM when nobody is there");
    }
    // The last spawner ends with the last worker.
    let processes = settled(0, || victim.processes().len());
    let left = victim.processes();
    for process in &left {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        world
            .figures()
            .note(format!("left: {process} {}", String::from_utf8_lossy(&line).replace('\0', " ")));
        let _ = kill(pid(*process), Signal::SIGKILL);
    }
    let groups = victim.job_groups();
    let folders = strange_folders(world, &victim);
    let mut figures = world.figures();
    figures.failures.left_descriptors = descriptors as u64;
    figures.failures.left_processes = processes as u64;
    figures.failures.left_groups += groups as u64;
    figures.failures.left_folders = folders;
    let keep = !figures.is_clean();
    drop(figures);
    if let Some(kept) = victim.bury(keep) {
        world.figures().note(format!("state, log and ledgers are kept in {}", kept.display()));
    }
}

/// What an idle worker and its spawner have open, more than the same two have when they are fresh.
fn extra_descriptors(world: &World, victim: &mut Victim) -> usize {
    let used = |victim: &Victim| {
        [Some(victim.pid()), victim.spawner_pid()].map(|pid| pid.map_or(0, census::descriptors))
    };
    // Clients' connections take a moment to go.
    let mut least = used(victim);
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_secs(3) {
        let now = used(victim);
        let lower = [least[0].min(now[0]), least[1].min(now[1])];
        if lower != least {
            (least, last) = (lower, Instant::now());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let open = [Some(victim.pid()), victim.spawner_pid()].map(|pid| pid.map(open_files).unwrap_or_default());
    let fresh = fresh_descriptors(victim).unwrap_or([0, 0]);
    let extra = least.iter().zip(fresh).map(|(used, fresh)| used.saturating_sub(fresh)).sum();
    if extra > 0 {
        let [worker, spawner] = open;
        world.figures().note(format!(
            "left: {extra} descriptors: {least:?} and fresh {fresh:?}; worker: {worker}; spawner: {spawner}"
        ));
    }
    extra
}

/// What a process has open, in a line.
fn open_files(pid: u32) -> String {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return String::new() };
    let targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.map(|target| target.display().to_string()).collect::<Vec<_>>().join(" ")
}

/// A fresh worker with a fresh spawner, on the same folders.
fn fresh_descriptors(victim: &mut Victim) -> anyhow::Result<[usize; 2]> {
    victim.terminate()?;
    settled(0, || usize::from(victim.spawner_pid().is_some()));
    victim.spawn()?;
    victim.wait_until_it_listens()?;
    let mut most = [0, 0];
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        let worker = census::descriptors(victim.pid());
        let spawner = victim.spawner_pid().map_or(0, census::descriptors);
        most = [most[0].max(worker), most[1].max(spawner)];
        thread::sleep(Duration::from_millis(50));
    }
    Ok(most)
}

/// What `look` comes to once it is at most this, or when patience is over.
fn settled(at_most: usize, mut look: impl FnMut() -> usize) -> usize {
    let started = Instant::now();
    loop {
        let found = look();
        if found <= at_most || started.elapsed() > PATIENCE {
            return found;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn strange_folders(world: &World, victim: &Victim) -> u64 {
    let started = world.all_started();
    let mut strange = 0;
    for folder in census::job_folders(&victim.jobs_dir()) {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !started.contains(&name) {
            strange += 1;
            world.figures().note(format!("left: {}", folder.display()));
        }
    }
    strange
}
