//! `scripts/faults`: the fault harness, and the job that it runs.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use jobworker_tests::faults::{self, Options};

const USAGE: &str = "usage: faults [--minutes N] [--seed S] [--jobs N] [--followers N] [--controllers] [--clock] \
    [--disk DIR] [--older JOBWORKER]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["job", job @ ..] => faults::actor::job(job).map_err(anyhow::Error::from),
        args => options(args).and_then(harm),
    };
    done.unwrap_or_else(|error| {
        // Without its backtrace: bad input is normal input.
        let words: Vec<String> = error.chain().map(ToString::to_string).collect();
        eprintln!("faults: {}", words.join(": "));
        ExitCode::from(2)
    })
}

fn harm(options: Options) -> anyhow::Result<ExitCode> {
    eprintln!("faults: {options:?}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(faults::run(options))?;
    print!("{figures}");
    println!("{}", figures.json());
    Ok(if figures.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options(args: &[&str]) -> anyhow::Result<Options> {
    let mut options = Options {
        duration: Duration::from_secs(60),
        seed: 1,
        jobs: 20,
        followers: 40,
        controllers: false,
        disk: None,
        clock: false,
        older: None,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--controllers" => options.controllers = true,
            "--clock" => options.clock = true,
            _ => {
                let value = args.next().with_context(|| format!("{arg} needs a value; {USAGE}"))?;
                set(&mut options, arg, value)?;
            }
        }
    }
    if options.jobs == 0 {
        bail!("--jobs 0: at least one; {USAGE}");
    }
    Ok(options)
}

fn set(options: &mut Options, arg: &str, value: &str) -> anyhow::Result<()> {
    let wrong = || format!("{arg} {value}: a number is needed; {USAGE}");
    match arg {
        "--minutes" => {
            let minutes: f64 = value.parse().with_context(wrong)?;
            options.duration = Duration::try_from_secs_f64(minutes * 60.0).with_context(wrong)?;
        }
        "--seed" => options.seed = value.parse().with_context(wrong)?,
        "--jobs" => options.jobs = value.parse().with_context(wrong)?,
        "--followers" => options.followers = value.parse().with_context(wrong)?,
        "--disk" => options.disk = Some(value.into()),
        "--older" => options.older = Some(value.into()),
        _ => bail!("unknown option {arg}; {USAGE}"),
    }
    Ok(())
}
