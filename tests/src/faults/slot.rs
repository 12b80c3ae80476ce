//! A slot: one job after the other, each with its followers, until the time is over.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use uuid::Uuid;

use super::actor::read_ledger;
use super::follower::Follower;
use super::lines;
use super::plan::{Ending, Plan};
use super::world::{PATIENCE, World};
use crate::api::{Cause, Job, OutputStream, StartRequest, StopRequest, WaitRequest};

/// Between two looks at a ledger.
const LOOK: Duration = Duration::from_millis(50);

/// A job that was started.
pub(super) struct Run {
    pub(super) id: String,
    pub(super) plan: Plan,
    /// When it was first asked for.
    pub(super) begun: Instant,
    ledger: PathBuf,
}

/// Keeps a slot filled.
pub(super) async fn fill(world: Arc<World>, slot: usize) {
    for count in 0.. {
        if world.is_over() {
            return;
        }
        let random = world.random(&[slot as u64, count]);
        one_job(&world, slot, Plan::draw(random, world.options.controllers)).await;
    }
}

async fn one_job(world: &Arc<World>, slot: usize, mut plan: Plan) {
    let [low, high] = [plan.random.next(), plan.random.next()].map(u128::from);
    let id = uuid::Builder::from_random_bytes((low << 64 | high).to_le_bytes()).into_uuid();
    let ledger = world.ledgers.join(id.to_string());
    let mut run = Run { id: id.to_string(), plan, begun: Instant::now(), ledger };
    if !start(world, &run, id).await {
        return;
    }
    world.started(slot, &run.id);
    world.count_build(&run.id);
    let chances: Vec<u64> = (0..followers(world, slot)).map(|_| run.plan.random.next()).collect();
    let run = Arc::new(run);
    let mut tasks = JoinSet::new();
    for chance in chances {
        let (world, run) = (Arc::clone(world), Arc::clone(&run));
        tasks.spawn(async move { follow(&world, &run, chance).await });
    }
    {
        let (world, run) = (Arc::clone(world), Arc::clone(&run));
        tasks.spawn(async move { see_to_end(&world, &run).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a follower does not panic");
    }
    world.ended(slot);
}

/// A slot's share of the followers.
fn followers(world: &World, slot: usize) -> usize {
    let (all, jobs) = (world.options.followers, world.options.jobs);
    all / jobs + usize::from(slot < all % jobs)
}

/// The same request until it is answered, as a client with an id of its own may.
async fn start(world: &World, run: &Run, id: Uuid) -> bool {
    let request = StartRequest { id: id.to_string(), spec: Some(run.plan.spec(&world.actor, &run.ledger)) };
    let answer = world
        .persist("start", |mut client| {
            let request = request.clone();
            async move { client.start(request).await }
        })
        .await;
    let Some(answer) = answer else { return false };
    let named = answer.into_inner().job.is_some_and(|job| job.id == run.id);
    if !named {
        world.wrong_answer(&format!("start {id}: another job came back"));
    }
    named
}

/// Some come later than others; every third reads one stream only.
async fn follow(world: &World, run: &Run, chance: u64) {
    tokio::time::sleep(Duration::from_millis(chance % 4 * 500)).await;
    let only = match chance / 4 % 6 {
        0 => OutputStream::Stdout,
        1 => OutputStream::Stderr,
        _ => OutputStream::Unspecified,
    };
    Follower::new(world, run, only).follow().await;
}

/// Stops the job, if that is its plan, and hears how it ended.
async fn see_to_end(world: &World, run: &Run) {
    if let Ending::Stop { after_msec, .. } = run.plan.ending {
        tokio::time::sleep(Duration::from_millis(after_msec)).await;
        run.wait_for_words(world).await;
        let request = StopRequest { job: run.id.clone(), signal: String::new(), grace_msec: Some(500) };
        let call = |mut client: crate::Client| {
            let request = request.clone();
            async move { client.stop(request).await }
        };
        let what = format!("stop {}", run.id);
        if let Some(answer) = world.persist(&what, call).await {
            run.check_verdict(world, &answer.into_inner().job.expect("Stop answers with a job"));
        }
    }
    let call = |mut client: crate::Client| async move {
        let request = WaitRequest { job: run.id.clone() };
        match tokio::time::timeout(PATIENCE, client.wait(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(tonic::Status::deadline_exceeded("a job that does not end")),
        }
    };
    if let Some(answer) = world.persist(&format!("wait {}", run.id), call).await {
        let job = answer.into_inner().job.expect("Wait answers with a job");
        run.check_verdict(world, &job);
        run.check_group(world, &job);
        let cause = job.outcome.map(|outcome| outcome.cause()).unwrap_or_default();
        let told_lost = cause == Cause::Lost && world.was_shim_killed(&run.id);
        let mut figures = world.figures();
        figures.told_lost_jobs += u64::from(told_lost);
        *figures.causes.entry(cause.as_str_name()).or_default() += 1;
    }
}

impl Run {
    /// A stop that came before the job could make itself deaf would prove nothing.
    async fn wait_for_words(&self, world: &World) {
        let started = Instant::now();
        while read_ledger(&self.ledger).is_none() && !world.was_shim_killed(&self.id) {
            if started.elapsed() > PATIENCE {
                return world.wrong_answer(&format!("{}: does not write", self.id));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The fewest and the most bytes that a stream's reader has to get.
    pub(super) fn written(&self) -> impl Fn(OutputStream) -> (u64, u64) + '_ {
        let [stdout, stderr] = read_ledger(&self.ledger).unwrap_or_default();
        let Plan { seed, burst, .. } = self.plan;
        let by_itself = self.plan.lines.map(|lines| (lines, lines));
        // A job that is ended may have written on since it last wrote its ledger.
        let lines = by_itself.unwrap_or_else(|| {
            let counted = lines::lines_in(seed, stdout, OutputStream::Stdout)
                + lines::lines_in(seed, stderr, OutputStream::Stderr);
            (counted, counted + burst)
        });
        move |stream| (lines::length(seed, lines.0, stream), lines::length(seed, lines.1, stream))
    }

    pub(super) fn check_verdict(&self, world: &World, job: &Job) {
        let Some(outcome) = &job.outcome else {
            return world.wrong_answer(&format!("{}: an end without an outcome", self.id));
        };
        let killed = world.was_shim_killed(&self.id);
        let lost = outcome.cause() == Cause::Lost;
        if killed == lost && (lost || self.plan.fits(outcome)) {
            return;
        }
        let mut figures = world.figures();
        if lost {
            figures.failures.lost_jobs += 1;
        } else {
            figures.failures.wrong_verdicts += 1;
        }
        figures.note(format!(
            "{}: {outcome:?}; the plan: {:?}, shim killed: {killed}",
            self.id, self.plan.ending
        ));
    }

    /// Whoever is told of the end finds the group gone.
    fn check_group(&self, world: &World, job: &Job) {
        if !job.cgroup.is_empty() && PathBuf::from(&job.cgroup).exists() {
            let mut figures = world.figures();
            figures.failures.left_groups += 1;
            figures.note(format!("{}: {} outlives its job", self.id, job.cgroup));
        }
    }
}
