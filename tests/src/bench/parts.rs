//! What the benchmark's other processes do: `bench part NAME …`. Jobs, and those that the jobs are held against, are the
//! same programs. Bounded, each of them.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::clock::monotonic_nsec;
use super::floor::{self, Birthplace};
use super::raw;

/// As long as anything here lives, in seconds.
const LIFETIME_SEC: u32 = 300;

/// What one `write` hands over, in bytes: what a pipe holds.
pub(super) const BLOCK_BYTES: usize = 64 << 10;

/// Does one of them.
///
/// # Errors
/// When it can't.
pub fn part(args: &[&str]) -> anyhow::Result<()> {
    match args {
        ["fill", bytes] => fill(bytes.parse()?)?,
        ["blocks", bytes, socket] => blocks(bytes.parse()?, Path::new(socket))?,
        ["stamps", count, period_usec, phase_nsec] => {
            stamps(count.parse()?, period_usec.parse()?, phase_nsec.parse()?)?;
        }
        ["late-stamp", msec] => {
            thread::sleep(Duration::from_millis(msec.parse()?));
            stamp()?;
        }
        ["herd", count] => {
            floor::fork_sleepers(count.parse()?, LIFETIME_SEC)?;
            stamp()?;
            sleep();
        }
        ["bomb"] => {
            stamp()?;
            floor::fork_bomb(Instant::now() + Duration::from_secs(60));
        }
        ["big-parent", mib, threads] => big_parent(mib.parse()?, threads.parse()?)?,
        ["raw-server", certificates, file] => raw::serve(Path::new(certificates), Path::new(file))?,
        _ => bail!("unknown part {args:?}"),
    }
    Ok(())
}

/// One of them as a command.
pub(super) fn command(args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("this program's path")?);
    command.arg("part").args(args);
    Ok(command)
}

/// One of them as a job.
pub(super) fn spec(args: &[&str]) -> anyhow::Result<crate::api::JobSpec> {
    let own = std::env::current_exe().context("this program's path")?;
    let own = own.to_str().context("a path in UTF-8")?;
    Ok(crate::client::spec(&[&[own, "part"], args].concat()))
}

fn sleep() {
    thread::sleep(Duration::from_secs(LIFETIME_SEC.into()));
}

/// So many bytes to stdout, as fast as they are taken.
fn fill(mut bytes: u64) -> io::Result<()> {
    let block = [b'x'; BLOCK_BYTES];
    let mut stdout = io::stdout().lock();
    while bytes > 0 {
        let piece = usize::try_from(bytes).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        stdout.write_all(&block[..piece])?;
        bytes -= piece as u64;
    }
    stdout.flush()
}

/// The same, at the word of whoever listens on the socket, who is told how many nanoseconds it took. Ends at the next word.
fn blocks(bytes: u64, socket: &Path) -> io::Result<()> {
    let mut control = UnixStream::connect(socket)?;
    control.set_read_timeout(Some(Duration::from_secs(LIFETIME_SEC.into())))?;
    control.read_exact(&mut [0])?;
    let started = monotonic_nsec();
    fill(bytes)?;
    control.write_all(&(monotonic_nsec() - started).to_le_bytes())?;
    control.read_exact(&mut [0])
}

/// The time, as a line to stdout.
fn stamp() -> io::Result<()> {
    let line = format!("{:020}\n", monotonic_nsec());
    // One write, one event.
    io::stdout().lock().write_all(line.as_bytes())
}

/// A stamp at each full period, and so much later.
fn stamps(count: u32, period_usec: u64, phase_nsec: u64) -> io::Result<()> {
    let period_nsec = period_usec * 1000;
    for _ in 0..count {
        let now = monotonic_nsec();
        let into = (now + period_nsec - phase_nsec % period_nsec) % period_nsec;
        thread::sleep(Duration::from_nanos(period_nsec - into));
        stamp()?;
    }
    Ok(())
}

/// A parent of so much memory and so many threads, which bears a child at each line and tells how many nanoseconds it took.
fn big_parent(mib: usize, threads: usize) -> anyhow::Result<()> {
    let held = vec![1_u8; mib << 20];
    for _ in 0..threads {
        thread::Builder::new().stack_size(64 << 10).spawn(sleep)?;
    }
    let mut bare = Birthplace::of_true();
    for line in io::stdin().lines() {
        line?;
        println!("{}", bare.run()?.as_nanos());
    }
    drop(std::hint::black_box(held));
    Ok(())
}
