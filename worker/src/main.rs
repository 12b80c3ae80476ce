//! The command line of jobworker: which of its processes to be.

mod docs;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use jobworker::config::{self, log};
use jobworker::log::Writing;
use jobworker::policy::command_line as policy;
use jobworker::{certs_status, doctor, serve, spawner};
use jobworker_certs::printable;

/// Runs commands as jobs under limits on this host, for clients over mutual TLS
#[derive(Parser)]
#[command(name = "jobworker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API (the default: `jobworker --listen …` is `jobworker serve --listen …`)
    Serve(Box<config::Options>),
    /// Be the spawner that starts jobs for a worker; `serve` starts one itself where none is given
    Spawner {
        #[command(flatten)]
        args: spawner::Args,
        #[command(flatten)]
        log: log::Settings,
    },
    /// Make and revoke certificates, and tell what ends when
    #[command(subcommand)]
    Certs(certs_status::Command),
    /// Check and explain policies
    #[command(subcommand)]
    Policy(policy::Command),
    /// Check this host for what `serve` with the same options needs: a line each, `ok` or what to do; exit code 1 if
    /// anything fails
    Doctor(Box<doctor::Args>),
}

fn main() -> ExitCode {
    let result = match docs::asked(std::env::args_os()) {
        Some(folder) => docs::write(&folder, Cli::command()).map(|()| ExitCode::SUCCESS),
        None => execute(Cli::parse_from(with_default_command(std::env::args_os())).command),
    };
    let code = match result {
        Ok(code) => code,
        Err(error) => {
            let words = format!("{error:#}");
            let lines: Vec<_> = words.lines().map(printable).collect();
            jobworker::log::say(&format!("jobworker: {}", lines.join("\n")));
            ExitCode::FAILURE
        }
    };
    jobworker::log::close();
    code
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(options) => serve::run(*options)?,
        // Single-threaded, because it forks: no runtime may have been built.
        Command::Spawner { args, log } => {
            log::init(log, Writing::Unthreaded)?;
            spawner::run(&args)?;
        }
        Command::Certs(command) => return certs_status::run(command),
        Command::Policy(command) => return policy::run(command),
        Command::Doctor(args) => return Ok(doctor::run(*args)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts `serve` in front of flags that stand alone.
fn with_default_command(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<_> = args.collect();
    let own = ["-h", "--help", "-V", "--version"];
    let is_flag =
        |arg: &OsString| arg.to_string_lossy().starts_with('-') && !own.iter().any(|own| *own == arg);
    if args.len() == 1 || args.get(1).is_some_and(is_flag) {
        args.insert(1, "serve".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(args: &[&str]) -> String {
        let args = ["jobworker"].iter().chain(args).map(OsString::from);
        with_default_command(args).join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn serve_is_the_default() {
        assert_eq!(completed(&[]), "jobworker serve");
        assert_eq!(completed(&["--listen", "[::]:1"]), "jobworker serve --listen [::]:1");
        for as_is in ["serve", "spawner --socket x", "certs init", "--help", "-V", "help", "sevre"] {
            let args: Vec<_> = as_is.split(' ').collect();
            assert_eq!(completed(&args), format!("jobworker {as_is}"));
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
