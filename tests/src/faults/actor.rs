//! The job's side: `faults job SEED LINES BURST PAUSE_USEC ENDING LEDGER`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{ExitCode, exit};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, raise};

use super::lines::{line, stream};
use crate::api::OutputStream;

/// Far above the limit of a job that is to reach it.
const HOG_MIB: usize = 256;

/// Where a job keeps count of the bytes that the kernel took from it: stdout's, stderr's.
struct Ledger {
    file: File,
    taken: [u64; 2],
}

/// Writes, and ends as told.
///
/// # Errors
/// When a stream or the ledger can't be written, or the ledger is there already: the job was started twice then.
///
/// # Panics
/// When the arguments are not those of a plan.
pub fn job(args: &[&str]) -> io::Result<ExitCode> {
    let [seed, lines, burst, pause_usec, ending, ledger] = args else { panic!("not a plan: {args:?}") };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    if *ending == "deaf" {
        // Blocked for good is ignored, without a handler.
        SigSet::from(Signal::SIGTERM).thread_block()?;
    }
    write_lines(
        number(seed),
        number(lines),
        number(burst),
        Duration::from_micros(number(pause_usec)),
        Path::new(ledger),
    )?;
    match ending.split_once(':') {
        Some(("exit", code)) => exit(code.parse().expect("an exit code")),
        Some(("signal", signal)) => {
            raise(Signal::try_from(signal.parse::<i32>().expect("a number")).expect("a signal"))?;
        }
        _ => hog(),
    }
    Ok(ExitCode::FAILURE)
}

fn write_lines(seed: u64, lines: u64, burst: u64, pause: Duration, ledger: &Path) -> io::Result<()> {
    let mut streams = [
        File::from(io::stdout().as_fd().try_clone_to_owned()?),
        File::from(io::stderr().as_fd().try_clone_to_owned()?),
    ];
    let mut ledger = Ledger::create(ledger)?;
    for number in 0..lines {
        let line = line(seed, number);
        let which = usize::from(stream(number) == OutputStream::Stderr);
        streams[which].write_all(&line)?;
        ledger.taken[which] += line.len() as u64;
        if (number + 1).is_multiple_of(burst) {
            ledger.write()?;
            thread::sleep(pause);
        }
    }
    ledger.write()
}

/// Takes memory, page by page.
fn hog() {
    let mut held = Vec::new();
    for _ in 0..HOG_MIB {
        held.push(vec![1u8; 1 << 20]);
    }
    drop(held);
}

impl Ledger {
    fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Self { file, taken: [0; 2] })
    }

    fn write(&self) -> io::Result<()> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.taken[0].to_le_bytes());
        bytes[8..].copy_from_slice(&self.taken[1].to_le_bytes());
        self.file.write_all_at(&bytes, 0)
    }
}

/// What a job's ledger says: bytes of stdout and of stderr. None while there is none.
pub(super) fn read_ledger(path: &Path) -> Option<[u64; 2]> {
    let bytes: [u8; 16] = std::fs::read(path).ok()?.try_into().ok()?;
    let (stdout, stderr) = bytes.split_at(8);
    Some([stdout, stderr].map(|half| u64::from_le_bytes(half.try_into().expect("eight bytes"))))
}
