//! How things are shown. Data goes to stdout; a reader that has gone (`| head`) is no error, except for an id that is told
//! nowhere else.

mod figures;
pub(crate) mod json;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod words;

use std::env;
use std::io::{self, Write};

use anyhow::{Context, anyhow};
use jobworker_proto::v1::Job;

use crate::cli::Format;
use crate::notes;
use crate::stdio;

/// A job as JSON, or as `text` says it.
///
/// # Errors
/// The worker sent what this jobctl does not understand.
pub(crate) fn job_text(
    format: Format,
    job: &Job,
    text: impl FnOnce(&Job) -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    match format {
        Format::Json => json::job(job),
        Format::Text => text(job),
    }
}

/// Shows a job.
///
/// # Errors
/// As [`job_text`] and [`out`].
pub(crate) fn job(
    format: Format,
    job: &Job,
    text: impl FnOnce(&Job) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    out(&job_text(format, job, text)?)
}

/// Shows how a job ended. That is not lost where stdout can't be written to.
///
/// # Errors
/// As [`job`], with what could not be shown.
pub(crate) fn done(
    format: Format,
    job: &Job,
    text: impl Fn(&Job) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let shown = job_text(format, job, &text)?;
    out(&shown).or_else(|error| Err(anyhow!("{}; {error:#}", text(job)?.trim_end())))
}

/// Writes lines of data to stdout; an end of line is added where it is missing.
///
/// # Errors
/// Of write(2); none where nobody reads any more.
pub(crate) fn out(text: &str) -> anyhow::Result<()> {
    match deliver(text) {
        Err(error) if !stdio::reader_is_gone(&error) => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

/// As [`out`], for what somebody has to read.
///
/// # Errors
/// Of write(2).
pub(crate) fn deliver(text: &str) -> io::Result<()> {
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    stdio::stdout()?.write_all(format!("{text}{newline}").as_bytes())
}

/// Says something to the user, on stderr, without waiting for it to be read.
pub(crate) fn note(text: &str) {
    let lines: Vec<_> = text.lines().map(words::printable).collect();
    notes::say(format!("jobctl: {}\n", lines.join("\n")));
}

/// True if colour suits a stdout or stderr that is a terminal (<https://no-color.org>).
pub(crate) fn suits_color(is_terminal: bool) -> bool {
    let is_unset = |name| env::var_os(name).is_none_or(|value| value.is_empty());
    is_terminal && is_unset("NO_COLOR") && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}
