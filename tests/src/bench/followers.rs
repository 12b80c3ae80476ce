//! A thousand followers of a silent job: what memory each takes of the worker, and what CPU time it takes to wake them all.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tonic::Streaming;

use super::Settings;
use super::clock::process_cpu;
use super::line::{Bound, Figure, Line, Unit};
use super::stats::Summary;
use super::subject::Subject;
use crate::Client;
use crate::api::stream_response::Event;
use crate::api::{SignalRequest, StreamResponse};
use crate::client::{everything, shell};

/// How many follow.
const FOLLOWERS: usize = 1000;

/// How many of them share a connection, where they do.
const SHARED_BY: usize = 20;

/// Writes a line for each SIGHUP.
const TALKER: &str =
    "trap 'echo woken' HUP; echo up; while :; do sleep 1000 & wait $!; kill $!; done 2>/dev/null";

/// A follower with its connection.
type Follower = (Client, Streaming<StreamResponse>);

pub(super) fn followers(settings: Settings) -> anyhow::Result<Vec<Line>> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise the limit on open files")?;
    let [own, wake] = measure(settings, 1)?;
    let [shared, shared_wake] = measure(settings, SHARED_BY)?;
    let kib = |summary| Figure::new("worker", Unit::Kib, summary);
    let usec = |summary| Figure::new("worker", Unit::Usec, summary);
    let line = |what, figure, most| Line::new("followers", what, figure, None).goal(Bound::AtMost(most));
    Ok(vec![
        line("an idle follower on its own connection: memory", kib(own), 40.0),
        line("an idle follower, 20 on a connection: memory", kib(shared), 10.0),
        line("a follower's wake, own connection: CPU", usec(wake), 25.0),
        line("a follower's wake, 20 on a connection: CPU", usec(shared_wake), 25.0),
    ])
}

/// Memory of the worker for each follower, and CPU time of the worker for each follower's wake.
fn measure(settings: Settings, shared_by: usize) -> anyhow::Result<[Summary; 2]> {
    let subject = Subject::with(settings, &["--max-followers", "2000"], &[])?;
    let mut client = subject.connect()?;
    let job = subject.start(&mut client, shell(TALKER))?;
    subject.wait_for_output(&mut client, &job, 3)?;
    // What is made once, for the first.
    let warm = follow(&subject, &job.id, 50, shared_by)?;
    drop(warm);
    let before = rested(&subject)?;
    let mut followers = follow(&subject, &job.id, FOLLOWERS, shared_by)?;
    let each = (rested(&subject)? - before) / f64::from(u32::try_from(FOLLOWERS)?);
    let mut wakes = Vec::new();
    for _ in 0..settings.rounds(10) {
        let cpu = process_cpu(subject.worker.pid())?;
        let signal = SignalRequest { job: job.id.clone(), signal: "HUP".to_owned(), all: false };
        subject.runtime.block_on(client.signal(signal))?;
        subject.runtime.block_on(all_hear(&mut followers))?;
        let used = process_cpu(subject.worker.pid())?.saturating_sub(cpu);
        wakes.push(used.as_secs_f64() * 1e6 / f64::from(u32::try_from(FOLLOWERS)?));
    }
    drop(followers);
    let each = Summary { median: each, p99: each, samples: 1 };
    Ok([each, Summary::of(&wakes).context("samples")?])
}

fn follow(subject: &Subject, job: &str, count: usize, shared_by: usize) -> anyhow::Result<Vec<Follower>> {
    let mut followers = Vec::with_capacity(count);
    let mut connection = None;
    for index in 0..count {
        if index % shared_by == 0 {
            connection = Some(subject.connect()?);
        }
        let mut client = connection.clone().expect("made above");
        let follower = subject.runtime.block_on(async {
            let mut stream = client.stream(everything(job)).await?.into_inner();
            ensure!(stream.message().await?.is_some(), "the stream ended");
            Ok::<_, anyhow::Error>((client, stream))
        })?;
        followers.push(follower);
    }
    Ok(followers)
}

async fn all_hear(followers: &mut [Follower]) -> anyhow::Result<()> {
    for (_, stream) in followers {
        let message = stream.message().await?.context("the stream ended")?;
        ensure!(matches!(message.event, Some(Event::Chunk(_))), "no output: {message:?}");
    }
    Ok(())
}

/// The worker's own memory, in KiB, once its idle threads have gone and it changes no more.
fn rested(subject: &Subject) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut last = (Instant::now(), subject.kib("RssAnon")?);
    while last.0.elapsed() < Duration::from_secs(2) && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(100));
        let now = subject.kib("RssAnon")?;
        if (now - last.1).abs() > 1.0 {
            last = (Instant::now(), now);
        }
    }
    Ok(last.1)
}
