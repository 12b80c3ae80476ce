//! A line of the table: a figure of the product's, what it is held against, and how far it should get.

use std::fmt;

use super::stats::Summary;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds.
    Usec,
    /// Milliseconds.
    Msec,
    /// So many in a second.
    PerSec,
    /// 10⁹ bytes in a second.
    GbPerSec,
    /// Seconds of CPU time for 10⁹ bytes.
    CpuSecPerGb,
    /// 1024 bytes.
    Kib,
    /// 1024 × 1024 bytes.
    Mib,
    /// Nothing but a number.
    Count,
}

impl Unit {
    const ALL: [Self; 8] = [
        Self::Usec,
        Self::Msec,
        Self::PerSec,
        Self::GbPerSec,
        Self::CpuSecPerGb,
        Self::Kib,
        Self::Mib,
        Self::Count,
    ];

    /// As it is written behind a number.
    pub fn name(self) -> &'static str {
        match self {
            Self::Usec => "µs",
            Self::Msec => "ms",
            Self::PerSec => "/s",
            Self::GbPerSec => "GB/s",
            Self::CpuSecPerGb => "CPU s/GB",
            Self::Kib => "KiB",
            Self::Mib => "MiB",
            Self::Count => "",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name)
    }
}

/// What was measured of one party.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Which party.
    pub name: String,
    /// Of what.
    pub unit: Unit,
    /// How much.
    pub summary: Summary,
}

impl Figure {
    pub(super) fn new(name: &str, unit: Unit, summary: Summary) -> Self {
        Self { name: name.to_owned(), unit, summary }
    }

    /// Of a quantity that is counted, not sampled.
    pub(super) fn counted(name: &str, unit: Unit, value: f64) -> Self {
        Self::new(name, unit, Summary { median: value, p99: value, samples: 1 })
    }
}

/// How far a value should get.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Less is better.
    AtMost(f64),
    /// More is better.
    AtLeast(f64),
}

impl Bound {
    /// Whether a value is as good.
    pub fn admits(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    /// The share of what is allowed that a value takes: above 1 is too much, however it is counted.
    pub fn share(self, value: f64) -> f64 {
        match self {
            // Nothing is allowed: all of it, or all too much.
            Self::AtMost(0.0) => value,
            Self::AtMost(most) => value / most,
            Self::AtLeast(least) => least / value,
        }
    }

    /// The number in it.
    pub fn value(self) -> f64 {
        match self {
            Self::AtMost(value) | Self::AtLeast(value) => value,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(value) => write!(f, "≤ {}", number(*value)),
            Self::AtLeast(value) => write!(f, "≥ {}", number(*value)),
        }
    }
}

/// How far something got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Beyond the goal.
    Stretch,
    /// As far as the goal.
    Goal,
    /// Not so far.
    Missed,
    /// There is no goal: for comparison only.
    Shown,
}

impl Verdict {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stretch => "stretch",
            Self::Goal => "goal",
            Self::Missed => "MISSED",
            Self::Shown => "",
        }
    }
}

/// A product's figure and its reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The product's.
    pub product: Figure,
    /// What it is held against; none: a figure that stands for itself.
    pub reference: Option<Figure>,
    /// What is wanted.
    pub goal: Option<Bound>,
    /// What would be better.
    pub stretch: Option<Bound>,
}

impl Measured {
    /// The ratio of the medians, or the median itself where there is no reference.
    pub fn value(&self) -> f64 {
        let own = self.product.summary.median;
        self.reference.as_ref().map_or(own, |reference| own / reference.summary.median)
    }

    /// The value with its unit.
    pub fn text(&self) -> String {
        match self.reference {
            Some(_) => format!("{} ×", number(self.value())),
            None => with_unit(self.value(), self.product.unit),
        }
    }

    /// How far it got.
    pub fn verdict(&self) -> Verdict {
        let reaches = |bound: Option<Bound>| bound.map(|bound| bound.admits(self.value()));
        match (reaches(self.goal), reaches(self.stretch)) {
            (None, _) => Verdict::Shown,
            (Some(false), _) => Verdict::Missed,
            (Some(true), Some(true)) => Verdict::Stretch,
            (Some(true), _) => Verdict::Goal,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Figures.
    Measured(Measured),
    /// It can't be measured on this machine, and why.
    Missing(String),
    /// It should have been measured, and what went wrong.
    Failed(String),
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The row that it belongs to.
    pub row: String,
    /// What is measured.
    pub what: String,
    /// What came of it.
    pub outcome: Outcome,
}

impl Line {
    pub(super) fn new(row: &str, what: &str, product: Figure, reference: Option<Figure>) -> Self {
        let measured = Measured { product, reference, goal: None, stretch: None };
        Self { row: row.to_owned(), what: what.to_owned(), outcome: Outcome::Measured(measured) }
    }

    pub(super) fn missing(row: &str, what: &str, reason: &str) -> Self {
        Self { row: row.to_owned(), what: what.to_owned(), outcome: Outcome::Missing(reason.to_owned()) }
    }

    pub(super) fn failed(row: &str, reason: &str) -> Self {
        Self { row: row.to_owned(), what: "measured".to_owned(), outcome: Outcome::Failed(reason.to_owned()) }
    }

    pub(super) fn goal(mut self, bound: Bound) -> Self {
        if let Outcome::Measured(measured) = &mut self.outcome {
            measured.goal = Some(bound);
        }
        self
    }

    pub(super) fn stretch(mut self, bound: Bound) -> Self {
        if let Outcome::Measured(measured) = &mut self.outcome {
            measured.stretch = Some(bound);
        }
        self
    }

    /// Whether what should have been measured was.
    pub fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, what, outcome } = self;
        write!(f, "{row:<13} {what:<52} ")?;
        let measured = match outcome {
            Outcome::Measured(measured) => measured,
            Outcome::Missing(reason) => return write!(f, "not here: {reason}"),
            Outcome::Failed(reason) => return write!(f, "FAILED: {reason}"),
        };
        let Measured { product, reference, goal, stretch } = measured;
        let reference =
            reference.as_ref().map(|reference| format!("{} {}", reference.name, figure(reference)));
        let bound = |bound: &Option<Bound>| bound.map(|bound| bound.to_string()).unwrap_or_default();
        write!(
            f,
            "{:<28} {:<46} {:>10}  {:<8} {:<8} {}",
            figure(product),
            reference.unwrap_or_default(),
            measured.text(),
            bound(goal),
            bound(stretch),
            measured.verdict().name()
        )
    }
}

/// The heads of the columns.
pub fn heads() -> String {
    format!(
        "{:<13} {:<52} {:<28} {:<46} {:>10}  {:<8} {:<8}",
        "row", "what", "product (p99)", "reference (p99)", "value", "goal", "stretch"
    )
}

fn figure(figure: &Figure) -> String {
    let Figure { unit, summary, .. } = figure;
    let median = with_unit(summary.median, *unit);
    match summary.samples {
        1 => median,
        _ => format!("{median} ({})", number(summary.p99)),
    }
}

fn with_unit(value: f64, unit: Unit) -> String {
    format!("{} {}", number(value), unit.name()).trim_end().to_owned()
}

/// Three digits, or all of those before the point.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        below if below < 0.0005 => 0,
        below if below < 0.995 => 3,
        below if below < 9.95 => 2,
        below if below < 99.5 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(own: f64, reference: f64) -> Measured {
        let figure = |value| Figure::counted("x", Unit::Usec, value);
        let (product, reference) = (figure(own), Some(figure(reference)));
        Measured { product, reference, goal: None, stretch: None }
    }

    #[test]
    fn a_value_is_the_ratio_of_the_medians() {
        assert_eq!(line(30.0, 20.0).text(), "1.50 ×");
        let alone = Measured { reference: None, ..line(30.0, 20.0) };
        assert_eq!(alone.text(), "30.0 µs");
    }

    #[test]
    fn the_verdict_follows_goal_and_stretch() {
        let cases = [
            (Bound::AtMost(2.0), Bound::AtMost(1.5), [Verdict::Stretch, Verdict::Goal, Verdict::Missed]),
            (Bound::AtLeast(0.6), Bound::AtLeast(0.9), [Verdict::Missed, Verdict::Goal, Verdict::Stretch]),
        ];
        for (goal, stretch, verdicts) in cases {
            let scale = if matches!(goal, Bound::AtMost(_)) { [1.5, 2.0, 2.01] } else { [0.59, 0.6, 0.9] };
            for (value, verdict) in scale.into_iter().zip(verdicts) {
                let measured = Measured { goal: Some(goal), stretch: Some(stretch), ..line(value, 1.0) };
                assert_eq!(measured.verdict(), verdict, "{value} {goal}");
            }
        }
        assert_eq!(line(1.0, 1.0).verdict(), Verdict::Shown);
    }

    #[test]
    fn a_share_above_one_is_a_goal_missed() {
        let bounds = [Bound::AtMost(2.0), Bound::AtLeast(2.0), Bound::AtMost(0.0)];
        for bound in bounds {
            for value in [0.0, 1.0, 2.0, 3.0] {
                let is_missed = bound.share(value) > 1.0 || (bound == Bound::AtMost(0.0) && value > 0.0);
                assert_eq!(is_missed, !bound.admits(value), "{value} {bound}");
            }
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.0, 0.0321, 0.66, 1.2345, 12.345, 123.45, 12345.6].map(number);
        assert_eq!(texts, ["0", "0.032", "0.660", "1.23", "12.3", "123", "12346"]);
    }
}
