//! Streaming of a job's stored output, to one client and to eight: against TLS with nothing above it, and against ssh.

use std::cell::RefCell;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use tokio::runtime::Runtime;

use super::Settings;
use super::clock::process_cpu;
use super::floor::{Birthplace, Program};
use super::line::{Bound, Figure, Line, Unit};
use super::parts;
use super::peers::Ssh;
use super::raw::{self, RawClient, RawServer};
use super::stats::{Summary, interleave};
use super::subject::{self, Subject, connect};
use crate::Client;
use crate::api::stream_response::Event;
use crate::api::{Job, JobSpec};
use crate::client::everything;

const RAW: &str = "raw tokio-rustls";

/// A finished job with output.
struct Written {
    subject: Subject,
    job: Job,
    bytes: u64,
}

impl Written {
    fn new(settings: Settings, bytes: u64) -> anyhow::Result<Self> {
        let subject = Subject::new(settings)?;
        let mut client = subject.connect()?;
        let output_limit = (2 * bytes).max(1 << 20).to_string();
        let spec = JobSpec { output_limit, ..parts::spec(&["fill", &bytes.to_string()])? };
        let job = subject.start(&mut client, spec)?;
        let job = subject.wait(&mut client, &job)?;
        ensure!(job.output_bytes == bytes, "{} of {bytes} bytes are stored", job.output_bytes);
        Ok(Self { subject, job, bytes })
    }

    fn file(&self) -> PathBuf {
        self.subject.worker.jobs_dir().join(&self.job.id).join("output")
    }

    fn gb(&self) -> f64 {
        gb(self.bytes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// Reads a stream to its end and counts.
async fn read(client: &mut Client, job: &str) -> anyhow::Result<u64> {
    let mut stream = client.stream(everything(job)).await?.into_inner();
    let mut bytes = 0;
    while let Some(message) = stream.message().await? {
        match message.event.context("an event")? {
            Event::Chunk(chunk) => bytes += chunk.data.len() as u64,
            Event::Gap(gap) => anyhow::bail!("a gap: {gap:?}"),
            Event::End(_) => return Ok(bytes),
        }
    }
    anyhow::bail!("the stream ended early")
}

/// One client.
pub(super) fn one(settings: Settings) -> anyhow::Result<Vec<Line>> {
    let written = Written::new(settings, settings.bytes(1 << 30))?;
    let (gb, subject) = (written.gb(), &written.subject);
    let mut client = subject.connect()?;
    let server = RawServer::start(&subject.worker.pki, &written.file())?;
    let mut raw_client = subject.runtime.block_on(server.connect(&subject.worker.pki))?;
    let (own_cpu, raw_cpu) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let [own, floor] = interleave(
        settings.rounds(8),
        [
            &mut || {
                let (speed, cpu) = measured(subject.worker.pid(), gb, || {
                    let bytes = subject.runtime.block_on(read(&mut client, &written.job.id))?;
                    ensure!(bytes == written.bytes, "{bytes} bytes came");
                    Ok(())
                })?;
                own_cpu.borrow_mut().push(cpu);
                Ok(speed)
            },
            &mut || {
                let (speed, cpu) = measured(server.pid(), gb, || {
                    subject.runtime.block_on(raw::read(&mut raw_client, written.bytes))
                })?;
                raw_cpu.borrow_mut().push(cpu);
                Ok(speed)
            },
        ],
    )?;
    let cpu = |name: &str, samples: RefCell<Vec<f64>>| {
        let summary = Summary::of(&samples.into_inner()[1..]).context("samples")?;
        Ok::<_, anyhow::Error>(Figure::new(name, Unit::CpuSecPerGb, summary))
    };
    let (own_cpu, raw_cpu) = (cpu("worker", own_cpu)?, cpu(RAW, raw_cpu)?);
    let speed = |name: &str, summary| Figure::new(name, Unit::GbPerSec, summary);
    let mut lines = vec![
        Line::new("stream", "streaming, one client: server CPU", own_cpu, Some(raw_cpu))
            .goal(Bound::AtMost(1.25))
            .stretch(Bound::AtMost(1.1)),
        Line::new(
            "stream",
            "streaming, one client: throughput",
            speed("Stream", own),
            Some(speed(RAW, floor)),
        )
        .goal(Bound::AtLeast(0.75))
        .stretch(Bound::AtLeast(0.85)),
    ];
    lines.push(against_ssh(settings, &written)?);
    Ok(lines)
}

/// What `work` comes to: GB a second, and CPU seconds a GB of the process that serves it.
fn measured(server: u32, gb: f64, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<(f64, f64)> {
    let (cpu, started) = (process_cpu(server)?, Instant::now());
    work()?;
    let (took, used) = (started.elapsed(), process_cpu(server)?.saturating_sub(cpu));
    Ok((gb / took.as_secs_f64(), used.as_secs_f64() / gb))
}

/// `jobctl stream` against `ssh cat`, both to /dev/null. What ssh takes to connect is not held against it.
fn against_ssh(settings: Settings, written: &Written) -> anyhow::Result<Line> {
    const WHAT: &str = "jobctl stream, against ssh aes128-gcm cat";
    let ssh = match Ssh::start() {
        Ok(ssh) => ssh,
        Err(missing) => return Ok(Line::missing("stream", WHAT, &missing)),
    };
    let null = || Ok::<_, anyhow::Error>(File::options().write(true).open("/dev/null")?.into());
    let stream = written.subject.worker.jobctl_as("alice", &["stream", &written.job.id]);
    let mut stream = Birthplace::new(Program::of(&stream)).stdout(null()?);
    let file = written.file();
    let cat = ["cat", file.to_str().context("a path in UTF-8")?];
    let suite = ["-c", "aes128-gcm@openssh.com"];
    let mut copy = Birthplace::new(ssh.program(&suite, &cat)).stdout(null()?);
    let mut connect = Birthplace::new(ssh.program(&suite, &["true"])).stdout(null()?);
    let gb = written.gb();
    let [own, peer] = interleave(
        settings.rounds(5),
        [&mut || Ok(gb / stream.run()?.as_secs_f64()), &mut || {
            let connecting = connect.run()?;
            Ok(gb / copy.run()?.saturating_sub(connecting).as_secs_f64())
        }],
    )?;
    let speed = |name: &str, summary| Figure::new(name, Unit::GbPerSec, summary);
    let line = Line::new("stream", WHAT, speed("jobctl stream", own), Some(speed("ssh", peer)));
    Ok(line.goal(Bound::AtLeast(1.5)))
}

const CLIENTS: usize = 8;

/// Eight clients, and what memory the worker takes for them.
pub(super) fn eight(settings: Settings) -> anyhow::Result<Vec<Line>> {
    // 10 GiB over all.
    let written = Written::new(settings, settings.bytes(10 << 30) / CLIENTS as u64)?;
    let (pki, worker) = (&written.subject.worker.pki, &written.subject.worker);
    let clients_runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clients =
        (0..CLIENTS).map(|_| clients_runtime.block_on(connect(worker))).collect::<Result<Vec<_>, _>>()?;
    let server = RawServer::start(pki, &written.file())?;
    let mut raw_clients =
        clients_runtime.block_on(try_join_all((0..CLIENTS).map(|_| server.connect(pki))))?;
    let total_gb = gb(written.bytes * CLIENTS as u64);
    let mut memory = Memory::default();
    let [own, floor] = interleave(
        settings.rounds(3).min(3),
        [
            &mut || {
                memory.watch(worker.pid(), || {
                    let started = Instant::now();
                    read_by_all(&clients_runtime, &clients, &written)?;
                    Ok(total_gb / started.elapsed().as_secs_f64())
                })
            },
            &mut || {
                let started = Instant::now();
                read_raw_by_all(&clients_runtime, &mut raw_clients, written.bytes)?;
                Ok(total_gb / started.elapsed().as_secs_f64())
            },
        ],
    )?;
    let speed = |name: &str, summary| Figure::new(name, Unit::GbPerSec, summary);
    let mib = |kib: f64| Figure::counted("worker", Unit::Mib, kib / 1024.0);
    let peak = format!("worker's memory, {:.1} GiB to eight clients: peak", total_gb / 1.073_741_824);
    Ok(vec![
        Line::new("stream-8", "streaming, eight clients", speed("Stream", own), Some(speed(RAW, floor)))
            .goal(Bound::AtLeast(0.65))
            .stretch(Bound::AtLeast(0.8)),
        Line::new("stream-8", &peak, mib(memory.peak_kib), None).goal(Bound::AtMost(64.0)),
        Line::new("stream-8", "the same: second half over first half", mib(memory.growth_kib), None),
    ])
}

fn read_by_all(runtime: &Runtime, clients: &[Client], written: &Written) -> anyhow::Result<()> {
    runtime.block_on(async {
        let tasks = clients.iter().map(|client| {
            let (mut client, job, expected) = (client.clone(), written.job.id.clone(), written.bytes);
            tokio::spawn(async move {
                let bytes = read(&mut client, &job).await?;
                ensure!(bytes == expected, "{bytes} bytes came");
                Ok(())
            })
        });
        try_join_all(tasks).await?.into_iter().collect()
    })
}

fn read_raw_by_all(runtime: &Runtime, clients: &mut Vec<RawClient>, bytes: u64) -> anyhow::Result<()> {
    runtime.block_on(async {
        let tasks = clients.drain(..).map(|mut client| {
            tokio::spawn(async move { raw::read(&mut client, bytes).await.map(|()| client) })
        });
        let read: anyhow::Result<Vec<_>> = try_join_all(tasks).await?.into_iter().collect();
        *clients = read?;
        Ok(())
    })
}

/// A process's resident memory while something goes on, the most of all times.
#[derive(Default)]
struct Memory {
    peak_kib: f64,
    growth_kib: f64,
}

impl Memory {
    fn watch<T>(&mut self, pid: u32, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let done = AtomicBool::new(false);
        let (result, samples) = thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let mut samples = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    samples.extend(subject::kib(pid, "VmRSS"));
                    thread::sleep(Duration::from_millis(20));
                }
                samples
            });
            let result = work();
            done.store(true, Ordering::Relaxed);
            (result, watching.join().unwrap_or_default())
        });
        let (first, second) = samples.split_at(samples.len() / 2);
        let most = |samples: &[f64]| samples.iter().copied().fold(0.0, f64::max);
        self.growth_kib = self.growth_kib.max(most(second) - most(first));
        // What the kernel has seen, so that no moment is missed.
        self.peak_kib = subject::kib(pid, "VmHWM")?;
        result
    }
}
