//! `jobworker doctor`: what a worker and its spawner with these options would find on this host, a line each.
//!
//! It takes the options and the file of `serve`, changes nothing that lasts, and disturbs neither a worker nor a spawner
//! that runs. What is checked is the list `CHECKS`: a function from a `Subject` to its `Finding`s, added in one line.
//! Everything is tried rather than guessed: each limit is put in force in a group of its own, and a process is born there.
//!
//! No runtime and no thread: a birth shares the memory of this process.

mod audit;
mod birth;
mod ceilings;
mod certificates;
mod cgroup;
mod dates;
mod defaults;
mod finding;
mod holder;
mod kernel;
mod key;
mod limits;
mod policy;
mod port;
mod renewal;
mod scratch;
mod spawner;
mod state;
mod trials;
mod users;

use std::io;
use std::process::ExitCode;

use clap::ValueEnum;

use self::finding::{Finding, Report};
use self::spawner::Neighbour;
use crate::config::{Config, Options};
use crate::tls;

/// `jobworker doctor`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How the findings are written to stdout.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    options: Options,
}

/// The form of the findings.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    /// A line each.
    #[default]
    Text,
    /// One document, for programs.
    Json,
}

/// What is looked at: a configuration, and the spawner that runs under it, where one does.
struct Subject {
    config: Config,
    spawner: Neighbour,
}

/// What can be told of a host without a configuration.
const HOST_CHECKS: &[fn() -> Vec<Finding>] = &[kernel::check, cgroup::check];

/// Everything else, in the order in which it is told.
const CHECKS: &[fn(&Subject) -> Vec<Finding>] = &[
    spawner::check,
    limits::check,
    state::check,
    users::check,
    defaults::check,
    certificates::check,
    policy::check,
    port::check,
    ceilings::check,
    audit::check,
    renewal::check,
];

/// Looks, tells, and says by its exit code whether anything has failed: 1; 0 also where there are warnings.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    // Only the first provider is installed; whoever was faster installed the same library.
    let _ = tls::provider().install_default();
    let mut findings: Vec<Finding> = HOST_CHECKS.iter().flat_map(|check| check()).collect();
    match Config::load(args.options) {
        Ok(config) => {
            let spawner = Neighbour::find(&config);
            let subject = Subject { config, spawner };
            findings.extend(CHECKS.iter().flat_map(|check| check(&subject)));
        }
        Err(error) => findings.push(unusable(&error.into())),
    }
    let report = Report(findings);
    let written = match args.output {
        Output::Text => report.write_text(&mut io::stdout().lock()),
        Output::Json => report.write_json(&mut io::stdout().lock()),
    };
    match written {
        // Whoever reads has seen enough; the exit code tells the rest.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("jobworker: can't write to stdout: {error}");
            ExitCode::FAILURE
        }
        _ if report.has_failed() => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn unusable(error: &anyhow::Error) -> Finding {
    let remedy = "mend that; spawner, limits, certificates and port are looked at then";
    Finding::fail("configuration", format!("{error:#}"), remedy)
}
