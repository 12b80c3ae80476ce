//! How things are shown. Data goes to stdout; a reader that has gone (`| head`) is no error.

mod figures;
pub(crate) mod json;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod words;

use std::io::{self, Write};

use anyhow::Context;
use jobworker_proto::v1::Job;

use crate::cli::Format;

/// Shows a job: as JSON, or as `text` says it.
pub(crate) fn job(
    format: Format,
    job: &Job,
    text: impl FnOnce(&Job) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    match format {
        Format::Json => out(&json::job(job)?),
        Format::Text => out(&text(job)?),
    }
}

/// Writes lines of data to stdout; an end of line is added where it is missing.
pub(crate) fn out(text: &str) -> anyhow::Result<()> {
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}{newline}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// Says something to the user, on stderr.
pub(crate) fn note(text: &str) {
    let lines: Vec<_> = text.lines().map(words::printable).collect();
    // There is nobody left to tell when stderr is closed.
    let _ = writeln!(io::stderr(), "jobctl: {}", lines.join("\n"));
}
