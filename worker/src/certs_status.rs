//! `jobworker certs status`: what ends when, of a folder, of files, or of a worker's configuration; a line each, what ends
//! first in the first. Private keys are compared with their certificates, and never shown.

mod files;
mod line;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use jobworker_certs::RoleOid;

use self::files::Files;
use self::line::{Line, State, table};
use crate::config::{Config, Options};
use crate::tls;

/// `jobworker certs`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What makes something.
    #[command(flatten)]
    Make(jobworker_certs::Command),
    /// Tell which certificates and revocation lists end when, soonest first; exits with 1 where one has expired, is revoked,
    /// or is not its key's
    Status(Args),
}

/// `jobworker certs status`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Files to look at; keys are compared with their certificates
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A folder, as `certs init` makes it: everything in it is looked at
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The worker's configuration, whose files are looked at where neither FILE nor --dir is given [default:
    /// /etc/jobworker/worker.toml]
    #[arg(long, value_name = "FILE", env = "JOBWORKER_CONFIG")]
    config: Option<PathBuf>,
    /// The extension that holds the role [default: the configuration's, else 1.3.6.1.4.1.32473.1.1]
    #[arg(long, value_name = "OID")]
    role_oid: Option<RoleOid>,
    /// How it is written to stdout
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// The form of what is told.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    /// A line each.
    #[default]
    Text,
    /// One document, for programs.
    Json,
}

/// Carries out a command, and says by its exit code how it stands.
///
/// # Errors
/// When a file can't be read or holds something else.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Make(command) => jobworker_certs::run(command).map(|()| ExitCode::SUCCESS),
        Command::Status(args) => status(args),
    }
}

fn status(args: Args) -> anyhow::Result<ExitCode> {
    // Only the first provider is installed; whoever was faster installed the same library.
    let _ = tls::provider().install_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    let (files, role_oid) = chosen(&args)?;
    let mut lines = files.lines(&args.role_oid.unwrap_or(role_oid), now)?;
    lines.sort_by_key(|line| line.not_after_unix_sec.unwrap_or(i64::MAX));
    let text = match args.output {
        Output::Text => table(&lines),
        Output::Json => serde_json::to_string_pretty(&lines).context("can't write JSON")? + "\n",
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(error).context("write to stdout");
        }
        _ => {}
    }
    let is_bad = |line: &Line| matches!(line.state, State::Expired | State::Revoked) || line.has_wrong_key();
    Ok(if lines.iter().any(is_bad) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn chosen(args: &Args) -> anyhow::Result<(Files, RoleOid)> {
    if !args.files.is_empty() || args.dir.is_some() {
        let mut files = Files::given(&args.files);
        if let Some(dir) = &args.dir {
            files.add_folder(dir)?;
        }
        return Ok((files, RoleOid::default()));
    }
    let options = Options { config: args.config.clone(), ..Options::default() };
    let config = Config::load(options)
        .context("no FILE and no --dir is given, and the worker's files are not known")?;
    Ok((Files::of_worker(&config.tls, config.renewal.as_ref()), config.door.role_oid))
}
