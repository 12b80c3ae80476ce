//! Capture: a job that writes blocks of 64 KiB as fast as they are taken, against a pipe with a thread behind it that writes
//! to a file.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::Settings;
use super::clock::{process_cpu, thread_cpu};
use super::line::{Bound, Figure, Line, Unit};
use super::parts::{self, BLOCK_BYTES};
use super::stats::{Summary, interleave};
use super::subject::Subject;
use crate::Client;

/// CPU seconds of the product's processes.
#[derive(Default)]
struct Cpu {
    shim: Vec<f64>,
    worker: Vec<f64>,
}

pub(super) fn capture(settings: Settings) -> anyhow::Result<Vec<Line>> {
    let bytes = settings.bytes(1 << 29);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
    let gb = bytes as f64 / 1e9;
    let subject = Subject::new(settings)?;
    let mut client = subject.connect()?;
    let folder = tempfile::tempdir_in(subject.worker.state().path())?;
    let socket = folder.path().join("control");
    let listener = UnixListener::bind(&socket)?;
    let (cpu, floor_cpu) = (RefCell::new(Cpu::default()), RefCell::new(Vec::new()));
    let [own, floor] = interleave(
        settings.rounds(8),
        [
            &mut || {
                let (took, shim, worker) = by_job(&subject, &mut client, &listener, &socket, bytes)?;
                cpu.borrow_mut().shim.push(shim.as_secs_f64() / gb);
                cpu.borrow_mut().worker.push(worker.as_secs_f64() / gb);
                Ok(gb / took.as_secs_f64())
            },
            &mut || {
                let file = folder.path().join("floor");
                let (took, cpu) = by_thread(&listener, &socket, &file, bytes)?;
                floor_cpu.borrow_mut().push(cpu.as_secs_f64() / gb);
                Ok(gb / took.as_secs_f64())
            },
        ],
    )?;
    let Cpu { shim, worker } = cpu.into_inner();
    let cpu = |name: &str, samples: &[f64]| {
        let summary = Summary::of(&samples[1..]).context("samples")?;
        Ok::<_, anyhow::Error>(Figure::new(name, Unit::CpuSecPerGb, summary))
    };
    let speed = |name: &str, summary| Figure::new(name, Unit::GbPerSec, summary);
    let floor = speed("pipe, read and write", floor);
    let floor_cpu = cpu("thread", &floor_cpu.into_inner())?;
    Ok(vec![
        Line::new("capture", "capture, a job that writes 64 KiB blocks", speed("shim", own), Some(floor))
            .goal(Bound::AtLeast(0.8)),
        Line::new("capture", "capture: CPU of the shim", cpu("shim", &shim)?, None).goal(Bound::AtMost(0.5)),
        Line::new("capture", "capture: the same beside the floor's", cpu("shim", &shim)?, Some(floor_cpu)),
        // A clock's reading is no zero; a thousandth of what the shim may take is.
        Line::new("capture", "capture: CPU of the worker", cpu("worker", &worker)?, None)
            .goal(Bound::AtMost(0.0005)),
    ])
}

/// How long the job's writes took, and the CPU time of its shim and of the worker meanwhile.
fn by_job(
    subject: &Subject,
    client: &mut Client,
    listener: &UnixListener,
    socket: &Path,
    bytes: u64,
) -> anyhow::Result<(Duration, Duration, Duration)> {
    let socket = socket.to_str().context("a path in UTF-8")?;
    let job = subject.start(client, parts::spec(&["blocks", &bytes.to_string(), socket])?)?;
    let (mut control, _) = listener.accept()?;
    let shims = subject.shims();
    ensure!(shims.len() == 1, "one shim, not {shims:?}");
    // What the start itself has set off ends first.
    thread::sleep(Duration::from_millis(20));
    let (shim, worker) = (process_cpu(shims[0])?, process_cpu(subject.worker.pid())?);
    let took = let_write(&mut control)?;
    let worker = process_cpu(subject.worker.pid())?.saturating_sub(worker);
    // The last of it may still be in the pipe.
    subject.wait_for_output(client, &job, bytes)?;
    let shim = process_cpu(shims[0])?.saturating_sub(shim);
    control.write_all(&[0])?;
    subject.wait(client, &job)?;
    subject.settle(0)?;
    // Nothing is written back while others are measured.
    let folder = subject.worker.jobs_dir().join(&job.id);
    File::options().write(true).open(folder.join("output"))?.set_len(0)?;
    Ok((took, shim, worker))
}

/// How long the same program's writes took, and the CPU time of the thread that took them.
fn by_thread(
    listener: &UnixListener,
    socket: &Path,
    file: &Path,
    bytes: u64,
) -> anyhow::Result<(Duration, Duration)> {
    let mut command = parts::command(&["blocks", &bytes.to_string()])?;
    let mut process = command.arg(socket).stdout(Stdio::piped()).spawn()?;
    let mut pipe = process.stdout.take().context("a pipe")?;
    let mut file = File::create(file)?;
    let taker = thread::spawn(move || {
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            match pipe.read(&mut block)? {
                0 => break,
                length => file.write_all(&block[..length])?,
            }
        }
        let used = thread_cpu();
        file.set_len(0)?;
        Ok::<_, anyhow::Error>(used)
    });
    let (mut control, _) = listener.accept()?;
    let took = let_write(&mut control)?;
    control.write_all(&[0])?;
    process.wait()?;
    let cpu = taker.join().map_err(|_| anyhow::anyhow!("the floor's thread panicked"))??;
    Ok((took, cpu))
}

/// Gives the word, and hears how long it took.
fn let_write(control: &mut UnixStream) -> anyhow::Result<Duration> {
    control.set_read_timeout(Some(Duration::from_secs(120)))?;
    control.write_all(&[0])?;
    let mut nsec = [0; 8];
    control.read_exact(&mut nsec).context("the writer's answer")?;
    Ok(Duration::from_nanos(u64::from_le_bytes(nsec)))
}
