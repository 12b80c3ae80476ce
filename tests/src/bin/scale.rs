//! `scripts/scale`: what many jobs, much output and many clients cost.

use std::process::ExitCode;

use anyhow::{Context, bail};
use jobworker_tests::scale::{self, Options};

const USAGE: &str = "usage: scale [--jobs N] [--runs K] [--stream-mib M] [--clients C]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match options(&args).and_then(measure) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn measure(options: Options) -> anyhow::Result<()> {
    eprintln!("scale: {options:?}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(scale::run(options))?;
    print!("{figures}");
    println!("{}", figures.json());
    Ok(())
}

fn options(args: &[String]) -> anyhow::Result<Options> {
    let mut options = Options { jobs: 10_000, runs: 2_000, stream_bytes: 512 << 20, clients: 8 };
    let (pairs, rest) = args.as_chunks::<2>();
    if let [odd] = rest {
        bail!("{odd} needs a value; {USAGE}");
    }
    for [name, value] in pairs {
        let number: usize = value.parse().with_context(|| format!("{name} {value}: a number is needed"))?;
        match name.as_str() {
            "--jobs" => options.jobs = number,
            "--runs" => options.runs = number,
            "--stream-mib" => options.stream_bytes = number << 20,
            "--clients" => options.clients = number,
            _ => bail!("unknown option {name}; {USAGE}"),
        }
    }
    Ok(options)
}
