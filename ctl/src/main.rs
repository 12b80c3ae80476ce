//! `jobctl`, the command line of jobworker: wiring only. Data goes to stdout, everything else to stderr.

mod address;
mod call_error;
mod cli;
mod client;
mod commands;
mod config;
mod dial;
mod docs;
mod exit;
mod follow;
mod gather;
mod interrupts;
mod later;
mod outcome;
mod own;
mod pair;
mod printer;
mod reconnect;
mod render;
mod resolve;
mod spec;
mod tls;
mod tls_error;

use std::path::Path;

use anyhow::Context;
use clap::{CommandFactory, Parser};

use cli::{Cli, Command};
use exit::Verb;

fn main() {
    let code = match docs::asked(std::env::args_os()) {
        Some(folder) => write_docs(&folder),
        None => Cli::try_parse().map_or_else(|usage| refuse(&usage), execute),
    };
    // At once: a thread may still be blocked in a write to a reader that has stopped reading.
    std::process::exit(code.into());
}

fn execute(cli: Cli) -> u8 {
    let verb = cli.command.verb();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
        .and_then(|runtime| {
            let outcome = runtime.block_on(commands::execute(cli));
            // Nothing is left to be done, and the kernel takes it all down at once.
            std::mem::forget(runtime);
            outcome
        });
    outcome.unwrap_or_else(|error| {
        render::note(&format!("{error:#}"));
        exit::of_failure(verb, &error)
    })
}

fn write_docs(folder: &Path) -> u8 {
    let Err(error) = docs::write(folder, Cli::command()) else { return exit::SUCCESS };
    render::note(&format!("{error:#}"));
    exit::of_failure(Verb::Plain, &error)
}

/// Prints what clap has to say: help and version (no failure), or what is wrong with the command line.
fn refuse(usage: &clap::Error) -> u8 {
    // A closed stderr or stdout changes nothing about the answer.
    let _ = usage.print();
    if !usage.use_stderr() {
        return exit::SUCCESS;
    }
    // What can be made out in spite of the error.
    let matches = Cli::command().ignore_errors(true).try_get_matches();
    match matches.as_ref().ok().and_then(clap::ArgMatches::subcommand_name) {
        Some(Command::RUN | Command::WAIT) => exit::of_usage(Verb::JobsCode),
        _ => exit::of_usage(Verb::Plain),
    }
}
