//! Members of groups, as `get members` shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;

use super::group::GroupObject;
use super::node::group_name;
use super::{Shown, Stores, joined, pairs};
use crate::cli::content::{Content, decoded};
use crate::model::group::Member;
use crate::model::names::NodeId;
use crate::store::api::KeyValue;
use crate::store::keys::ParsedKey;

/// One member of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberObject {
    /// The group, e.g. `web` or `web/zone=eu-1`.
    pub group: String,
    /// The node.
    pub node: String,
    /// ready, joining, failed, suspect, draining, stopped, or unreadable.
    pub state: String,
    /// Whether consumers should use it.
    pub published: bool,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Its ports by name, or the one that the group names.
    pub ports: BTreeMap<String, u16>,
    /// When it was last written, as a revision of the manager's store.
    pub revision: i64,
}

impl Shown for MemberObject {
    const SOURCE: &'static [&'static str] = &[];
    const MANAGER: &'static [&'static str] = GroupObject::MANAGER;
    const HEADINGS: &'static [&'static str] = &["GROUP", "NODE", "STATE", "PUBLISHED", "ADDRESSES", "PORTS"];
    const NARROW: &'static [&'static str] = &["PORTS"];
    const WIDE: &'static [&'static str] = &["REVISION"];

    fn list(stores: Stores<'_>) -> Vec<Self> {
        let parsed = stores.manager.into_iter().flat_map(Content::parsed);
        let members = parsed.filter_map(|(key, kv)| match key {
            ParsedKey::Member(segment, node) => Some(object(&segment, &node, kv)),
            _ => None,
        });
        members.collect()
    }

    fn warning(stores: Stores<'_>) -> Option<String> {
        super::role::stale_copies(stores.manager)
    }

    fn name(&self) -> String {
        format!("{}/{}", self.group, self.node)
    }

    /// A group means all its members; a keyed definition those of all its groups.
    fn is_called(&self, name: &str) -> bool {
        self.group == name || self.name() == name || self.group.split('/').next() == Some(name)
    }

    fn may_be_none(stores: Stores<'_>, name: &str) -> bool {
        GroupObject::list(stores).iter().any(|group| group.is_called(name))
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        vec![
            self.group.clone(),
            self.node.clone(),
            self.state.clone(),
            if self.published { "yes" } else { "no" }.into(),
            joined(&self.addresses),
            pairs(&self.ports),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        vec![self.revision.to_string()]
    }
}

fn object(segment: &str, node: &NodeId, kv: &KeyValue) -> MemberObject {
    let member = decoded::<Member>(kv).ok();
    MemberObject {
        group: group_name(segment),
        node: node.to_string(),
        state: member.as_ref().map_or("unreadable", |member| member.state.as_str()).into(),
        published: member.as_ref().is_some_and(|member| member.published),
        addresses: member.as_ref().map(|member| member.addresses.clone()).unwrap_or_default(),
        ports: member.iter().flat_map(|member| &member.ports).map(|(name, port)| (name.to_string(), *port)).collect(),
        revision: kv.mod_revision.0,
    }
}
