//! One thing that was found, and how all of them are written.

use std::fmt::{self, Display};
use std::io::{self, Write};

use jobworker_certs::visible;
use serde::Serialize;

/// How serious it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Jobs run, but something is missing, or will be.
    Warn,
    /// Something that was asked for does not work.
    Fail,
}

/// A line for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// What was looked at: `kernel`, `controller memory`, a file.
    pub(super) subject: String,
    /// What was found.
    pub(super) text: String,
    /// What to do; none where nothing is.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject: subject.into(), text: text.into(), remedy: None }
    }

    pub(super) fn warn(
        subject: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { level: Level::Warn, subject: subject.into(), text: text.into(), remedy }
    }

    pub(super) fn fail(
        subject: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level: Level::Fail, ..Self::warn(subject, text, remedy) }
    }
}

impl Display for Finding {
    /// One line, whatever the operating system or a file name puts into it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        let mut line = format!("{level:<6}{}: {}", self.subject, self.text);
        if let Some(remedy) = &self.remedy {
            line.push_str("; do: ");
            line.push_str(remedy);
        }
        f.write_str(&visible(&line.replace(char::is_control, " ")))
    }
}

/// All that was found.
pub(super) struct Report(pub(super) Vec<Finding>);

impl Report {
    pub(super) fn has_failed(&self) -> bool {
        self.count(Level::Fail) > 0
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    pub(super) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        for finding in &self.0 {
            writeln!(out, "{finding}")?;
        }
        out.flush()
    }

    pub(super) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let document = serde_json::json!({
            "ok": !self.has_failed(),
            "failed": self.count(Level::Fail),
            "warnings": self.count(Level::Warn),
            "findings": self.0,
        });
        writeln!(out, "{document:#}")?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line() {
        let finding = Finding::fail("a\nb", "can't be read", "chmod u+r a\tb");
        assert_eq!(finding.to_string(), "FAIL  a b: can't be read; do: chmod u+r a b");
        assert_eq!(Finding::ok("kernel", "6.1").to_string(), "ok    kernel: 6.1");
    }

    #[test]
    fn only_a_failure_fails() {
        let mut report = Report(vec![Finding::ok("a", "b"), Finding::warn("c", "d", "e")]);
        assert!(!report.has_failed());
        report.0.push(Finding::fail("f", "g", "h"));
        let mut json = Vec::new();
        report.write_json(&mut json).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&json["ok"], &json["failed"], &json["warnings"]), (&false.into(), &1.into(), &1.into()));
        let failed = serde_json::json!({ "level": "fail", "subject": "f", "text": "g", "do": "h" });
        assert_eq!(json["findings"][2], failed);
    }
}
