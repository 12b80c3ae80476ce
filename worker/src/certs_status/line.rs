//! One certificate or list, and how all of them are written.

use std::path::Path;

use jobworker_certs::printable;
use serde::Serialize;

use crate::identity::utc;

const DAY_SEC: i64 = 86_400;

/// From so many days before its end on, it is time for another one.
const SOON_DAYS: i64 = 30;

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    /// It ends within 30 days.
    Soon,
    Expired,
    Revoked,
}

/// How the key beside a certificate stands to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Key {
    Matches,
    Differs,
    /// It can't be told, for this reason.
    Unknown(String),
}

/// What is told of one.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    file: String,
    what: String,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    /// `None` of a list that does not say when it is to be replaced.
    not_after: Option<String>,
    pub(super) not_after_unix_sec: Option<i64>,
    /// Whole days, fewer than none once it has ended.
    days_left: Option<i64>,
    pub(super) state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Key>,
}

impl State {
    /// Of what ends with that second; both in seconds since the Unix epoch.
    pub(super) fn of(end: Option<i64>, now: i64) -> Self {
        match end.map(|end| end.saturating_sub(now)) {
            Some(..0) => Self::Expired,
            Some(left_sec) if left_sec <= SOON_DAYS * DAY_SEC => Self::Soon,
            _ => Self::Ok,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Soon => "soon",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl Line {
    #[expect(clippy::too_many_arguments, reason = "a line's columns, each once")]
    pub(super) fn new(
        path: &Path,
        what: String,
        subject: &str,
        role: Option<String>,
        end: Option<i64>,
        now: i64,
        state: State,
        key: Option<Key>,
    ) -> Self {
        Self {
            file: path.display().to_string(),
            what,
            subject: subject.to_owned(),
            role,
            not_after: end.map(utc),
            not_after_unix_sec: end,
            days_left: end.map(|end| end.saturating_sub(now).div_euclid(DAY_SEC)),
            state,
            key,
        }
    }

    pub(super) fn has_wrong_key(&self) -> bool {
        self.key == Some(Key::Differs)
    }

    fn columns(&self) -> [String; 6] {
        let key = match &self.key {
            None => "-".to_owned(),
            Some(Key::Matches) => "matches".to_owned(),
            Some(Key::Differs) => "DOES NOT MATCH".to_owned(),
            Some(Key::Unknown(reason)) => format!("can't be told: {reason}"),
        };
        let or_never = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let days = or_never(self.days_left.map(|days| days.to_string()));
        let not_after = or_never(self.not_after.clone());
        [self.file.clone(), self.what.clone(), not_after, days, self.state.word().to_owned(), key]
            // Whatever a name holds, it makes no line of its own and moves no cursor.
            .map(|text| printable(&text).into_owned())
    }
}

/// Lines of columns under their names.
pub(super) fn table(lines: &[Line]) -> String {
    let names = ["FILE", "WHAT", "NOT AFTER", "DAYS LEFT", "STATE", "KEY"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(names).chain(lines.iter().map(Line::columns)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soon_begins_thirty_days_before_and_the_last_second_counts() {
        let now = 1_900_000_000;
        for (left_sec, expected) in [
            (30 * DAY_SEC + 1, State::Ok),
            (30 * DAY_SEC, State::Soon),
            (0, State::Soon),
            (-1, State::Expired),
        ] {
            assert_eq!(State::of(Some(now + left_sec), now), expected, "{left_sec}");
        }
        assert_eq!(State::of(None, now), State::Ok);
        let days = |left_sec| {
            let what = "CA x".to_owned();
            Line::new(Path::new("x"), what, "x", None, Some(now + left_sec), now, State::Ok, None).days_left
        };
        assert_eq!((days(0), days(DAY_SEC - 1), days(-1)), (Some(0), Some(0), Some(-1)));
    }

    #[test]
    fn a_name_makes_no_line_of_its_own() {
        let line = |what: &str| {
            Line::new(
                Path::new("/x.pem"),
                what.to_owned(),
                "",
                None,
                None,
                0,
                State::Revoked,
                Some(Key::Differs),
            )
        };
        let text = table(&[line("client a\nexpired \u{1b}[2J"), line("client b")]);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains(r"client a\nexpired \u{1b}[2J  -"), "{text}");
        assert!(text.ends_with("revoked  DOES NOT MATCH\n"), "{text}");
    }
}
