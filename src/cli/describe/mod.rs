//! `enlist describe`: everything about one object, with what is wrong with it and the keys it lives at.

mod parts;

pub(super) use parts::all_findings;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value as Json;

use super::args::{Common, FlagSettings};
use super::content::{self, Content};
use super::exit::{Exit, Fault};
use super::get::{Kind, parse_kind};
use super::output::{self, Format, Lines};
use super::site;
use crate::config::Loaded;
use crate::telemetry;

/// Everything about one object: what it is, what is wrong with it, the keys it lives at
#[derive(Debug, clap::Args)]
pub struct Args {
    /// node, pool, group or role
    #[arg(value_name = "KIND", value_parser = parse_kind)]
    kind: Kind,
    /// Which
    name: String,
    /// How: table (text), json or yaml
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Everything about one object.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Description {
    /// node, pool, group or role.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What `get -o json` says of it; of a node its description and temporary endpoint as well.
    pub object: Json,
    /// Values that are stored about it, by key (relative to the prefix), as they are.
    pub stored: Vec<StoredKey>,
    /// What is wrong with it.
    pub findings: Vec<FindingLine>,
}

/// A key that an object lives at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredKey {
    /// The whole key, for etcdctl.
    pub key: String,
    /// When it was last written, as a store revision.
    pub revision: i64,
    /// Whether it is on a lease.
    pub leased: bool,
    /// Its value: JSON, or a text if it is none.
    pub value: Json,
    /// The same as it is stored, for people.
    #[serde(skip)]
    pub text: String,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FindingLine {
    /// Its code.
    pub code: String,
    /// The keys concerned, relative to the prefix.
    pub keys: Vec<String>,
    /// What is wrong and what to do.
    pub message: String,
}

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    let description = match args.kind {
        Kind::Node | Kind::Assignment => {
            let (source, manager) = (source(&loaded).await?, manager_if_there(&loaded).await?);
            parts::node(&source, manager.as_ref(), &args.name)
        }
        Kind::Pool => parts::pool(&source(&loaded).await?, &args.name),
        Kind::Claim => parts::claim(&source(&loaded).await?, &args.name),
        Kind::Group | Kind::Member => parts::group(&manager(&loaded).await?, &args.name),
        Kind::Role => parts::role(&source(&loaded).await?, manager_if_there(&loaded).await?.as_ref(), &args.name),
    };
    let missing = || Fault::NotFound(format!("there is no {} {}", args.kind.word(), args.name));
    let description = description.ok_or_else(missing)?;
    match args.output {
        Format::Json => output::print(&output::json(&description)?)?,
        Format::Yaml => output::print(&output::yaml(&description)?)?,
        Format::Name => output::line(format_args!("{} {}", description.kind, description.name))?,
        Format::Table | Format::Wide => output::print(text(&description).as_str())?,
    }
    Ok(Exit::Ok)
}

async fn source(loaded: &Loaded) -> anyhow::Result<Content> {
    let site = site::connect(loaded.source()?).await?;
    content::read(&site, &["brakes", "claims", "leaders", "nodes", "pools", "roles"]).await
}

async fn manager(loaded: &Loaded) -> anyhow::Result<Content> {
    let site = site::connect(loaded.manager()?).await.context("the manager's store")?;
    content::read(&site, &["brakes", "groups", "leaders", "manager", "roles"]).await
}

async fn manager_if_there(loaded: &Loaded) -> anyhow::Result<Option<Content>> {
    match manager(loaded).await {
        Ok(content) => Ok(Some(content)),
        Err(error) if Exit::of(&error) == Exit::Store => {
            output::say(format_args!("enlist: warning: {error:#}; what it holds is not shown"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// For people.
fn text(description: &Description) -> Lines {
    let mut text = Lines::default();
    text.add(format_args!("{} {}", description.kind, description.name));
    fields(&mut text, &description.object, 1);
    text.add(if description.findings.is_empty() { "findings: none" } else { "findings:" });
    for finding in &description.findings {
        text.add(format_args!("  {}: {} ({})", finding.code, finding.message, finding.keys.join(", ")));
    }
    text.add("keys:");
    for stored in &description.stored {
        let lease = if stored.leased { ", on a lease" } else { "" };
        text.add(format_args!("  {} (revision {}{lease})", stored.key, stored.revision));
        text.add(format_args!("    {}", stored.text));
    }
    text
}

/// What people look for first, in this order; the rest follows by name.
const FIRST: [&str; 11] =
    ["id", "name", "role", "group", "description", "phase", "state", "condition", "reason", "message", "leader"];

/// `name: value` lines; what is a map or a list of maps goes one step in.
fn fields(text: &mut Lines, object: &Json, depth: usize) {
    let Json::Object(map) = object else { return };
    let pad = "  ".repeat(depth);
    let width = map.keys().map(String::len).max().unwrap_or_default() + 1;
    let place = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    let mut members: Vec<(&String, &Json)> = map.iter().collect();
    members.sort_by_key(|(name, _)| if depth == 1 { place(name) } else { 0 });
    for (name, value) in members {
        match value {
            Json::Object(inner) if !inner.is_empty() => {
                text.add(format_args!("{pad}{name}:"));
                fields(text, value, depth + 1);
            }
            _ => {
                text.add(format_args!("{pad}{:<width$} {}", format!("{name}:"), plain(value)));
            }
        }
    }
}

fn plain(value: &Json) -> String {
    match value {
        Json::Null => "-".into(),
        Json::String(text) if text.is_empty() => "-".into(),
        Json::String(text) => text.clone(),
        Json::Array(items) if items.is_empty() => "-".into(),
        Json::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Json::Object(_) => "-".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour 84.
    #[test]
    fn no_description_leads_a_terminal_astray() {
        let hostile: String = telemetry::escape::testing::hostile().collect();
        let description = Description {
            kind: "node",
            name: hostile.clone(),
            object: serde_json::json!({"description": hostile, "variables": {hostile.clone(): [hostile.clone()]}}),
            stored: vec![StoredKey { key: hostile.clone(), revision: 1, leased: true, value: Json::Null, text: hostile.clone() }],
            findings: vec![FindingLine { code: "x".into(), keys: vec![hostile.clone()], message: hostile.clone() }],
        };
        let shown = text(&description);
        assert_eq!(shown.as_str().lines().count(), 9, "{shown:?}");
        assert_eq!(shown.as_str().chars().find(|c| *c != '\n' && hostile.contains(*c)), None, "{shown:?}");
    }
}
