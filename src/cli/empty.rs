//! Values of flags and arguments that are empty. They come from shell variables that are not set: with `--endpoints "$E"` taken
//! for "not given", `purge --yes` would delete what is at the default endpoint. Pure.

use std::ffi::OsStr;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// What to say of the first value that was given and is empty, in this command or below it.
pub(super) fn find(command: &Command, matches: &ArgMatches) -> Option<String> {
    let given = |arg: &&Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let is_empty = |arg: &&Arg| matches.get_raw(arg.get_id().as_str()).is_some_and(|mut values| values.any(says_nothing));
    // The words of an agent's child are its own.
    let checked = command.get_arguments().filter(|arg| !arg.is_trailing_var_arg_set() && !arg.is_last_set());
    if let Some(arg) = checked.filter(given).find(is_empty) {
        return Some(format!(
            "the value of {} is empty (a variable of the shell that is not set?): leave it out, or give it a value",
            name(arg)
        ));
    }
    let (below, matches) = matches.subcommand()?;
    find(command.find_subcommand(below)?, matches)
}

fn name(arg: &Arg) -> String {
    match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some(short)) => format!("-{short}"),
        (None, None) => arg.get_id().as_str().to_uppercase(),
    }
}

/// Nothing but spaces and commas.
fn says_nothing(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| text.trim_matches([' ', '\t', '\n', ',']).is_empty())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use std::ffi::OsString;

    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::super::{Cli, parse};
    use super::*;
    use crate::cli::exit::Exit;

    /// Every command, with the words that lead to it and the arguments that it cannot do without.
    fn commands(command: &Command, words: &[String], all: &mut Vec<(Command, Vec<String>)>) {
        let mut words = words.to_vec();
        words.push(command.get_name().to_owned());
        let below: Vec<&Command> = command.get_subcommands().filter(|below| below.get_name() != "help").collect();
        if below.is_empty() {
            let required = command.get_positionals().filter(|arg| arg.is_required_set()).map(sample);
            let words = words.iter().cloned().chain(required).collect();
            all.push((command.clone(), words));
        }
        below.into_iter().for_each(|below| commands(below, &words, all));
    }

    fn sample(arg: &Arg) -> String {
        let known = [("kind", "pool"), ("group", "g"), ("node", "n"), ("name", "x"), ("role", "allocator"), ("file", "x.yaml")];
        let named = known.iter().find(|(id, _)| *id == arg.get_id().as_str()).map(|(_, value)| (*value).to_owned());
        let possible = || arg.get_possible_values().first().map(|value| value.get_name().to_owned());
        named.or_else(possible).unwrap_or_else(|| panic!("an argument without a sample: {arg:?}"))
    }

    fn fault(words: &[String]) -> clap::Error {
        let mut command = Cli::command();
        let matches = command.try_get_matches_from_mut(words);
        let found = matches.and_then(|matches| match find(&command, &matches) {
            Some(words) => Err(command.error(ErrorKind::InvalidValue, words)),
            None => Ok(()),
        });
        found.expect_err(&words.join(" "))
    }

    #[test]
    fn an_empty_value_of_any_flag_of_any_command_is_refused() {
        let mut all = Vec::new();
        let mut root = Cli::command();
        root.build();
        commands(&root, &[], &mut all);
        let mut checked = 0;
        for (command, words) in &all {
            let takes_value = |arg: &&Arg| arg.get_action().takes_values() && arg.get_long().is_some();
            for arg in command.get_arguments().filter(takes_value) {
                for empty in ["", " ", ","] {
                    let flag = format!("--{}", arg.get_long().unwrap());
                    let line = [words.as_slice(), &[flag.clone(), empty.to_owned()]].concat();
                    let said = fault(&line).to_string();
                    assert!(said.contains(&flag), "{line:?}: {said}");
                    checked += 1;
                }
            }
        }
        assert!(all.len() > 12 && checked > 600, "{} commands, {checked} flags", all.len());
        let line = ["enlist", "purge", "--yes", "--endpoints", ""].map(OsString::from);
        assert_eq!(parse(&line).err(), Some(Exit::Usage));
    }

    #[test]
    fn the_words_of_a_child_may_be_empty() {
        let line = ["enlist", "agent", "--id", "a", "--", "echo", ""].map(OsString::from);
        assert!(parse(&line).is_ok());
    }
}
