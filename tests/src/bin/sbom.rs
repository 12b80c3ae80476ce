//! `scripts/sbom`: the bill of materials of jobworker and jobctl, to stdout.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, ensure};
use jobworker_tests::sbom::{self, PROGRAMS, Sources};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match print(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sbom: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(args: &[String]) -> anyhow::Result<()> {
    let target = match args {
        [] => Vec::new(),
        [flag, triple] if flag == "--target" => vec!["--target", triple],
        _ => anyhow::bail!("usage: sbom [--target TRIPLE]"),
    };
    let linked = cargo(&tree("normal,no-proc-macro", &target))?;
    let built = cargo(&tree("normal,build", &target))?;
    let metadata = cargo(&["metadata", "--locked", "--format-version", "1"])?;
    let metadata = serde_json::from_str(&metadata).context("cargo metadata writes no JSON")?;
    let lock = std::fs::read_to_string("Cargo.lock").context("can't read Cargo.lock")?;
    let bill = sbom::bill(&Sources { linked: &linked, built: &built, metadata: &metadata, lock: &lock })?;
    println!("{bill:#}");
    Ok(())
}

fn tree<'a>(edges: &'a str, target: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["tree", "--locked", "--edges", edges, "--prefix", "depth", "--format", " {p}"];
    args.extend(PROGRAMS.iter().flat_map(|program| ["--package", program]));
    args.extend(target);
    args
}

fn cargo(args: &[&str]) -> anyhow::Result<String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output =
        Command::new(program).args(args).stderr(Stdio::inherit()).output().context("can't run cargo")?;
    ensure!(output.status.success(), "cargo {} failed: {}", args.join(" "), output.status);
    String::from_utf8(output.stdout).context("cargo writes no UTF-8")
}
