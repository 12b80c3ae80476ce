//! Arguments of a command that are only declared once that command is the one that was called: declaring those of all
//! commands took longer than all else that jobctl does before it connects.

use clap::error::Error;
use clap::{ArgMatches, Args, Command, FromArgMatches};

/// What `A` parses.
#[derive(Debug)]
pub(crate) struct Later<A>(pub(crate) A);

impl<A: Args> Args for Later<A> {
    fn augment_args(command: Command) -> Command {
        command.defer(declare::<A>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(declare::<A>)
    }
}

/// The command keeps its own description, because that of `A` is for readers of the code; and the global options, which
/// were there first, stay last in its help.
fn declare<A: Args>(command: Command) -> Command {
    let about = command.get_about().cloned();
    let globals: Vec<_> = command.get_arguments().map(|arg| arg.get_id().clone()).collect();
    let declared = A::augment_args(command);
    let declared = globals.into_iter().fold(declared, |command, id| command.mut_arg(id, |arg| arg));
    match about {
        Some(about) => declared.about(about),
        None => declared,
    }
}

impl<A: Args> FromArgMatches for Later<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        A::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        A::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }

    fn update_from_arg_matches_mut(&mut self, matches: &mut ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches_mut(matches)
    }
}

#[cfg(test)]
mod tests {
    use clap::{Parser, Subcommand};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[arg(long, global = true, help_heading = "Global options")]
        place: Option<String>,
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(Debug, Subcommand)]
    enum Verb {
        /// Fetch one thing
        Fetch(Later<FetchArgs>),
    }

    /// The arguments of `fetch`.
    #[derive(Args, Debug)]
    struct FetchArgs {
        what: String,
        #[arg(long, help_heading = "Limits")]
        limit: Option<u32>,
    }

    #[test]
    fn its_arguments_and_the_global_ones_are_parsed() {
        let line = Line::try_parse_from(["x", "fetch", "--place", "here", "--limit", "3", "it"]);
        let Line { place, verb: Verb::Fetch(Later(args)) } = line.expect("valid");
        assert_eq!((place.as_deref(), args.limit, args.what.as_str()), (Some("here"), Some(3), "it"));
        assert!(Line::try_parse_from(["x", "fetch", "--limit", "many", "it"]).is_err());
        assert!(Line::try_parse_from(["x", "fetch"]).is_err(), "what to fetch");
    }

    #[test]
    fn its_help_is_as_if_it_had_been_declared_at_once() {
        let help = Line::try_parse_from(["x", "fetch", "--help"]).expect_err("help").to_string();
        assert!(help.starts_with("Fetch one thing"), "{help}");
        let at = |heading| help.find(heading).expect(heading);
        assert!(at("Limits:") < at("Global options:"), "{help}");
    }
}
