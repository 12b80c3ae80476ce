//! From a job's write to its arrival at a follower, against a pipe between two processes. Both write the time, by turns, at
//! the same machine's clock.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;

use anyhow::{Context, ensure};

use super::Settings;
use super::clock::monotonic_nsec;
use super::line::{Bound, Figure, Line, Unit};
use super::parts;
use super::stats::Summary;
use super::subject::Subject;
use crate::api::stream_response::Event;
use crate::client::everything;

/// Between two writes of each, in microseconds; the two are half of that apart.
const PERIOD_USEC: u64 = 20_000;

/// What comes first is for the caches.
const WARM_UP: usize = 5;

pub(super) fn latency(settings: Settings) -> anyhow::Result<Vec<Line>> {
    let count = (settings.rounds(500) + WARM_UP).to_string();
    let period = PERIOD_USEC.to_string();
    let phase = (PERIOD_USEC * 1000 / 2).to_string();
    let subject = Subject::new(settings)?;
    let mut client = subject.connect()?;
    let job = subject.start(&mut client, parts::spec(&["stamps", &count, &period, "0"])?)?;
    let mut pipe = parts::command(&["stamps", &count, &period, &phase])?.stdout(Stdio::piped()).spawn()?;
    let stdout = pipe.stdout.take().context("a pipe")?;
    let floor = thread::spawn(move || {
        let lines = BufReader::with_capacity(64, stdout).lines();
        lines.map(|line| age_usec(line?.as_bytes())).collect::<anyhow::Result<Vec<f64>>>()
    });
    let own = subject.runtime.block_on(async {
        let mut stream = client.stream(everything(&job.id)).await?.into_inner();
        let mut ages = Vec::new();
        while let Some(message) = stream.message().await? {
            if let Some(Event::Chunk(chunk)) = message.event {
                // Only the last one has just arrived.
                let line = chunk.data.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
                ages.push(age_usec(line.unwrap_or_default())?);
            }
        }
        Ok::<_, anyhow::Error>(ages)
    })?;
    let floor = floor.join().map_err(|_| anyhow::anyhow!("the pipe's reader panicked"))??;
    pipe.wait()?;
    ensure!(own.len().min(floor.len()) > WARM_UP, "too little came: {} and {}", own.len(), floor.len());
    let figure = |name: &str, ages: &[f64]| {
        let summary = Summary::of(&ages[WARM_UP..]).expect("checked above");
        Figure::new(name, Unit::Usec, summary)
    };
    let line = Line::new(
        "latency",
        "write() → received by a follower",
        figure("Stream", &own),
        Some(figure("pipe", &floor)),
    );
    Ok(vec![line.goal(Bound::AtMost(6.0)).stretch(Bound::AtMost(4.0))])
}

/// How long ago a stamp was made.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53 ns")]
fn age_usec(stamp: &[u8]) -> anyhow::Result<f64> {
    let now = monotonic_nsec();
    let stamp: u64 = std::str::from_utf8(stamp)?.trim().parse().context("a stamp")?;
    Ok(now.saturating_sub(stamp) as f64 / 1e3)
}
