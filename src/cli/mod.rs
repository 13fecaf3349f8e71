//! The command line: a file per command. The only module that writes stdout (data; talk goes to stderr).
//!
//! It decides nothing about nodes: it reads, asks [`crate::plan`], writes with compares, and shows. Renderers are pure:
//! values in, rows or JSON out. Reading order: `args` and `exit` (what all commands share), `output`, then any command.

#![expect(unreachable_pub, reason = "only `main` is called from outside; within, `pub` is for the sibling commands")]

mod args;
mod empty;
mod exit;
mod hints;
mod output;
mod reload;
mod site;
mod private;
mod content;
mod show;
mod agent;
mod apply;
mod ask;
mod bench;
mod brake;
mod check;
mod delete;
mod describe;
mod dev;
mod explain;
mod leads;
mod get;
mod grants;
mod fit;
mod leave;
mod objects;
mod purge;
mod run;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use args::Common;
use exit::Exit;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ENLIST_BUILD_COMMIT"), ")");

/// Automatic node registration over etcd
#[derive(Debug, Parser)]
#[command(name = "enlist", version = VERSION, max_term_width = 110, propagate_version = false)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Args),
    Agent(Box<agent::Args>),
    Run(run::Args),
    Apply(apply::Args),
    Diff(apply::diff::Args),
    Get(get::Args),
    Describe(describe::Args),
    Explain(explain::Args),
    Delete(delete::Args),
    Leave(leave::Args),
    Reload(ask::ReloadArgs),
    Check(check::Args),
    Brake(brake::Args),
    Grants(grants::Args),
    Purge(purge::Args),
    Bench(bench::Args),
    #[command(hide = true)]
    SampleService(dev::ServiceArgs),
}

/// Runs a command line and answers the exit code.
pub async fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(code) => return code.code(),
    };
    match dispatch(cli).await {
        Ok(exit) => exit.code(),
        Err(error) if exit::is_broken_pipe(&error) => Exit::Ok.code(),
        Err(error) => {
            complain(&error);
            Exit::of(&error).code()
        }
    }
}

/// What is wrong with a command, a document or a setting may take several lines; a text out of a store never does.
fn complain(error: &anyhow::Error) {
    let text = format!("enlist: {error:#}");
    let is_ours =
        |cause: &(dyn std::error::Error + 'static)| cause.is::<exit::Fault>() || cause.is::<crate::config::ConfigError>();
    match error.chain().any(is_ours) {
        true => text.lines().for_each(output::say),
        false => output::say(text),
    }
}

fn parse(arguments: &[OsString]) -> Result<Cli, Exit> {
    if let Some(hint) = etcdctl_habit(arguments) {
        output::say(hint);
        return Err(Exit::Usage);
    }
    let mut command = Cli::command();
    let parsed = command.try_get_matches_from_mut(arguments).and_then(|matches| match empty::find(&command, &matches) {
        Some(words) => Err(command.error(ErrorKind::InvalidValue, words)),
        None => Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command)),
    });
    let words: Vec<&str> = arguments.iter().map_while(|word| word.to_str()).collect();
    parsed.map_err(|error| {
        let hint = hints::hint(&error, &command, &words);
        let error = hint.map_or(error, |hint| command.error(ErrorKind::InvalidSubcommand, hint));
        // Help and version go to stdout, the rest to stderr; a reader that went away is nobody to complain to.
        let _ = error.print();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok,
            _ => Exit::Usage,
        }
    })
}

/// etcdctl's `-w json` is our `-o json`; our `-w` watches. Said before clap takes `json` for a name.
fn etcdctl_habit(arguments: &[OsString]) -> Option<String> {
    const FORMATS: [&str; 5] = ["json", "table", "simple", "fields", "protobuf"];
    let words: Vec<&str> = arguments.iter().map_while(|word| word.to_str()).take_while(|word| *word != "--").collect();
    let format = words.iter().enumerate().find_map(|(at, word)| {
        let next = words.get(at + 1).copied().unwrap_or_default();
        match *word {
            "-w" | "--write-out" => FORMATS.contains(&next).then_some(next),
            other => other.strip_prefix("-w=").or_else(|| other.strip_prefix("--write-out=")),
        }
    })?;
    let ours = if format == "table" { "table" } else { "json" };
    Some(format!("enlist: -w {format} is etcdctl's: did you mean -o {ours}? (-w watches: enlist get nodes -w)"))
}

async fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let common = cli.common;
    match cli.command {
        Command::Dev(args) => dev::run(common, args).await,
        Command::Agent(args) => agent::run(common, *args).await,
        Command::Run(args) => run::run(common, args).await,
        Command::Apply(args) => apply::run(common, args).await,
        Command::Diff(args) => apply::diff::run(common, args).await,
        Command::Get(args) => get::run(common, args).await,
        Command::Describe(args) => describe::run(common, args).await,
        Command::Explain(args) => explain::run(common, args).await,
        Command::Delete(args) => delete::run(common, args).await,
        Command::Leave(args) => leave::run(common, args).await,
        Command::Reload(args) => ask::reload(common, args).await,
        Command::Check(args) => check::run(common, args).await,
        Command::Brake(args) => brake::run(common, args).await,
        Command::Grants(args) => grants::run(common, args).await,
        Command::Purge(args) => purge::run(common, args).await,
        Command::Bench(args) => bench::run(common, args).await,
        Command::SampleService(args) => dev::run_service(args).await,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn etcdctls_habit_gets_a_hint() {
        let hint = |line: &str| etcdctl_habit(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(hint("enlist get nodes -w json").unwrap().contains("did you mean -o json?"));
        assert!(hint("enlist check -w=json").unwrap().contains("did you mean -o json?"));
        assert_eq!(hint("enlist get nodes -w"), None);
        assert_eq!(hint("enlist get nodes -w -o json"), None);
        assert_eq!(hint("enlist agent -- etcdctl -w json"), None);
    }
}
