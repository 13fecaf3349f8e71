//! `enlist diff`: what `apply` would change, field by field. Writes nothing.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::{Change, Target, documents, refuse};
use crate::cli::args::{Common, FlagSettings};
use crate::cli::exit::{Exit, Fault};
use crate::cli::output;
use crate::telemetry;

/// Show what apply would change, field by field (exit code 1 if anything)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File or directory of documents; - reads stdin; may be given several times
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<String>,
}

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    let (documents, places) = documents(&args.files)?;
    if documents.is_empty() {
        return Err(Fault::Usage("there is no document in what was given".into()).into());
    }
    let target = Target::open(&loaded, &documents).await?;
    let (steps, _) = target.steps(&documents).await?;
    refuse(&steps, &documents, &places)?;
    let mut exit = Exit::Ok;
    for step in steps.iter().filter(|step| step.change != Change::None) {
        exit = Exit::Differs;
        output::line(format_args!("{} {}", step.kind, step.name))?;
        for line in difference(step.stored.as_deref().unwrap_or_default(), &step.value) {
            output::line(line)?;
        }
    }
    Ok(exit)
}

/// The fields that differ between two stored forms: what is stored with `-`, what is wanted with `+`.
fn difference(stored: &str, wanted: &str) -> Vec<String> {
    // What is stored by hand may be anything: then every field of it is missing.
    let fields = |text: &str| serde_json::from_str::<Map<String, Json>>(text).unwrap_or_default();
    let (stored, wanted) = (fields(stored), fields(wanted));
    let names: BTreeSet<&String> = stored.keys().chain(wanted.keys()).collect();
    let differing = names.into_iter().filter(|name| stored.get(*name) != wanted.get(*name) && *name != "v");
    let line = |sign: char, name: &str, value: Option<&Json>| value.map(|value| format!("{sign} {name}: {value}"));
    differing.flat_map(|name| [line('-', name, stored.get(name)), line('+', name, wanted.get(name))]).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_differ_are_shown_before_and_after() {
        let check = |stored: &str, wanted: &str, expected: &[&str]| assert_eq!(difference(stored, wanted), expected);
        check(
            r#"{"v":1,"hold":"10m","name":"eu"}"#,
            r#"{"v":1,"hold":"1h","name":"eu"}"#,
            &["- hold: \"10m\"", "+ hold: \"1h\""],
        );
        check("", r#"{"v":1,"name":"eu"}"#, &["+ name: \"eu\""]);
        check(r#"{"name":"eu","selctor":"x"}"#, r#"{"name":"eu"}"#, &["- selctor: \"x\""]);
        check("not JSON", r#"{"cidrs":["10.0.0.0/8"]}"#, &["+ cidrs: [\"10.0.0.0/8\"]"]);
    }
}
