//! What belongs to one object: its line of `get`, its keys with their values, its findings. Pure.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value as Json;

use super::{Description, FindingLine, StoredKey};
use crate::cli::check::look::groups;
use crate::cli::check::stray::stray;
use crate::cli::content::Content;
use crate::cli::show::claim::ClaimObject;
use crate::cli::show::group::GroupObject;
use crate::cli::show::member::MemberObject;
use crate::cli::show::node::{NodeObject, group_name};
use crate::cli::show::pool::PoolObject;
use crate::cli::show::role::RoleObject;
use crate::cli::show::{Shown, Stores};
use crate::model::finding::Finding;
use crate::plan::Pass;
use crate::plan::check::check;
use crate::plan::findings::findings;
use crate::plan::index::Index;
use crate::plan::outside;
use crate::plan::snapshot::{NodeRecord, Snapshot};
use crate::plan::world::World;
use crate::store::api::{KeyValue, LeaseId};
use crate::store::keys::{ParsedKey, Role};

fn json(value: &impl Serialize) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}

fn stored(kv: &KeyValue) -> StoredKey {
    let text = String::from_utf8_lossy(&kv.value).into_owned();
    StoredKey {
        key: kv.key.to_string(),
        revision: kv.mod_revision.0,
        leased: kv.lease != LeaseId::NONE,
        value: serde_json::from_slice(&kv.value).unwrap_or_else(|_| Json::String(text.clone())),
        text,
    }
}

/// The keys of a content that are meant.
fn keys(content: &Content, is_meant: impl Fn(&ParsedKey, &KeyValue) -> bool) -> Vec<StoredKey> {
    content.parsed().filter(|(key, kv)| is_meant(key, kv)).map(|(_, kv)| stored(kv)).collect()
}

/// Everything that is wrong at the source.
pub(in crate::cli) fn all_findings(snapshot: &Snapshot) -> Vec<Finding> {
    let pass = Pass::default();
    let index = Index::of(snapshot);
    let found: BTreeSet<Finding> = check(snapshot).into_iter().chain(findings(&World::new(snapshot, &index, &pass))).collect();
    found.into_iter().collect()
}

/// The findings that concern one of these keys (relative to the prefix; one that ends with `/` means all below it).
fn about(findings: Vec<Finding>, subjects: &[String]) -> Vec<FindingLine> {
    let concerns =
        |key: &String| subjects.iter().any(|subject| key == subject || (subject.ends_with('/') && key.starts_with(subject)));
    findings.into_iter().filter(|finding| finding.keys.iter().any(concerns)).map(FindingLine::from).collect()
}

impl From<Finding> for FindingLine {
    fn from(finding: Finding) -> Self {
        FindingLine { code: finding.code.into(), keys: finding.keys, message: finding.message }
    }
}

fn only<T: Shown>(stores: Stores<'_>, name: &str) -> Option<T> {
    T::list(stores).into_iter().find(|object| object.is_called(name))
}

pub(super) fn node(source: &Content, manager: Option<&Content>, name: &str) -> Option<Description> {
    let object: NodeObject = only(Stores { source: Some(source), manager }, name)?;
    let snapshot = source.snapshot();
    let owns = |claim: &_| {
        let stored = snapshot.claims.get(claim).and_then(|stored| stored.ok());
        stored.is_some_and(|claim| claim.node.as_str() == name)
    };
    let mut all = keys(source, |key, _| match key {
        ParsedKey::Node(node, _) => node.as_str() == name,
        ParsedKey::Claim(claim) => owns(claim),
        _ => false,
    });
    let copies = manager.map(|manager| {
        keys(manager, |key, _| matches!(key, ParsedKey::Copy(node, _) | ParsedKey::Member(_, node) if node.as_str() == name))
    });
    all.extend(copies.unwrap_or_default());
    let claims = snapshot.claims.keys().filter(|claim| owns(claim)).map(|claim| format!("claims/{claim}"));
    let subjects: Vec<String> = claims.chain([format!("nodes/{name}/")]).collect();
    Some(Description {
        kind: "node",
        name: name.into(),
        object: with_words(&object, snapshot.nodes.iter().find(|(node, _)| node.as_str() == name).map(|(_, record)| record)),
        stored: all,
        findings: about(all_findings(&snapshot), &subjects),
    })
}

/// What a node's line of `get` has no room for.
fn with_words(object: &NodeObject, record: Option<&NodeRecord>) -> Json {
    let mut object = json(object);
    let label = record.and_then(|record| record.label.as_ref()?.ok());
    if let (Json::Object(fields), Some(label)) = (&mut object, label) {
        fields.insert("description".into(), label.description.clone().into());
        fields.insert("temporary".into(), label.temporary.to_string().into());
    }
    object
}

pub(super) fn pool(source: &Content, name: &str) -> Option<Description> {
    let object: PoolObject = only(Stores { source: Some(source), manager: None }, name)?;
    let snapshot = source.snapshot();
    // `check` leaves out who has something outside: with `on_mismatch: keep` that is what the operator asked for.
    let found = [all_findings(&snapshot), outside::findings(&snapshot)].concat();
    let findings = about(found, &[format!("pools/{name}")]);
    let stored = keys(source, |key, _| matches!(key, ParsedKey::Pool(pool) if pool.as_str() == name));
    Some(Description { kind: "pool", name: name.into(), object: json(&object), stored, findings })
}

pub(super) fn claim(source: &Content, name: &str) -> Option<Description> {
    let object: ClaimObject = only(Stores { source: Some(source), manager: None }, name)?;
    let full = object.name();
    let findings = about(all_findings(&source.snapshot()), &[format!("claims/{full}")]);
    let stored = keys(source, |key, _| matches!(key, ParsedKey::Claim(claim) if claim.to_string() == full));
    Some(Description { kind: "claim", name: full, object: json(&object), stored, findings })
}

pub(super) fn group(manager: &Content, name: &str) -> Option<Description> {
    let stores = Stores { source: None, manager: Some(manager) };
    let objects: Vec<GroupObject> = GroupObject::list(stores).into_iter().filter(|group| group.is_called(name)).collect();
    let mut object = match objects.as_slice() {
        [] => return None,
        [one] => json(one),
        // A keyed definition: all its groups.
        many => Json::Object(many.iter().map(|group| (group.name.clone(), json(group))).collect()),
    };
    let members: Vec<MemberObject> = MemberObject::list(stores).into_iter().filter(|member| member.is_called(name)).collect();
    if let Json::Object(map) = &mut object {
        let lines = members.iter().map(|member| Json::String(format!("{} ({})", member.name(), member.state)));
        map.insert("nodes".into(), lines.collect());
    }
    let stored = keys(manager, |key, _| match key {
        ParsedKey::Group(group) => name == group.as_str() || name.split('/').next() == Some(group.as_str()),
        ParsedKey::Summary(segment) | ParsedKey::Member(segment, _) => {
            let group = group_name(segment);
            group == name || group.split('/').next() == Some(name)
        }
        _ => false,
    });
    let subjects: Vec<String> = stored.iter().map(|stored| manager.prefix.relative(&stored.key.as_str().into())).collect();
    Some(Description { kind: "group", name: name.into(), object, findings: about(group_findings(manager), &subjects), stored })
}

/// Everything that is wrong with groups, in `check`'s words. What `check` asks for again, because a change that is under way
/// looks like it, is not told after one look.
fn group_findings(manager: &Content) -> Vec<Finding> {
    let mut findings = groups(manager);
    findings.retain(|finding| !finding.code.starts_with("member-") && !finding.code.starts_with("summary-"));
    let told = findings.iter().flat_map(|finding| finding.keys.iter().cloned()).collect();
    findings.extend(stray(manager, &told));
    findings
}

pub(super) fn role(source: &Content, manager: Option<&Content>, name: &str) -> Option<Description> {
    let object: RoleObject = only(Stores { source: Some(source), manager }, name)?;
    let role: Role = name.parse().ok()?;
    let home = if role == Role::Allocator { Some(source) } else { manager };
    let is_meant = |key: &ParsedKey| match key {
        ParsedKey::Role(of) | ParsedKey::Brake(of) | ParsedKey::Leader(of, _) => *of == role,
        ParsedKey::Checkpoint => role == Role::Relay,
        _ => false,
    };
    let stored = home.map(|content| keys(content, |key, _| is_meant(key))).unwrap_or_default();
    let findings = home.map(|content| {
        let subjects: Vec<String> = stored.iter().map(|stored| content.prefix.relative(&stored.key.as_str().into())).collect();
        about(stray(content, &BTreeSet::new()), &subjects)
    });
    Some(Description { kind: "role", name: name.into(), object: json(&object), stored, findings: findings.unwrap_or_default() })
}
