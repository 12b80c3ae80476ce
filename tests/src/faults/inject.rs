//! Carries the schedule out.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::proxy::Proxy;
use super::random::pick;
use super::schedule::{Fault, Kind, Schedule};
use super::victim::{Victim, pid};
use super::world::World;
use crate::census;

/// How long a worker that is killed early lives at most.
const EARLY_MSEC: u64 = 150;

/// How long a disk is full, in milliseconds.
const FULL_MSEC: std::ops::Range<u64> = 100..3_000;

/// Injects faults until the time is over; then the worker is restarted a last time, so that what was done to it just
/// before the end is seen to as well.
pub(super) fn inject(
    world: &World,
    victim: &mut Victim,
    proxy: &Proxy,
    schedule: Schedule,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let half = began + world.until.saturating_duration_since(began) / 2;
    for mut fault in schedule {
        thread::sleep(fault.pause.min(world.until.saturating_duration_since(Instant::now())));
        if world.is_over() {
            break;
        }
        if victim.is_older() && Instant::now() > half {
            fault.kind = Kind::WorkerMoved;
        }
        if carry_out(world, victim, proxy, fault)? {
            *world.figures().faults.entry(fault.kind).or_default() += 1;
        }
    }
    victim.wait_until_disk_is_free()?;
    victim.kill()?;
    revive(world, victim)
}

/// False when there was nobody to harm.
fn carry_out(world: &World, victim: &mut Victim, proxy: &Proxy, fault: Fault) -> anyhow::Result<bool> {
    match fault.kind {
        Kind::WorkerKilled => victim.kill()?,
        Kind::WorkerKilledEarly => {
            victim.kill()?;
            // So that the new one is killed while it starts a spawner.
            kill_spawner(world, victim);
            if victim.is_about_to_switch() {
                world.count_at_switch();
            }
            victim.spawn()?;
            thread::sleep(Duration::from_millis(fault.chance % EARLY_MSEC));
            victim.kill()?;
        }
        Kind::WorkerRestarted => terminate(world, victim)?,
        Kind::WorkerMoved => {
            terminate(world, victim)?;
            victim.move_program()?;
        }
        Kind::BinaryReplaced => {
            victim.replace_program()?;
            // So that the worker has to start a spawner from a program that is no longer on the disk.
            return Ok(kill_spawner(world, victim));
        }
        Kind::SpawnerKilled => return Ok(kill_spawner(world, victim)),
        Kind::ShimKilled => return Ok(kill_shim(world, victim, fault.chance)),
        Kind::Cut => {
            proxy.cut();
            return Ok(true);
        }
        Kind::DiskFilled => {
            let moment = FULL_MSEC.start + fault.chance % (FULL_MSEC.end - FULL_MSEC.start);
            return victim.fill_disk(Duration::from_millis(moment));
        }
        Kind::ClockJumped => {
            victim.jump_clock(fault.chance)?;
            return Ok(true);
        }
    }
    revive(world, victim)?;
    Ok(true)
}

/// A worker that has to start, whatever its predecessor left.
fn revive(world: &World, victim: &mut Victim) -> anyhow::Result<()> {
    if victim.is_about_to_switch() {
        world.count_at_switch();
    }
    victim.spawn()?;
    if let Err(error) = victim.wait_until_it_listens() {
        world.wrong_answer(&format!("{error:#}"));
        // As a service manager would; twice in a row is the end.
        victim.spawn()?;
        victim.wait_until_it_listens()?;
    }
    Ok(())
}

fn terminate(world: &World, victim: &mut Victim) -> anyhow::Result<()> {
    if !victim.terminate()? {
        world.wrong_answer("the worker does not end after SIGTERM");
    }
    Ok(())
}

fn kill_spawner(world: &World, victim: &Victim) -> bool {
    world.spawner_is_killed();
    victim.spawner_pid().is_some_and(|spawner| kill(pid(spawner), Signal::SIGKILL).is_ok())
}

/// Of the first job by chance that runs still: followers of many have not got to the end yet.
fn kill_shim(world: &World, victim: &Victim, chance: u64) -> bool {
    let mut alive = world.alive();
    if alive.is_empty() {
        return false;
    }
    let first = pick(chance, alive.len());
    alive.rotate_left(first);
    alive.iter().any(|job| kill_shim_of(world, victim, job))
}

/// Stops the shim first, so that it can't end the job between the look and the kill: whoever is killed here has to be
/// told as lost.
fn kill_shim_of(world: &World, victim: &Victim, job: &str) -> bool {
    let folder = victim.jobs_dir().join(job);
    let Some(shim) = running_shim(&folder) else { return false };
    if kill(pid(shim), Signal::SIGSTOP).is_err() || !is_stopped(shim) {
        return false;
    }
    if running_shim(&folder) == Some(shim) {
        world.shim_is_killed(job);
        kill(pid(shim), Signal::SIGKILL).is_ok()
    } else {
        let _ = kill(pid(shim), Signal::SIGCONT);
        false
    }
}

/// The shim of a job that has not ended.
pub(super) fn running_shim(folder: &Path) -> Option<u32> {
    let state: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("state.json")).ok()?).ok()?;
    let ended = state["phase"].get("finished").is_some();
    u32::try_from(state["shim_pid"].as_u64()?).ok().filter(|_| !ended)
}

/// Waits until it is; false when it was gone.
fn is_stopped(process: u32) -> bool {
    loop {
        match census::status_line(process, "State") {
            Some(state) if state.starts_with('T') => return true,
            Some(state) if !state.starts_with('Z') => thread::sleep(Duration::from_millis(1)),
            _ => return false,
        }
    }
}
