//! Definitions as documents: YAML and JSON for people and tools, one line of JSON for the store.
//!
//! Every field is written, defaults too, so that what is stored does not change its meaning with a default. Equal
//! definitions have equal forms. What is written here must be read by `build` as the same definition.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Serialize;

use super::{Document, VERSION};
use crate::model::duration;
use crate::model::group::Group;
use crate::model::pool::{AtOnce, Pool};

#[derive(Serialize)]
#[serde(untagged)]
enum Form<'d> {
    Pool(Box<PoolForm<'d>>),
    Group(GroupForm<'d>),
}

#[derive(Serialize)]
struct PoolForm<'d> {
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<u64>,
    kind: &'static str,
    name: &'d str,
    domain: &'d str,
    cidrs: Vec<String>,
    exclude: Vec<String>,
    ports: String,
    sharing: &'static str,
    selector: String,
    priority: i32,
    reserve: BTreeMap<&'d str, OneOrMore>,
    hold: String,
    cooldown: String,
    on_mismatch: &'static str,
    /// Absent = the default: a reader that does not know the field freezes a pool that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    move_at_once: Option<AtOnceForm>,
    on_isolation: &'static str,
}

#[derive(Serialize)]
struct GroupForm<'d> {
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<u64>,
    kind: &'static str,
    name: &'d str,
    selector: String,
    keyed_by: &'d [String],
    /// Absent = all ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<&'d str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum AtOnceForm {
    Count(u32),
    Percent(String),
}

/// The document as YAML, without `---`.
pub fn to_yaml(document: &Document) -> String {
    // A block scalar for a long selector would be harder to read than its line.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    // Texts, numbers, lists and maps with text keys: serialising them cannot fail, here and below.
    serde_saphyr::to_string_with_options(&form(document, None), options).unwrap_or_default()
}

/// The document as JSON.
pub fn to_json(document: &Document) -> serde_json::Value {
    serde_json::to_value(form(document, None)).unwrap_or_default()
}

/// What is stored in etcd: the document as JSON in one line with `"v":1` before it.
///
/// ```
/// use enlist::model::documents::{from_stored, parse, to_stored};
/// let group = parse("-", "{kind: Group, name: web, selector: 'role=web', port: http}").unwrap().remove(0);
/// let stored = to_stored(&group);
/// assert_eq!(stored, r#"{"v":1,"kind":"Group","name":"web","selector":"role=web","keyed_by":[],"port":"http"}"#);
/// assert_eq!(from_stored(stored.as_bytes()).unwrap(), group);
/// ```
pub fn to_stored(document: &Document) -> String {
    serde_json::to_string(&form(document, Some(VERSION))).unwrap_or_default()
}

fn form(document: &Document, v: Option<u64>) -> Form<'_> {
    match document {
        Document::Pool(pool) => Form::Pool(Box::new(pool_form(pool, v))),
        Document::Group(group) => Form::Group(group_form(group, v)),
    }
}

fn pool_form(pool: &Pool, v: Option<u64>) -> PoolForm<'_> {
    let reserved = |addresses: &Vec<std::net::IpAddr>| match &addresses[..] {
        [one] => OneOrMore::One(one.to_string()),
        more => OneOrMore::More(more.iter().map(ToString::to_string).collect()),
    };
    PoolForm {
        v,
        kind: "Pool",
        name: pool.name.as_str(),
        domain: pool.domain.as_str(),
        cidrs: pool.cidrs.iter().map(ToString::to_string).collect(),
        exclude: pool.exclude.iter().map(excluded).collect(),
        ports: pool.ports.to_string(),
        sharing: pool.sharing.as_str(),
        selector: pool.selector.to_string(),
        priority: pool.priority,
        reserve: pool.reserve.iter().map(|(node, addresses)| (node.as_str(), reserved(addresses))).collect(),
        hold: duration::print(pool.hold),
        cooldown: duration::print(pool.cooldown),
        on_mismatch: pool.on_mismatch.as_str(),
        move_at_once: (pool.move_at_once != AtOnce::default()).then(|| match pool.move_at_once {
            AtOnce::Count(count) => AtOnceForm::Count(count),
            percent @ AtOnce::Percent(_) => AtOnceForm::Percent(percent.to_string()),
        }),
        on_isolation: pool.on_isolation.as_str(),
    }
}

fn group_form(group: &Group, v: Option<u64>) -> GroupForm<'_> {
    GroupForm {
        v,
        kind: "Group",
        name: group.name.as_str(),
        selector: group.selector.to_string(),
        keyed_by: &group.keyed_by,
        port: group.port.as_ref().map(|port| port.as_str()),
    }
}

/// One address is written as people write it.
fn excluded(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}
