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
mod files;
mod follow;
mod gather;
mod input;
mod interrupts;
mod later;
mod notes;
mod outcome;
mod own;
mod own_fault;
mod pair;
mod pem;
mod printer;
mod reconnect;
mod render;
mod resolve;
mod spec;
mod stdio;
mod tls;
mod tls_error;
mod worker_verifier;

use std::io::{self, IsTerminal, Write};
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
    let code = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
        .map(|runtime| {
            let code = runtime.block_on(async {
                let outcome = Box::pin(commands::execute(cli)).await;
                let code = outcome.unwrap_or_else(|error| fail(verb, &error));
                // Here and not below: an interrupt ends this, too.
                notes::written().await;
                code
            });
            // Nothing is left to be done, and the kernel takes it all down at once.
            std::mem::forget(runtime);
            code
        });
    code.unwrap_or_else(|error| fail_and_wait(verb, &error))
}

fn fail(verb: Verb, error: &anyhow::Error) -> u8 {
    render::note(&format!("{error:#}"));
    exit::of_failure(verb, error)
}

/// Without an event loop.
fn fail_and_wait(verb: Verb, error: &anyhow::Error) -> u8 {
    let code = fail(verb, error);
    notes::wait_until_written();
    code
}

fn write_docs(folder: &Path) -> u8 {
    let Err(error) = docs::write(folder, Cli::command()) else { return exit::SUCCESS };
    fail_and_wait(Verb::Plain, &error)
}

/// Prints what clap has to say: help and version (no failure), or what is wrong with the command line.
fn refuse(usage: &clap::Error) -> u8 {
    let text = usage.render();
    let in_color =
        |terminal| if render::suits_color(terminal) { text.ansi().to_string() } else { text.to_string() };
    if !usage.use_stderr() {
        return match render::out(&in_color(io::stdout().is_terminal())) {
            Ok(()) => exit::SUCCESS,
            Err(error) => fail_and_wait(Verb::Plain, &error),
        };
    }
    // A closed stderr changes nothing about the answer.
    let _ = stdio::stderr()
        .and_then(|mut stderr| stderr.write_all(in_color(io::stderr().is_terminal()).as_bytes()));
    // What can be made out in spite of the error.
    let matches = Cli::command().ignore_errors(true).try_get_matches();
    match matches.as_ref().ok().and_then(clap::ArgMatches::subcommand_name) {
        Some(Command::RUN | Command::WAIT) => exit::of_usage(Verb::JobsCode),
        _ => exit::of_usage(Verb::Plain),
    }
}
