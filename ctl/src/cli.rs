//! The command line: what clap parses. Each command's own arguments stand beside the command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::address::Address;
use crate::commands::cert::CertArgs;
use crate::commands::remove::RemoveArgs;
use crate::commands::signal::SignalArgs;
use crate::commands::stop::StopArgs;
use crate::commands::stream::StreamArgs;
use crate::commands::wait::WaitArgs;
use crate::commands::{JobRef, run::RunArgs, start::StartArgs};
use crate::exit::Verb;
use crate::later::Later;

/// Run commands as jobs on a Linux host, under limits, and follow their output.
#[derive(Debug, Parser)]
#[command(name = "jobctl", version, max_term_width = 110, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
A JOB is an id or the beginning of one that fits one job only.

Exit codes of run and wait:
  the job's own, or 128+N when signal N ended it (137 also when it was out of memory)
  124  the job timed out
  125  jobctl or the worker failed
  126  the command can't be executed
  127  the command was not found
and of run alone:
  141  nobody reads the output any more (run … | head); the job is stopped
  130  left by a second Ctrl-C or SIGTERM; the worker was asked to stop the job
  129  left by SIGHUP, 131 by Ctrl-\\ (SIGQUIT); the job goes on
Of the other commands: 0 done, 1 failed, 2 wrong usage.";

const RUN_HELP: &str = "\
Signals:
  Ctrl-C, SIGTERM   the job is stopped and its output shown to the end;
                    another one, more than 500 ms later, leaves it (130)
  SIGHUP, Ctrl-\\    leave the job, which goes on (129, 131)
Whoever leaves is told the job's id and how to go on. If nobody reads the
output any more (run … | head), the job is stopped (141). The other exit codes
are in jobctl --help.";

/// Options of every command. Each is taken from the flag, else from the environment, else from the context.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Where the worker listens [default: the context's, else 127.0.0.1:50051]
    #[arg(long, global = true, env = "JOBCTL_ADDRESS", value_name = "HOST:PORT", hide_env_values = true)]
    pub(crate) address: Option<Address>,
    /// The CA that the worker's certificate is checked against (PEM)
    #[arg(long, global = true, env = "JOBCTL_CA", value_name = "FILE", hide_env_values = true)]
    pub(crate) ca: Option<PathBuf>,
    /// Lists of revoked certificates of those CAs (PEM); a worker whose certificate one of them has is not trusted;
    /// repeatable [default: none: no certificate is revoked]
    #[arg(
        long,
        global = true,
        env = "JOBCTL_CRL",
        value_name = "FILE",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) crl: Option<Vec<PathBuf>>,
    /// Your certificate (PEM)
    #[arg(long, global = true, env = "JOBCTL_CERT", value_name = "FILE", hide_env_values = true)]
    pub(crate) cert: Option<PathBuf>,
    /// The key of your certificate (PEM)
    #[arg(long, global = true, env = "JOBCTL_KEY", value_name = "FILE", hide_env_values = true)]
    pub(crate) key: Option<PathBuf>,
    /// The context in the configuration file to take the above from [default: the file's `current`]
    #[arg(long, global = true, env = "JOBCTL_CONTEXT", value_name = "NAME", hide_env_values = true)]
    pub(crate) context: Option<String>,
    /// How jobs are shown: for people, or as JSON (run and stream give the job's output either way)
    #[arg(long, global = true, env = "JOBCTL_OUTPUT", value_enum, default_value_t, hide_env_values = true)]
    pub(crate) output: Format,
    /// Whether list shows states in colour
    #[arg(long, global = true, env = "JOBCTL_COLOR", value_enum, default_value_t, hide_env_values = true)]
    pub(crate) color: Color,
}

/// How jobs are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a job and print its id
    Start(Later<StartArgs>),
    /// Start a job, show its output and exit with its code; Ctrl-C stops the job, Ctrl-\ leaves it alone. The job gets no
    /// stdin
    #[command(after_help = RUN_HELP)]
    Run(Later<RunArgs>),
    /// End a job with all its processes and print how it ended
    Stop(Later<StopArgs>),
    /// Show what is known of a job
    Status(Later<JobRef>),
    /// Show a job's output from the first byte, and follow it to the end
    #[command(visible_alias = "logs")]
    Stream(Later<StreamArgs>),
    /// List the jobs
    List,
    /// Wait until a job has ended and exit with its code
    Wait(Later<WaitArgs>),
    /// Send a signal to a running job
    Signal(Later<SignalArgs>),
    /// Remove ended jobs with their output, for good, and print their ids
    Remove(Later<RemoveArgs>),
    /// Your certificate: ask for one, see how long it lasts, renew it
    Cert(Later<CertArgs>),
}

impl Command {
    /// The names of the commands that exit with the job's code.
    pub(crate) const RUN: &str = "run";
    pub(crate) const WAIT: &str = "wait";

    pub(crate) fn verb(&self) -> Verb {
        match self {
            Self::Run(_) | Self::Wait(_) => Verb::JobsCode,
            _ => Verb::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_with_the_jobs_code_are_named_as_clap_names_them() {
        for (name, args) in [(Command::RUN, ["run", "true"]), (Command::WAIT, ["wait", "1234"])] {
            let cli = Cli::try_parse_from(["jobctl"].into_iter().chain(args)).expect(name);
            assert_eq!(cli.command.verb(), Verb::JobsCode);
            assert!(Cli::command().find_subcommand(name).is_some());
        }
    }
}
