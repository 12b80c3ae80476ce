//! What the jobs under test do: `actor hog|hog-children|bomb|spin|random|write|ask|attach|flood|lines|trace|threads|attributes|
//! odd …`. Bounded, each of them.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use jobworker_tests::api::OutputStream;
use jobworker_tests::attributes;
use jobworker_tests::faults::lines::{line, stream};
use nix::sys::ptrace;
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

/// As long as anything here lives.
const LIFETIME: Duration = Duration::from_secs(300);

const MIB: usize = 1 << 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["hog", mib] => hog(number(mib)),
        ["hog-children", count, mib] => hog_children(number(count), mib),
        ["bomb"] => bomb(),
        ["spin", seconds, threads] => spin(Duration::from_secs(number(seconds) as u64), number(threads)),
        ["random", bytes, seed] => random(number(bytes), number(seed) as u64),
        ["ask", socket] => ask(socket),
        ["trace", thread] => trace(number(thread)),
        ["threads", count] => threads(number(count)),
        ["attach", socket, count] => attach(socket, number(count)),
        ["flood", socket, count, mib] => flood(socket, number(count), number(mib)),
        ["attributes"] => attributes::show().map(|lines| println!("{}", lines.join("\n"))),
        ["odd", program, args @ ..] => odd(true, program, args),
        ["odd-unprivileged", program, args @ ..] => odd(false, program, args),
        ["store-key", name] => store_key(name),
        ["find-key", name] => find_key(name),
        ["write", "direct", path, bytes] => write(path, number(bytes), libc::O_DIRECT),
        ["lines", seed, count, burst] => {
            lines(number(seed) as u64, number(count) as u64, number(burst) as u64)
        }
        ["write", "buffered", path, bytes] => write(path, number(bytes), 0),
        _ => Err(io::Error::other(format!("actor: unknown part {args:?}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("actor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// Becomes that program, with an odd value of everything that a program inherits.
fn odd(privileged: bool, program: &str, args: &[&str]) -> io::Result<()> {
    attributes::make_odd(privileged)?;
    Err(Command::new(program).args(args).exec())
}

/// Puts a key into the session keyring, says so, and stays.
fn store_key(name: &str) -> io::Result<()> {
    attributes::add_key(&CString::new(name)?, b"secret")?;
    println!("stored");
    thread::sleep(LIFETIME);
    Ok(())
}

/// Looks for a key in the session keyring.
fn find_key(name: &str) -> io::Result<()> {
    let found = if attributes::finds_key(&CString::new(name)?) { "found" } else { "none" };
    println!("{found} in {}", attributes::session_keyring()?);
    Ok(())
}

/// Takes so much memory, page by page, and keeps it.
fn hog(mib: usize) -> io::Result<()> {
    let mut held = Vec::new();
    for _ in 0..mib {
        held.push(vec![1u8; MIB]);
    }
    println!("holding {} MiB", held.len());
    thread::sleep(LIFETIME);
    Ok(())
}

/// The memory is taken by children; this process is small.
fn hog_children(count: usize, mib: &str) -> io::Result<()> {
    let own = std::env::current_exe()?;
    for _ in 0..count {
        Command::new(&own).args(["hog", mib]).spawn()?;
    }
    thread::sleep(LIFETIME);
    Ok(())
}

/// Starts itself over and over, as every copy does.
fn bomb() -> io::Result<()> {
    let own = std::env::current_exe()?;
    let until = Instant::now() + LIFETIME;
    while Instant::now() < until {
        if Command::new(&own).arg("bomb").spawn().is_err() {
            thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Keeps so many threads busy until this process is so old: the loading of the program, which takes CPU time too, is
/// part of that.
fn spin(duration: Duration, threads: usize) -> io::Result<()> {
    let until = Instant::now() + duration.min(LIFETIME).saturating_sub(age()?);
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            thread::spawn(move || {
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().expect("a spinning thread does not panic"));
    Ok(())
}

/// How long ago this process was started: proc_pid_stat(5), field 22, in clock ticks of 10 ms.
fn age() -> io::Result<Duration> {
    let malformed = || io::Error::other("/proc is not as documented");
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").ok_or_else(malformed)?;
    let ticks: u64 = fields.split(' ').nth(19).and_then(|field| field.parse().ok()).ok_or_else(malformed)?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let uptime: f64 = uptime.split(' ').next().and_then(|field| field.parse().ok()).ok_or_else(malformed)?;
    Ok(Duration::from_secs_f64(uptime).saturating_sub(Duration::from_millis(ticks * 10)))
}

/// Random bytes to stdout, in pieces of changing sizes; their SHA-256 to stderr.
fn random(bytes: usize, seed: u64) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let mut hash = Sha256::new();
    let mut state = seed | 1;
    let mut left = bytes;
    while left > 0 {
        let piece = piece(&mut state, left);
        hash.update(&piece);
        stdout.write_all(&piece)?;
        left -= piece.len();
    }
    stdout.flush()?;
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    eprintln!("{digest}");
    Ok(())
}

fn piece(state: &mut u64, at_most: usize) -> Vec<u8> {
    let size = usize::try_from(xorshift(state) % (128 << 10)).unwrap_or(1).clamp(1, at_most);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&xorshift(state).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Writes to a file and has it on the disk before it ends. Says how long that took, in milliseconds.
fn write(path: &str, bytes: usize, flags: i32) -> io::Result<()> {
    const BLOCK: usize = 128 << 10;
    let file: File =
        OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(path)?;
    // O_DIRECT wants the buffer at a multiple of the logical block size.
    let buffer = vec![7u8; BLOCK + 4096];
    let start = buffer.as_ptr().align_offset(4096);
    let block = &buffer[start..start + BLOCK];
    let started = Instant::now();
    for offset in (0..bytes).step_by(BLOCK) {
        file.write_all_at(&block[..BLOCK.min(bytes - offset)], offset as u64)?;
    }
    file.sync_all()?;
    println!("{}", started.elapsed().as_millis());
    Ok(())
}

/// Numbered lines to both streams, so many at a time, with a millisecond between them.
fn lines(seed: u64, count: u64, burst: u64) -> io::Result<()> {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    for number in 0..count {
        let line = line(seed, number);
        match stream(number) {
            OutputStream::Stderr => stderr.write_all(&line)?,
            _ => stdout.write_all(&line)?,
        }
        if number % burst == burst - 1 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    stdout.flush()
}

/// Traces a thread, and never waits for it: it can't even be reaped before this process ends.
fn trace(thread: usize) -> io::Result<()> {
    let thread = Pid::from_raw(i32::try_from(thread).map_err(io::Error::other)?);
    ptrace::seize(thread, ptrace::Options::empty())?;
    println!("tracing {thread}");
    thread::sleep(LIFETIME);
    Ok(())
}

/// Some threads that do nothing.
fn threads(count: usize) -> io::Result<()> {
    for _ in 1..count {
        thread::spawn(|| thread::sleep(LIFETIME));
    }
    println!("running {count} threads");
    thread::sleep(LIFETIME);
    Ok(())
}

/// Attaches to a spawner many times, and stays.
fn attach(socket: &str, count: usize) -> io::Result<()> {
    let mut attached = Vec::new();
    for _ in 0..count {
        let mut connection = UnixStream::connect(socket)?;
        // One that is closed at once was refused, which is what others see.
        let _ = connection.write_all(b"\"attach\"\n");
        attached.push(connection);
    }
    println!("attached {count} times");
    thread::sleep(LIFETIME);
    Ok(())
}

/// Writes to a spawner on many connections at once, and ends no line.
fn flood(socket: &str, count: usize, mib: usize) -> io::Result<()> {
    let mut connections: Vec<(UnixStream, usize)> = Vec::new();
    for _ in 0..count {
        let connection = UnixStream::connect(socket)?;
        connection.set_nonblocking(true)?;
        connections.push((connection, 0));
    }
    let block = vec![b'x'; 64 << 10];
    let until = Instant::now() + Duration::from_secs(90);
    // As much as is taken; one that is closed takes no more.
    while Instant::now() < until && connections.iter().any(|(_, written)| *written < mib * MIB) {
        let mut is_idle = true;
        for (connection, written) in &mut connections {
            match connection.write(&block) {
                Ok(length) => (*written, is_idle) = (*written + length, false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => *written = mib * MIB,
            }
        }
        if is_idle {
            thread::sleep(Duration::from_millis(1));
        }
    }
    println!("flooded");
    thread::sleep(LIFETIME);
    Ok(())
}

/// Says a line from stdin to a unix socket, and shows the line that comes back, if one does.
fn ask(socket: &str) -> io::Result<()> {
    let mut connection = UnixStream::connect(socket)?;
    connection.set_read_timeout(Some(LIFETIME))?;
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line)?;
    connection.write_all(&line)?;
    line.clear();
    BufReader::new(connection).read_until(b'\n', &mut line)?;
    io::stdout().write_all(&line)
}
