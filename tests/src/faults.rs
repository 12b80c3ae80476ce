//! The fault harness: jobs that write, followers that check every byte, and meanwhile a seeded schedule of faults.
//!
//! ```text
//!  slots ── a job each, one after the other ──┐
//!  followers ── every byte, to the end ───────┴─▶ proxy ──▶ worker ── spawner ── shims ── jobs
//!  schedule ──▶ injector ── cuts ───────────────────┘          └── kills, restarts, copies ──┘
//! ```
//!
//! What a job writes follows from its seed ([`lines`]), and it keeps a ledger beside its output of what the kernel took
//! from it: all of that has to reach every follower, once. How it has to end follows from its plan ([`plan`]). The
//! same seed gives the same schedule and the same jobs; when they meet depends on the machine.
//!
//! A full disk costs bytes (`disk`): a follower is told of them as gaps. Since the lines are numbered, it is known where
//! what follows a gap stands, and so how many bytes are missing: exactly as many as were told.

pub mod actor;
mod clock;
mod disk;
pub mod figures;
mod follower;
mod inject;
pub mod lines;
pub mod plan;
mod proxy;
mod random;
mod remains;
pub mod schedule;
mod slot;
mod victim;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use self::figures::Figures;
use self::proxy::Proxy;
use self::schedule::{Kind, Schedule};
use self::victim::Victim;
use self::world::World;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long faults are injected and jobs started.
    pub duration: Duration,
    /// Everything follows from it.
    pub seed: u64,
    /// Jobs alive at a time.
    pub jobs: usize,
    /// Followers at a time.
    pub followers: usize,
    /// Whether this process may make a delegated subtree with all controllers below the root group, as in `scripts/vm`.
    pub controllers: bool,
    /// The root of a file system of its own: the state folder goes there, and it is filled again and again. Root only.
    pub disk: Option<PathBuf>,
    /// Whether the host's clock may be set. Root only.
    pub clock: bool,
    /// An older build of jobworker, to begin with: the present one takes over in mid-run.
    pub older: Option<PathBuf>,
}

/// Runs the harness to its end.
///
/// # Errors
/// When there is nothing to be harmed: the worker can't be started, or not again.
pub async fn run(options: Options) -> anyhow::Result<Figures> {
    let victim = Victim::start(&options).context("start the worker")?;
    let proxy = Proxy::start(victim.address()).await.context("listen on loopback")?;
    let until = Instant::now() + options.duration;
    let mut more = Vec::new();
    more.extend(options.disk.is_some().then_some((Kind::DiskFilled, 8)));
    more.extend(options.clock.then_some((Kind::ClockJumped, 3)));
    // An emulated machine needs seconds for what a real one does at once: nobody would get as far as to be harmed.
    let longest_pause_msec = if options.controllers { 5_000 } else { 1_500 };
    let schedule = Schedule::new(options.seed, &more, longest_pause_msec);
    let world = Arc::new(World::new(options, until, proxy.address(), &victim));

    let mut slots = JoinSet::new();
    for index in 0..world.options.jobs {
        slots.spawn(slot::fill(Arc::clone(&world), index));
    }
    let injecting = Arc::clone(&world);
    let injector = thread::spawn(move || {
        let mut victim = victim;
        let injected = inject::inject(&injecting, &mut victim, &proxy, schedule);
        injected.map(|()| (victim, proxy))
    });
    while let Some(done) = slots.join_next().await {
        done.context("a slot panicked")?;
    }
    let joined = tokio::task::spawn_blocking(move || injector.join()).await?;
    let (victim, proxy) = joined.map_err(|_| anyhow::anyhow!("the injector panicked"))??;
    drop(proxy);
    let counting = Arc::clone(&world);
    tokio::task::spawn_blocking(move || remains::count(&counting, victim)).await?;
    let figures = world.take_figures();
    let proves = world.options.older.is_none() || figures.jobs_at_switch.is_some_and(|jobs| jobs > 0);
    anyhow::ensure!(proves, "no job of the older build lived when the present one took over");
    Ok(figures)
}
