//! What was probably meant by a command line that is none: added to what clap says. Pure.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// A better error for a frequent slip, if it is one.
pub(super) fn hint(error: &clap::Error, command: &Command, words: &[&str]) -> Option<String> {
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let given = text(error, ContextKind::InvalidSubcommand)?;
            let near = nearest(&given, command).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            Some(format!("there is no command {given:?}{near}"))
        }
        ErrorKind::UnknownArgument => {
            let given = text(error, ContextKind::InvalidArg)?;
            let called = called(command, words);
            match (called, given.as_str()) {
                (None, "-o" | "--output" | "-w" | "--watch" | "-l" | "--selector") => {
                    let example =
                        if given.starts_with("-o") || given == "--output" { "get nodes -o json" } else { "get nodes -w" };
                    Some(format!("{given} goes after the command, e.g. enlist {example}"))
                }
                (Some("apply"), file) if !file.starts_with('-') => Some(format!("did you mean enlist apply -f {file}?")),
                _ => None,
            }
        }
        _ => None,
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// The command that is named before the first word that is wrong, if it is. (Values of flags are no commands by accident.)
fn called<'a>(command: &Command, words: &[&'a str]) -> Option<&'a str> {
    let first = words.iter().skip(1).find(|word| !word.starts_with('-'))?;
    let before_flags = words.get(1) == Some(first);
    command.find_subcommand(first).filter(|_| before_flags).map(|_| *first)
}

/// The command that looks most like it, of those that people use.
fn nearest(given: &str, command: &Command) -> Option<String> {
    let names = command.get_subcommands().filter(|command| !command.is_hide_set()).map(Command::get_name);
    let likeness = |name: &str| {
        // Two letters the other way round are one slip.
        let slips = strsim::osa_distance(name, given);
        if slips <= 1 { 1.0 } else { strsim::jaro_winkler(name, given) }
    };
    let best = names.map(|name| (likeness(name), name)).max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 > 0.7).then(|| best.1.to_owned())
}
