//! Groups, as `get groups` shows them: definitions with the manager's summaries.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value as Json;

use super::node::group_name;
use super::role::{copies_lag_s, stale_copies};
use super::{Shown, Stores, joined};
use crate::cli::content::{Content, decoded, group};
use crate::model::documents::Document;
use crate::model::names::GroupName;
use crate::store::api::KeyValue;
use crate::store::keys::ParsedKey;
use crate::store::wire::{Condition, Summary};

/// A group: a definition, or for a keyed one a combination of values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupObject {
    /// `web` or `web/zone=eu-1`.
    pub name: String,
    /// Canonical; of a frozen group the last good one.
    pub selector: String,
    /// The variables it is keyed by.
    pub keyed_by: Vec<String>,
    /// The named port that members publish; null = all.
    pub port: Option<String>,
    /// How many members.
    pub members: u64,
    /// How many of them are published.
    pub published: u64,
    /// ok; frozen (the definition has a fault, the members are the last ones); new (no manager has seen it yet) or invalid (and none
    /// will: it has a fault); orphaned (its definition is gone, the manager has not seen that yet); unreadable (its summary is).
    pub condition: String,
    /// What is wrong with a frozen one.
    pub message: String,
    /// The source revision of the copies when the group changed last; 0 = none yet.
    pub revision: i64,
    /// How late the copies are that all groups rest on, in seconds; null = no relay leads.
    pub copies_lag_s: Option<u64>,
}

impl Shown for GroupObject {
    const SOURCE: &'static [&'static str] = &[];
    const MANAGER: &'static [&'static str] = &["groups", "manager/groups", "roles"];
    const HEADINGS: &'static [&'static str] = &["GROUP", "SELECTOR", "MEMBERS", "PUBLISHED", "CONDITION"];
    const NARROW: &'static [&'static str] = &["SELECTOR"];
    const WIDE: &'static [&'static str] = &["KEYED BY", "PORT", "REVISION", "COPIES LAG", "MESSAGE"];

    fn list(stores: Stores<'_>) -> Vec<Self> {
        stores.manager.map(groups).unwrap_or_default()
    }

    fn warning(stores: Stores<'_>) -> Option<String> {
        stale_copies(stores.manager)
    }

    /// A keyed group's document is that of its definition.
    fn documents(stores: Stores<'_>) -> Option<Vec<(String, Result<Document, String>)>> {
        let parsed = stores.manager.into_iter().flat_map(Content::parsed);
        let documents = parsed.filter_map(|(key, kv)| match key {
            ParsedKey::Group(name) => {
                let document = group(&name, kv).value.map(Document::Group).map_err(|fault| fault.to_string());
                Some((name.to_string(), document))
            }
            _ => None,
        });
        Some(documents.collect())
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    /// A definition's name means all groups it is keyed into.
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.name.split('/').next() == Some(name)
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        vec![
            self.name.clone(),
            match (self.selector.as_str(), self.condition.as_str()) {
                // Of a definition that cannot be read no selector is known: it does not mean everybody.
                ("", "ok" | "new" | "orphaned") => "(all)".into(),
                (selector, _) => selector.into(),
            },
            self.members.to_string(),
            self.published.to_string(),
            self.condition.clone(),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        let lag = self.copies_lag_s.map(|seconds| format!("{seconds}s")).unwrap_or_default();
        vec![joined(&self.keyed_by), self.port.clone().unwrap_or_default(), self.revision.to_string(), lag, self.message.clone()]
    }
}

/// A definition as far as it can be read: for people who look for what is wrong with it.
#[derive(Debug, Clone, Default)]
struct Definition {
    selector: String,
    keyed_by: Vec<String>,
    port: Option<String>,
    fault: Option<String>,
}

fn definition(name: &GroupName, kv: &KeyValue) -> Definition {
    match group(name, kv).value {
        Ok(group) => Definition {
            selector: group.selector.to_string(),
            keyed_by: group.keyed_by,
            port: group.port.map(|port| port.to_string()),
            fault: None,
        },
        Err(fault) => {
            let json: Json = serde_json::from_slice(&kv.value).unwrap_or_default();
            let selector = json.get("selector").and_then(Json::as_str).unwrap_or_default().to_owned();
            Definition { selector, fault: Some(fault.to_string()), ..Definition::default() }
        }
    }
}

fn groups(manager: &Content) -> Vec<GroupObject> {
    let mut definitions = BTreeMap::new();
    let mut objects = BTreeMap::new();
    for (key, kv) in manager.parsed() {
        match key {
            ParsedKey::Group(name) => drop(definitions.insert(name.to_string(), definition(&name, kv))),
            ParsedKey::Summary(segment) => {
                let name = group_name(&segment);
                let of = name.split('/').next().unwrap_or_default().to_owned();
                objects.insert(name.clone(), summarised(&name, decoded(kv).ok(), definitions.get(&of)));
            }
            _ => {}
        }
    }
    for (name, definition) in &definitions {
        let keyed = format!("{name}/");
        let has_summary = objects.keys().any(|known: &String| known == name || known.starts_with(&keyed));
        if !has_summary {
            objects.insert(name.clone(), unseen(name, definition));
        }
    }
    let copies_lag_s = copies_lag_s(manager);
    objects.into_values().map(|object| GroupObject { copies_lag_s, ..object }).collect()
}

fn summarised(name: &str, summary: Option<Summary>, definition: Option<&Definition>) -> GroupObject {
    let (condition, message) = match (&summary, definition) {
        (None, _) => ("unreadable", String::new()),
        (Some(_), None) => ("orphaned", "its definition is gone".into()),
        (Some(Summary { condition: Condition::Frozen { message }, .. }), _) => ("frozen", message.clone()),
        (Some(_), Some(_)) => ("ok", String::new()),
    };
    GroupObject {
        name: name.into(),
        selector: summary.as_ref().map(|summary| summary.selector.clone()).unwrap_or_default(),
        keyed_by: definition.map(|definition| definition.keyed_by.clone()).unwrap_or_default(),
        port: definition.and_then(|definition| definition.port.clone()),
        members: summary.as_ref().map_or(0, |summary| summary.members),
        published: summary.as_ref().map_or(0, |summary| summary.published),
        condition: condition.into(),
        message,
        revision: summary.map_or(0, |summary| summary.revision.0),
        copies_lag_s: None,
    }
}

fn unseen(name: &str, definition: &Definition) -> GroupObject {
    GroupObject {
        name: name.into(),
        selector: definition.selector.clone(),
        keyed_by: definition.keyed_by.clone(),
        port: definition.port.clone(),
        members: 0,
        published: 0,
        condition: if definition.fault.is_some() { "invalid" } else { "new" }.into(),
        message: definition.fault.clone().unwrap_or_default(),
        revision: 0,
        copies_lag_s: None,
    }
}
