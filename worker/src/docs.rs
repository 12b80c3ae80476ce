//! Man pages and shell completions, made from the command line's own definition for the package.
//!
//! `NAME docs FOLDER` is no command of the command line: those who build the package use it, and completions are not
//! to offer it.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Command;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

/// The section of the manual for daemons and what administers a host (man(1)).
const SECTION: &str = "8";

/// The folder to write into, where these arguments ask for that and nothing else.
pub(crate) fn asked(mut args: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let asked = args.nth(1).is_some_and(|word| word == "docs");
    let (folder, rest) = (args.next(), args.next());
    folder.filter(|_| asked && rest.is_none()).map(PathBuf::from)
}

/// Writes a man page for each command, and completions for bash, fish and zsh, into an existing
/// folder.
///
/// # Errors
/// When a file can't be written.
pub(crate) fn write(dir: &Path, command: Command) -> anyhow::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut command, &name, dir)
            .with_context(|| format!("can't write completions for {shell} into {}", dir.display()))?;
    }
    command.build();
    write_pages(dir, &command)
}

fn write_pages(dir: &Path, command: &Command) -> anyhow::Result<()> {
    let page = Man::new(command.clone()).section(SECTION);
    let path = dir.join(page.get_filename());
    let written = File::create(&path).and_then(|mut file| page.render(&mut file));
    written.with_context(|| format!("can't write the man page {}", path.display()))?;
    for command in command.get_subcommands() {
        write_pages(dir, command)?;
    }
    Ok(())
}
