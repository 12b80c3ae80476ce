//! The project's documents and their code blocks: what a reader copies has to work as it stands.
//!
//! The words behind the three backticks say who proves a block; renderers show nothing of them but the colours of the first.
//!
//! | words | proof |
//! |---|---|
//! | `sh host` | run by the host tests |
//! | `sh vm` | run by the privileged tests, as root in the virtual machine |
//! | `sh package` | run by tests/debian/guest in a Debian with the package, as a user who may sudo |
//! | `sh debian` | run there, without the package |
//! | `sh checkout` | run by scripts/test in the checkout itself |
//! | `toml worker`, `toml policy`, `toml jobctl` | read by the program whose file it is |
//! | `text`, `yaml`, `rust` | none: a picture, another program's file, a sketch |
//!
//! `background` behind one of the first two: the block's last command serves until the next such block, or to the end.

mod reader;

use std::fmt::{self, Display};
use std::str::FromStr;

pub use self::reader::Reader;

/// Every document of the repository with code blocks in it: its path and its text.
pub const ALL: [(&str, &str); 3] = [
    ("README.md", include_str!("../../README.md")),
    ("certs/README.md", CERTS),
    ("worker/debian/README.md", include_str!("../../worker/debian/README.md")),
];

/// The text of certs/README.md.
pub const CERTS: &str = include_str!("../../certs/README.md");

/// Where a shell block is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On any host.
    Host,
    /// In the virtual machine of the privileged tests.
    Vm,
    /// In a Debian with the package.
    Package,
    /// In a Debian without it.
    Debian,
    /// In the checkout.
    Checkout,
}

/// Whose configuration file a TOML block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The worker's.
    Worker,
    /// A policy.
    Policy,
    /// That of jobctl.
    Jobctl,
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Commands to type.
    Shell {
        /// Where they are run.
        place: Place,
        /// The last one does not end by itself.
        is_background: bool,
    },
    /// A configuration file.
    Toml(File),
    /// What nothing here can run.
    Shown,
}

/// The words behind the backticks are none of those above.
#[derive(Debug)]
pub struct Unclassified(String);

impl Display for Unclassified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "```{}: it says not how it is proven; `sh` with host, vm, package, debian or checkout, `toml` with worker, policy \
             or jobctl, or text, yaml, rust",
            self.0
        )
    }
}

impl FromStr for Kind {
    type Err = Unclassified;

    fn from_str(words: &str) -> Result<Self, Unclassified> {
        let shell = |place, is_background| Ok(Self::Shell { place, is_background });
        match words.split(' ').collect::<Vec<_>>().as_slice() {
            ["sh", "host"] => shell(Place::Host, false),
            ["sh", "host", "background"] => shell(Place::Host, true),
            ["sh", "vm"] => shell(Place::Vm, false),
            ["sh", "vm", "background"] => shell(Place::Vm, true),
            ["sh", "package"] => shell(Place::Package, false),
            ["sh", "debian"] => shell(Place::Debian, false),
            ["sh", "checkout"] => shell(Place::Checkout, false),
            ["toml", "worker"] => Ok(Self::Toml(File::Worker)),
            ["toml", "policy"] => Ok(Self::Toml(File::Policy)),
            ["toml", "jobctl"] => Ok(Self::Toml(File::Jobctl)),
            ["text" | "yaml" | "rust"] => Ok(Self::Shown),
            _ => Err(Unclassified(words.to_owned())),
        }
    }
}

/// A code block.
#[derive(Clone, Debug)]
pub struct Block {
    /// The line of its first backticks, from 1.
    pub line: usize,
    /// What it is.
    pub kind: Kind,
    /// What stands in it.
    pub text: String,
}

/// The code blocks of a document, in order.
///
/// # Errors
/// In words with the line, for a block that is of no known kind or has no end.
pub fn blocks(document: &str) -> Result<Vec<Block>, String> {
    let mut lines = document.lines().zip(1..);
    let mut blocks = Vec::new();
    while let Some((fence, line)) = lines.by_ref().find(|(text, _)| is_fence(text)) {
        let words = fence.trim_start().trim_start_matches(['`', '~']);
        let kind = words.parse().map_err(|error| format!("line {line}: {error}"))?;
        let mut text = String::new();
        loop {
            let (next, _) = lines.next().ok_or(format!("line {line}: this block has no end"))?;
            if is_fence(next) {
                break;
            }
            text.push_str(next);
            text.push('\n');
        }
        blocks.push(Block { line, kind, text });
    }
    Ok(blocks)
}

fn is_fence(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("```") || line.starts_with("~~~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_what_stands_behind_their_backticks() {
        let document = "a `b`\n```sh vm background\nx\ny\n```\n- in a list\n  ```toml policy\n  z\n  ```\n";
        let found = blocks(document).unwrap();
        let [shell, toml] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((shell.line, shell.text.as_str()), (2, "x\ny\n"));
        assert_eq!(shell.kind, Kind::Shell { place: Place::Vm, is_background: true });
        assert_eq!((toml.line, toml.kind), (7, Kind::Toml(File::Policy)));
    }

    #[test]
    fn a_block_that_does_not_say_how_it_is_proven_is_an_error() {
        for words in ["", "sh", "bash", "sh somewhere", "toml", "console", "sh package background", "sh  vm"]
        {
            let error = blocks(&format!("\n```{words}\nx\n```\n")).unwrap_err();
            assert!(error.starts_with(&format!("line 2: ```{words}: ")), "{error}");
        }
        assert_eq!(blocks("```sh vm\nx\n").unwrap_err(), "line 1: this block has no end");
    }
}
