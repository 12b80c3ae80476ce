//! A run as JSON, for programs and for the chart of several runs.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::line::{Bound, Figure, Line, Measured, Outcome, Unit};
use super::machine::Machine;
use super::stats::Summary;

/// What was measured, and on what.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The machine, as it was when the run began.
    pub machine: Machine,
    /// The lines.
    pub lines: Vec<Line>,
}

impl Run {
    /// As text.
    pub fn to_json(&self) -> String {
        let Machine { processor, processors, kernel, load } = &self.machine;
        let machine =
            json!({ "processor": processor, "processors": processors, "kernel": kernel, "load": load });
        let run = json!({ "machine": machine, "lines": self.lines.iter().map(line).collect::<Vec<_>>() });
        format!("{run:#}\n")
    }

    /// From the text that [`Self::to_json`] makes.
    ///
    /// # Errors
    /// When it is another text.
    pub fn from_json(text: &str) -> anyhow::Result<Self> {
        let run: Value = serde_json::from_str(text)?;
        let machine = &run["machine"];
        let processors = machine["processors"].as_u64().context("machine.processors")?;
        let machine = Machine {
            processor: string(machine, "processor")?,
            processors: usize::try_from(processors)?,
            kernel: string(machine, "kernel")?,
            load: string(machine, "load")?,
        };
        let lines =
            run["lines"].as_array().context("lines")?.iter().map(read_line).collect::<Result<_, _>>()?;
        Ok(Self { machine, lines })
    }
}

fn line(line: &Line) -> Value {
    let mut value = json!({ "row": line.row, "what": line.what });
    match &line.outcome {
        Outcome::Missing(reason) => value["missing"] = json!(reason),
        Outcome::Failed(reason) => value["failed"] = json!(reason),
        Outcome::Measured(measured) => {
            value["product"] = figure(&measured.product);
            value["reference"] = measured.reference.as_ref().map_or(Value::Null, figure);
            value["value"] = json!(measured.value());
            value["goal"] = bound(measured.goal);
            value["stretch"] = bound(measured.stretch);
            value["verdict"] = json!(measured.verdict().name());
        }
    }
    value
}

fn figure(figure: &Figure) -> Value {
    let Figure { name, unit, summary: Summary { median, p99, samples } } = figure;
    json!({ "name": name, "unit": unit.name(), "median": median, "p99": p99, "samples": samples })
}

fn bound(bound: Option<Bound>) -> Value {
    match bound {
        None => Value::Null,
        Some(Bound::AtMost(value)) => json!({ "at_most": value }),
        Some(Bound::AtLeast(value)) => json!({ "at_least": value }),
    }
}

fn read_line(line: &Value) -> anyhow::Result<Line> {
    let outcome = if let Some(reason) = line["missing"].as_str() {
        Outcome::Missing(reason.to_owned())
    } else if let Some(reason) = line["failed"].as_str() {
        Outcome::Failed(reason.to_owned())
    } else {
        let reference = Some(&line["reference"]).filter(|reference| !reference.is_null());
        Outcome::Measured(Measured {
            product: read_figure(&line["product"])?,
            reference: reference.map(read_figure).transpose()?,
            goal: read_bound(&line["goal"])?,
            stretch: read_bound(&line["stretch"])?,
        })
    };
    Ok(Line { row: string(line, "row")?, what: string(line, "what")?, outcome })
}

fn read_figure(figure: &Value) -> anyhow::Result<Figure> {
    let unit = string(figure, "unit")?;
    let unit = Unit::of_name(&unit).with_context(|| format!("unknown unit {unit:?}"))?;
    let samples = usize::try_from(figure["samples"].as_u64().context("samples")?)?;
    let summary = Summary { median: float(figure, "median")?, p99: float(figure, "p99")?, samples };
    Ok(Figure { name: string(figure, "name")?, unit, summary })
}

fn read_bound(bound: &Value) -> anyhow::Result<Option<Bound>> {
    if bound.is_null() {
        return Ok(None);
    }
    match (bound["at_most"].as_f64(), bound["at_least"].as_f64()) {
        (Some(value), None) => Ok(Some(Bound::AtMost(value))),
        (None, Some(value)) => Ok(Some(Bound::AtLeast(value))),
        _ => bail!("no bound: {bound}"),
    }
}

fn string(value: &Value, name: &str) -> anyhow::Result<String> {
    value[name].as_str().map(str::to_owned).with_context(|| format!("{name} is not a text: {value}"))
}

fn float(value: &Value, name: &str) -> anyhow::Result<f64> {
    value[name].as_f64().with_context(|| format!("{name} is not a number: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_as_it_was_written() {
        let summary = Summary { median: 1.5, p99: 9.25, samples: 100 };
        let figure = |name| Figure::new(name, Unit::Usec, summary);
        let measured = Line::new("start", "Start", figure("Start"), Some(figure("bare")));
        let alone = Line::new("capture", "speed", figure("shim"), None).goal(Bound::AtLeast(0.8));
        let machine =
            Machine { processor: "P".into(), processors: 2, kernel: "6.1".into(), load: "0.5".into() };
        let lines = vec![
            measured.goal(Bound::AtMost(2.0)).stretch(Bound::AtMost(1.5)),
            alone,
            Line::missing("bomb", "stop", "no cgroups"),
            Line::failed("kill", "it broke"),
        ];
        let run = Run { machine, lines };
        assert_eq!(Run::from_json(&run.to_json()).expect("its own text"), run);
    }

    #[test]
    fn another_text_is_refused() {
        for text in
            ["", "{}", r#"{"machine":{"processor":"","processors":1,"kernel":"","load":""},"lines":[{}]}"#]
        {
            assert!(Run::from_json(text).is_err(), "{text}");
        }
    }
}
