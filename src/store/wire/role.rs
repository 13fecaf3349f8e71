//! `roles/<role>`: what the leading instance of a role says of itself. On its leader's lease, written every few seconds.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Stored, parse, print, version};
use crate::model::names::Revision;
use crate::plan::brake::BrakeState;
use crate::plan::snapshot::Unreadable;

/// What a role's leader says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleReport {
    /// The format's version.
    #[serde(deserialize_with = "version")]
    pub v: u64,
    /// The instance, e.g. `host-a/4711`.
    pub identity: String,
    /// enlist's version.
    pub version: String,
    /// The revision its view has seen.
    pub revision: Revision,
    /// How far it is behind, in revisions (relay and manager; 0 for the allocator).
    #[serde(default)]
    pub lag: i64,
    /// Why its brake is on or was released, for people; empty = off.
    #[serde(default)]
    pub brake: String,
    /// What etcd refuses or fails to answer this leader, in words; empty = nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
    /// What its brake does; absent = an older enlist wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brake_state: Option<BrakeState>,
    /// When this leader first saw it so, RFC 3339, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub brake_since: String,
    /// The last pass, in words: why it ran, what it did, when it ended (RFC 3339), how long it took.
    #[serde(default)]
    pub last_pass: String,
    /// How many findings it has.
    #[serde(default)]
    pub findings: u64,
    /// Counters since this instance leads, by name.
    #[serde(default)]
    pub counters: std::collections::BTreeMap<String, u64>,
}

impl Stored for RoleReport {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        parse(bytes)
    }

    fn encode(&self) -> Bytes {
        print(self)
    }
}
