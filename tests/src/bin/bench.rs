//! `scripts/bench`: the benchmark, and the processes that it needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use jobworker_tests::bench::json::Run;
use jobworker_tests::bench::line::heads;
use jobworker_tests::bench::{Machine, ROWS, Row, Settings, chart, clean, parts};

const USAGE: &str = "usage: bench [--rows NAME,…] [--quick] [--emulated] [--controllers] [--json FILE] [--svg FILE] [--add FILE]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["part", part @ ..] => parts::part(part).map(|()| ExitCode::SUCCESS),
        args => Options::parse(args).and_then(Options::execute),
    };
    done.unwrap_or_else(|error| {
        // Without its backtrace: bad input is normal input.
        let words: Vec<String> = error.chain().map(ToString::to_string).collect();
        eprintln!("bench: {}", words.join(": "));
        ExitCode::from(2)
    })
}

#[derive(Default)]
struct Options {
    settings: Settings,
    rows: Vec<&'static Row>,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
    add: Vec<PathBuf>,
}

impl Options {
    fn parse(args: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self { rows: ROWS.iter().collect(), ..Self::default() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value; {USAGE}"));
            match *arg {
                "--quick" => options.settings.quick = true,
                "--emulated" => options.settings.emulated = true,
                "--controllers" => options.settings.controllers = true,
                "--rows" => options.rows = rows(value()?)?,
                "--json" => options.json = Some(value()?.into()),
                "--svg" => options.svg = Some(value()?.into()),
                "--add" => options.add.push(value()?.into()),
                _ => bail!("unknown option {arg}; {USAGE}"),
            }
        }
        Ok(options)
    }

    fn execute(self) -> anyhow::Result<ExitCode> {
        let added = self.add.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>()?;
        let run = measure(&self.rows, self.settings);
        if let Some(path) = &self.json {
            fs::write(path, run.to_json()).with_context(|| format!("write {}", path.display()))?;
        }
        let is_failed = run.lines.iter().any(jobworker_tests::bench::Line::is_failed);
        if let Some(path) = &self.svg {
            let mut runs = vec![run];
            runs.extend(added);
            runs.retain(|run| !run.lines.is_empty());
            fs::write(path, chart::draw(&runs)).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(if is_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// The rows named; none: `--rows ''`, for a chart of what was measured before.
fn rows(names: &str) -> anyhow::Result<Vec<&'static Row>> {
    let known = || ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    let row = |name: &str| {
        let row = ROWS.iter().find(|row| row.name == name);
        row.with_context(|| format!("--rows {name}: no such row; there are {}", known()))
    };
    names.split(',').filter(|name| !name.is_empty()).map(row).collect()
}

fn read(path: &Path) -> anyhow::Result<Run> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Run::from_json(&text).with_context(|| format!("{} is not what --json writes", path.display()))
}

fn measure(rows: &[&Row], settings: Settings) -> Run {
    let machine = Machine::now();
    if !rows.is_empty() {
        let Machine { processor, processors, kernel, load } = &machine;
        println!("{processors} × {processor}, Linux {kernel}, load {load}\n{}", heads());
    }
    let mut lines = Vec::new();
    for row in rows {
        let measured = row.measure(settings);
        measured.iter().for_each(|line| println!("{line}"));
        lines.extend(measured);
    }
    clean();
    if !rows.is_empty() {
        println!("load at the end: {}", Machine::now().load);
    }
    Run { machine, lines }
}
