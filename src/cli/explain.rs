//! `enlist explain`: why a node has what it has, or waits; why a node is in a group, or is not. The planner's and the
//! selector's own steps, told; nothing is decided here.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde::Serialize;

use super::args::{Common, FlagSettings};
use super::content::{self, stored};
use super::exit::{Exit, Fault};
use super::output::{self, Format};
use super::site;
use crate::config::Loaded;
use crate::model::group::{Group, GroupKey};
use crate::model::label::Label;
use crate::model::names::NodeId;
use crate::plan::explain::{Explanation, Verdict, explain};
use crate::store::keys::NodePart;
use crate::telemetry;

/// Why a node has its address, or waits; why it is in a group, or is not
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// How
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Format,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Why this pool and these addresses, or why it waits
    Node {
        /// Which
        node: NodeId,
    },
    /// Requirement by requirement, with the value seen
    Group {
        /// Which, e.g. web or web/zone=eu-1
        group: GroupKey,
        /// For which node
        #[arg(long)]
        node: NodeId,
    },
}

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    if matches!(args.output, Format::Name | Format::Wide) {
        return Err(Fault::Usage("explain has -o table, json or yaml: an explanation is not a list of names".into()).into());
    }
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    match args.what {
        What::Node { node } => explain_node(&loaded, &node, args.output).await,
        What::Group { group, node } => explain_group(&loaded, &group, &node, args.output).await,
    }
}

async fn explain_node(loaded: &Loaded, node: &NodeId, format: Format) -> anyhow::Result<Exit> {
    let source = site::connect(loaded.source()?).await?;
    let snapshot = content::read(&source, &["nodes", "claims", "pools", "brakes"]).await?.snapshot();
    let explanation =
        explain(&snapshot, node).ok_or_else(|| Fault::NotFound(format!("nothing is stored about a node {node}")))?;
    match format {
        Format::Json => output::print(&output::json(&NodeExplained::from(&explanation))?)?,
        Format::Yaml => output::print(&output::yaml(&NodeExplained::from(&explanation))?)?,
        _ => output::print(&node_text(&explanation))?,
    }
    Ok(Exit::Ok)
}

/// `explain node` in JSON.
#[derive(Debug, Serialize)]
struct NodeExplained {
    node: String,
    state: String,
    addresses: Vec<Because>,
    pools: Vec<PoolVerdict>,
}

#[derive(Debug, Serialize)]
struct Because {
    address: String,
    because: String,
}

#[derive(Debug, Serialize)]
struct PoolVerdict {
    pool: String,
    verdict: String,
    because: String,
}

impl From<&Explanation> for NodeExplained {
    fn from(explanation: &Explanation) -> Self {
        let because = |(ip, text): &(std::net::IpAddr, String)| Because { address: ip.to_string(), because: text.clone() };
        let pools = explanation.pools.iter().map(|pool| PoolVerdict {
            pool: pool.pool.to_string(),
            verdict: verdict(pool.verdict),
            because: pool.text.clone(),
        });
        NodeExplained {
            node: explanation.node.to_string(),
            state: explanation.state.clone(),
            addresses: explanation.addresses.iter().map(because).collect(),
            pools: pools.collect(),
        }
    }
}

fn verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::Chosen => "chosen".into(),
        Verdict::CouldServe => "could-serve".into(),
        Verdict::Refused(reason) => reason.to_string(),
        Verdict::NoMatch => "no-match".into(),
        Verdict::Unusable => "unusable".into(),
        Verdict::Unreadable => "unreadable".into(),
    }
}

/// The same for people.
fn node_text(explanation: &Explanation) -> String {
    let told = NodeExplained::from(explanation);
    let mut text = format!("node {}: {}\n", told.node, told.state);
    let rows = |title: &str, rows: Vec<[&str; 3]>| {
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let (first, second) = (width(0), width(1));
        let mut text = if rows.is_empty() { String::new() } else { format!("{title}:\n") };
        for [a, b, c] in rows {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {a:<first$}  {b:<second$}{}{c}", if second > 0 { "  " } else { "" });
        }
        text
    };
    text += &rows("addresses", told.addresses.iter().map(|row| [row.address.as_str(), "", &row.because]).collect());
    text += &rows("pools", told.pools.iter().map(|row| [row.pool.as_str(), &row.verdict, &row.because]).collect());
    text
}

async fn explain_group(loaded: &Loaded, group: &GroupKey, node: &NodeId, format: Format) -> anyhow::Result<Exit> {
    let manager = site::connect(loaded.manager()?).await.context("the manager's store")?;
    let folder = format!("manager/nodes/{node}");
    let content = content::read(&manager, &["groups", &folder]).await?;
    let definition = content.get(&content.prefix.group(group.name()));
    let definition = definition.ok_or_else(|| Fault::NotFound(format!("there is no group {}", group.name())))?;
    let definition = content::group(group.name(), definition).value;
    let definition = definition
        .map_err(|fault| anyhow::anyhow!("group {} is frozen, its definition cannot be used: {fault}", group.name()))?;
    let label = content.get(&content.prefix.copy(node, NodePart::Label)).map(stored::<Label>);
    let label = label.ok_or_else(|| {
        Fault::NotFound(format!(
            "the manager has no copy of a label of {node} (no such node, or the relay has not copied it yet)"
        ))
    })?;
    let label = label.value.map_err(|fault| anyhow::anyhow!("the label of {node} cannot be used: {fault}"))?;
    let explained = group_explained(group, &definition, &label);
    match format {
        Format::Json => output::print(&output::json(&explained)?)?,
        Format::Yaml => output::print(&output::yaml(&explained)?)?,
        _ => output::print(&group_text(&explained))?,
    }
    Ok(Exit::Ok)
}

/// `explain group` in JSON.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct GroupExplained {
    group: String,
    node: String,
    member: bool,
    terms: Vec<TermExplained>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct TermExplained {
    requirement: String,
    /// The value seen; null = the node has no such variable.
    seen: Option<String>,
    holds: bool,
}

fn group_explained(group: &GroupKey, definition: &Group, label: &Label) -> GroupExplained {
    let variables = &label.variables;
    let mut terms: Vec<TermExplained> = definition
        .selector
        .terms(variables)
        .into_iter()
        .map(|term| TermExplained {
            requirement: term.requirement.to_string(),
            seen: term.seen.map(str::to_owned),
            holds: term.holds,
        })
        .collect();
    // A keyed group wants the variables it is keyed by, and the one asked for their values.
    for name in &definition.keyed_by {
        let wanted = group.values().iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let seen = variables.get(name);
        terms.push(TermExplained {
            requirement: wanted.map_or_else(|| format!("{name} (keyed by)"), |value| format!("{name}={value} (keyed by)")),
            seen: seen.map(str::to_owned),
            holds: seen.is_some() && wanted.is_none_or(|wanted| Some(wanted.as_str()) == seen),
        });
    }
    let member = terms.iter().all(|term| term.holds);
    GroupExplained { group: group.to_string(), node: label.id.to_string(), member, terms }
}

fn group_text(explained: &GroupExplained) -> String {
    let verdict = if explained.member { "is in" } else { "is not in" };
    let mut text = format!("node {} {verdict} group {}\n", explained.node, explained.group);
    let width = explained.terms.iter().map(|term| term.requirement.chars().count()).max().unwrap_or_default();
    for term in &explained.terms {
        let holds = if term.holds { "yes" } else { "no " };
        let seen = term.seen.as_ref().map_or_else(|| "not there".into(), |seen| format!("{seen:?}"));
        let _ = writeln!(text, "  {holds}  {:<width$}  seen: {seen}", term.requirement);
    }
    if explained.terms.is_empty() {
        text.push_str("  its selector is empty: every node is in it\n");
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::model::documents::{Document, parse};
    use crate::store::wire::Stored as _;

    const LABEL: &str = r#"{"v":1,"id":"edge-7","instance":"i","boot":"b","run":"r","temporary":{"ip":"::1","port":1},
        "variables":{"zone":"eu-1","gpu":"2"}}"#;

    #[test]
    fn each_term_is_told_with_the_value_seen() {
        let text = "{kind: Group, name: web, selector: 'zone in (eu-1,eu-2),gpu>4,!old', keyed_by: [zone, rack]}";
        let Document::Group(group) = parse("-", text).unwrap().remove(0) else { panic!("no group") };
        let label = Label::decode(LABEL.as_bytes()).unwrap();
        let explained = group_explained(&"web".parse().unwrap(), &group, &label);
        insta::assert_snapshot!(group_text(&explained), @r#"
        node edge-7 is not in group web
          no   gpu>4                seen: "2"
          yes  !old                 seen: not there
          yes  zone in (eu-1,eu-2)  seen: "eu-1"
          yes  zone (keyed by)      seen: "eu-1"
          no   rack (keyed by)      seen: not there
        "#);
    }
}
