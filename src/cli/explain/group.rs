//! `enlist explain group`: requirement by requirement with the values seen, and what the manager makes of the node.

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::content::{self, manager_view, stored};
use crate::cli::exit::{Exit, Fault};
use crate::cli::output::{self, Format, Lines};
use crate::cli::site;
use crate::config::Loaded;
use crate::manager::explain::Membership;
use crate::manager::view::KEYED_GROUPS_MAX;
use crate::model::group::{Group, GroupKey};
use crate::model::label::Label;
use crate::model::names::NodeId;
use crate::store::keys::NodePart;

/// Tells what the manager would do with one node and one group.
pub(super) async fn explain(loaded: &Loaded, group: &GroupKey, node: &NodeId, format: Format) -> anyhow::Result<Exit> {
    let manager = site::connect(loaded.manager()?).await.context("the manager's store")?;
    // All copies: how many groups a definition has, and whether the brake is on, is a question about all nodes.
    let content = content::read(&manager, &["brakes", "groups", "manager"]).await?;
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
    let membership = manager_view(&content).membership(group, node);
    let explained = group_explained(group, &definition, &label, &membership);
    match format {
        Format::Json => output::print(&output::json(&explained)?)?,
        Format::Yaml => output::print(&output::yaml(&explained)?)?,
        _ => output::print(group_text(&explained).as_str())?,
    }
    Ok(Exit::Ok)
}

/// `explain group` in JSON.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct GroupExplained {
    group: String,
    node: String,
    member: bool,
    /// What kind of member; null = it is none.
    state: Option<String>,
    /// Whether consumers are told of it.
    published: bool,
    /// Why it is no member although all terms hold; empty = no such reason.
    note: String,
    terms: Vec<TermExplained>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct TermExplained {
    requirement: String,
    /// The value seen; null = the node has no such variable.
    seen: Option<String>,
    holds: bool,
}

fn group_explained(group: &GroupKey, definition: &Group, label: &Label, membership: &Membership) -> GroupExplained {
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
    let (state, published) = match membership {
        Membership::Member { state, published } => (Some(state.to_string()), *published),
        _ => (None, false),
    };
    let note = match membership {
        Membership::AboveLimit => format!(
            "group {} has {KEYED_GROUPS_MAX} groups of other nodes already, and more are not kept: key it by a variable with fewer values",
            group.name()
        ),
        Membership::Unknown => "the copies are not complete, so no group follows the labels now: a relay must run".into(),
        Membership::Gone => "there is nothing of it to be a member: it left, or what it had was released".into(),
        Membership::Member { .. } | Membership::NotSelected => String::new(),
    };
    let (group, node) = (group.to_string(), label.id.to_string());
    let member = match membership {
        Membership::Unknown => terms.iter().all(|term| term.holds),
        _ => state.is_some(),
    };
    GroupExplained { group, node, member, state, published, note, terms }
}

fn group_text(explained: &GroupExplained) -> Lines {
    let GroupExplained { node, group, .. } = explained;
    let mut text = Lines::default();
    match &explained.state {
        Some(state) => {
            let published = if explained.published { "published" } else { "not published" };
            text.add(format_args!("node {node} is in group {group}: {state}, {published}"));
        }
        None if explained.member => text.add(format_args!("node {node} should be in group {group}")),
        None => text.add(format_args!("node {node} is not in group {group}")),
    }
    if !explained.note.is_empty() {
        text.add(format_args!("  {}", explained.note));
    }
    let width = explained.terms.iter().map(|term| term.requirement.chars().count()).max().unwrap_or_default();
    for term in &explained.terms {
        let holds = if term.holds { "yes" } else { "no " };
        let seen = term.seen.as_ref().map_or_else(|| "not there".into(), |seen| format!("{seen:?}"));
        text.add(format_args!("  {holds}  {:<width$}  seen: {seen}", term.requirement));
    }
    if explained.terms.is_empty() {
        text.add("  its selector is empty: it matches every node");
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::model::documents::{Document, parse};
    use crate::model::group::MemberState;
    use crate::store::wire::Stored as _;

    const LABEL: &str = r#"{"v":1,"id":"edge-7","instance":"i","boot":"b","run":"r","temporary":{"ip":"::1","port":1},
        "variables":{"zone":"eu-1","gpu":"2"}}"#;

    #[test]
    fn each_term_is_told_with_the_value_seen() {
        let text = "{kind: Group, name: web, selector: 'zone in (eu-1,eu-2),gpu>4,!old', keyed_by: [zone, rack]}";
        let Document::Group(group) = parse("-", text).unwrap().remove(0) else { panic!("no group") };
        let label = Label::decode(LABEL.as_bytes()).unwrap();
        let explained = group_explained(&"web".parse().unwrap(), &group, &label, &Membership::NotSelected);
        insta::assert_snapshot!(group_text(&explained).as_str(), @r#"
        node edge-7 is not in group web
          no   gpu>4                seen: "2"
          yes  !old                 seen: not there
          yes  zone in (eu-1,eu-2)  seen: "eu-1"
          yes  zone (keyed by)      seen: "eu-1"
          no   rack (keyed by)      seen: not there
        "#);
    }

    #[test]
    fn what_the_manager_does_is_told_beside_the_terms() {
        let text = "{kind: Group, name: web, selector: zone, keyed_by: [zone]}";
        let Document::Group(group) = parse("-", text).unwrap().remove(0) else { panic!("no group") };
        let label = Label::decode(LABEL.as_bytes()).unwrap();
        let told = |membership| {
            let text = group_text(&group_explained(&"web".parse().unwrap(), &group, &label, &membership));
            text.as_str().lines().take(2).collect::<Vec<_>>().join("\n")
        };
        let member = |state, published| Membership::Member { state, published };
        let terms = "  yes  zone             seen: \"eu-1\"";
        assert_eq!(told(member(MemberState::Ready, true)), format!("node edge-7 is in group web: ready, published\n{terms}"));
        assert_eq!(
            told(member(MemberState::Failed, false)),
            format!("node edge-7 is in group web: failed, not published\n{terms}")
        );
        assert!(
            told(Membership::AboveLimit)
                .starts_with("node edge-7 is not in group web\n  group web has 1000 groups of other nodes")
        );
        assert!(told(Membership::Unknown).starts_with("node edge-7 should be in group web\n  the copies are not complete"));
        assert!(told(Membership::Gone).contains("it left, or what it had was released"));
    }
}
