//! What relay and manager write: `manager/checkpoint`, `manager/groups/<group>` and its members.

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::label::real_ports;
use super::{Stored, VERSION, parse, print, version};
use crate::model::group::{Member, MemberState};
use crate::model::names::{NodeId, Revision};
use crate::model::ports::Ports;
use crate::model::text;
use crate::plan::snapshot::Unreadable;

/// `manager/checkpoint`: what the copies are equal to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The format's version.
    #[serde(deserialize_with = "version")]
    pub v: u64,
    /// The name of the source (a setting).
    pub source: String,
    /// The source's cluster id, as hexadecimal digits.
    pub cluster: String,
    /// The source revision that the copies are equal to (while `partial` is absent).
    pub revision: Revision,
    /// A cut that takes several transactions is under way: the copies equal no source state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
    /// Source keys that are too large to copy, relative to the source's prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// Where a cut of several transactions is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// The revision that it leads to.
    pub to: Revision,
    /// The part that was written last, from 1.
    pub part: u64,
}

impl Stored for Checkpoint {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        parse(bytes)
    }

    fn encode(&self) -> Bytes {
        print(self)
    }
}

/// `manager/groups/<group>`: one line about a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The format's version.
    #[serde(deserialize_with = "version")]
    pub v: u64,
    /// The group as people write it, e.g. `web` or `web/zone=eu-1`.
    pub group: String,
    /// The selector in canonical form; of a frozen group the last good one.
    pub selector: String,
    /// How many members.
    pub members: u64,
    /// How many of them are published.
    pub published: u64,
    /// Whether it is in order.
    pub condition: Condition,
    /// The source revision of the copies it rests on.
    pub revision: Revision,
}

/// Whether a group is in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Condition {
    /// Members equal what the selector says.
    Ok,
    /// The definition cannot be used; the members are the last ones.
    Frozen {
        /// What is wrong with the definition.
        message: String,
    },
}

impl Stored for Summary {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        parse(bytes)
    }

    fn encode(&self) -> Bytes {
        print(self)
    }
}

#[derive(Serialize, Deserialize)]
struct WireMember {
    #[serde(deserialize_with = "version")]
    v: u64,
    node: NodeId,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    ports: Ports,
    #[serde(with = "text")]
    state: MemberState,
    published: bool,
}

impl Stored for Member {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let wire: WireMember = parse(bytes)?;
        Ok(Member {
            node: wire.node,
            addresses: wire.addresses,
            ports: real_ports(wire.ports)?,
            state: wire.state,
            published: wire.published,
        })
    }

    fn encode(&self) -> Bytes {
        print(&WireMember {
            v: VERSION,
            node: self.node.clone(),
            addresses: self.addresses.clone(),
            ports: self.ports.clone(),
            state: self.state,
            published: self.published,
        })
    }
}
