//! Groups: a selector and its members. The operator writes definitions; the manager writes members and summaries.
//!
//! A group may be keyed: one group per combination of values that occurs. [`GroupKey`] names one of them.

mod key;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::fault::Fault;
use super::names::{GroupName, NodeId, PortName};
use super::ports::Ports;
use super::selector::Selector;
use super::variables::{Variables, check_name};

pub use key::{GroupKey, GroupKeyError};

/// A group is keyed by at most this many variables: each is a part of an etcd key.
pub const KEYED_BY_MAX: usize = 8;

/// A group's definition.
///
/// ```
/// use enlist::model::documents::{Document, parse};
/// let documents = parse("groups.yaml", "{kind: Group, name: web, selector: role=web, keyed_by: [zone]}").unwrap();
/// let [Document::Group(group)] = documents.as_slice() else { panic!() };
/// assert_eq!(group.selector.to_string(), "role=web");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The name of the group.
    pub name: GroupName,
    /// Selects the nodes that are members.
    pub selector: Selector,
    /// One group per combination of these variables' values; empty = one group. Order counts.
    pub keyed_by: Vec<String>,
    /// The named port that members publish; `None` = all.
    pub port: Option<PortName>,
}

impl Group {
    /// The first fault as text, with its field; `None` = valid.
    pub fn fault(&self) -> Option<String> {
        self.faults().first().map(Fault::to_string)
    }

    /// Every fault beyond the types of the fields.
    pub fn faults(&self) -> Vec<Fault> {
        let mut found = Vec::new();
        let mut fault = |message: String| found.push(Fault::new("keyed_by", message));
        if self.keyed_by.len() > KEYED_BY_MAX {
            fault(format!("{} variables, at most {KEYED_BY_MAX} are allowed", self.keyed_by.len()));
        }
        let mut seen = BTreeSet::new();
        for name in &self.keyed_by {
            if let Err(rule) = check_name(name) {
                fault(format!("{:?}: {rule}", name.chars().take(80).collect::<String>()));
            } else if !seen.insert(name) {
                fault(format!("{name} is named twice"));
            }
        }
        found
    }

    /// The group, of those that this definition makes, to which a node with these variables belongs; `None` if the node
    /// lacks a variable that the definition is keyed by. The caller checks the selector.
    pub fn key_of(&self, variables: &Variables) -> Option<GroupKey> {
        let value = |name: &String| Some((name.clone(), variables.get(name)?.to_owned()));
        let values = self.keyed_by.iter().map(value).collect::<Option<Vec<_>>>()?;
        Some(GroupKey::of_valid(self.name.clone(), values))
    }
}

/// One member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The addresses of the node, IPv4 first; empty while it has none.
    pub addresses: Vec<IpAddr>,
    /// The ports of the node by name (only the group's `port` if it names one).
    pub ports: Ports,
    /// The state of the member.
    pub state: MemberState,
    /// Whether consumers should use it.
    pub published: bool,
}

/// The state of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// Bound, `registered`, and the generation in its status is that of the assignment.
    Ready,
    /// Not ready yet.
    Joining,
    /// The agent failed to apply the assignment.
    Failed,
    /// Silent, but bound.
    Suspect,
    /// Stopping.
    Draining,
    /// Stopped cleanly.
    Stopped,
}

impl MemberState {
    /// Every state, with its stored word.
    pub const ALL: [(MemberState, &'static str); 6] = [
        (MemberState::Ready, "ready"),
        (MemberState::Joining, "joining"),
        (MemberState::Failed, "failed"),
        (MemberState::Suspect, "suspect"),
        (MemberState::Draining, "draining"),
        (MemberState::Stopped, "stopped"),
    ];

    /// The stored word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for MemberState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .find(|(_, word)| *word == text)
            .map(|(state, _)| *state)
            .ok_or_else(|| format!("state {text:?} is unknown"))
    }
}
