//! The log: to stderr, as lines for people or as JSON, one event a line.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use clap::builder::PossibleValue;
use jobworker_certs::{visible, visible_json};
use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::audit;
use crate::log::limit::Limited;
use crate::log::{self, Writing};

/// How the log is written.
#[derive(clap::Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How the log is written to stderr.
    #[arg(long = "log-format", value_name = "FORMAT", env = "JOBWORKER_LOG_FORMAT", default_value = "text")]
    pub format: Format,
    /// The least serious events that are logged.
    #[arg(long = "log-level", value_name = "LEVEL", env = "JOBWORKER_LOG_LEVEL", default_value = "info")]
    pub level: Level,
}

impl Settings {
    /// The flags that say the same to another process of this program.
    pub fn to_args(self) -> [String; 2] {
        let name = |value: Option<PossibleValue>| value.map(|v| v.get_name().to_owned()).unwrap_or_default();
        [
            format!("--log-format={}", name(self.format.to_possible_value())),
            format!("--log-level={}", name(self.level.to_possible_value())),
        ]
    }
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object, its fields beside `timestamp`, `level`, `target` and `message`.
    Json,
}

/// How serious an event is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// Writes each event, which comes whole, with the texts of others in it made visible.
struct Escaped<W> {
    writer: W,
    escape: fn(&str) -> Cow<'_, str>,
}

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(event) {
            Ok(text) if !text.is_ascii() => self.writer.write_all((self.escape)(text).as_bytes())?,
            _ => self.writer.write_all(event)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Begins to log. Once per process.
///
/// # Errors
/// When there is no thread to be had for it.
pub fn init(settings: Settings, writing: Writing) -> io::Result<()> {
    let level = LevelFilter::from(settings.level);
    // Of the libraries below, only what an operator has to know.
    let filter = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_target(audit::TARGET, LevelFilter::INFO);
    let escape = match settings.format {
        Format::Text => visible,
        Format::Json => visible_json,
    };
    let lines = log::begin(writing, settings.format)?;
    let layer = fmt::layer().with_writer(move || Escaped { writer: lines, escape });
    let layer = match settings.format {
        Format::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    registry().with(layer.with_filter(Limited::new(filter))).init();
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        tracing::error!(thread = name, "{panic}");
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_hides_nothing() {
        let mut written = Vec::new();
        for (escape, event) in [
            (visible as fn(&str) -> Cow<'_, str>, "\u{1b}[32mINFO\u{1b}[0m by=x\u{202e}y, grün\n"),
            (visible_json, "{\"by\":\"x\u{202e}y\"}\n"),
        ] {
            let mut writer = Escaped { writer: &mut written, escape };
            writer.write_all(event.as_bytes()).unwrap();
        }
        let expected = "\u{1b}[32mINFO\u{1b}[0m by=x\\u{202e}y, grün\n{\"by\":\"x\\u202ey\"}\n";
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }
}
