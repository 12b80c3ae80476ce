//! `jobworker policy`: what a policy comes to, without a worker.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::Policy;
pub use super::explain::Question;

/// What can be asked of a policy.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a policy, and say what each role may do; exits with 1 when it is not right
    Check {
        /// The policy (TOML).
        file: PathBuf,
    },
    /// Say what a policy would decide, and by which line; exits with 1 when it would deny
    Explain(Box<Question>),
}

/// Answers on stdout; what probably was not meant goes to stderr.
///
/// # Errors
/// When the policy can't be read or is not right.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check { file } => {
            let policy = Policy::read(&file)?;
            for warning in policy.warnings_of_file(&file) {
                eprintln!("warning: {warning}");
            }
            print!("{}", policy.summary());
            Ok(ExitCode::SUCCESS)
        }
        Command::Explain(question) => {
            let policy = question.file.as_deref().map_or_else(|| Ok(Policy::built_in()), Policy::read)?;
            let answer = question.answer(&policy);
            print!("{answer}");
            Ok(if answer.is_allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
